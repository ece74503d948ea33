//! Sluice's own datagram session, sealed, as the gateway and the SDK use it.

use crate::clock::now_us;
use crate::session::Session;
use crate::transport::Invitation;
use crate::transport::udp::{Machine, drive};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sluice_codec::datagram::{
    Acceptor, Arrival, Channel, ClientConnection, Config, Header, ServerConnection, ServerKey,
    ServerKeys, ServerPins,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;

struct Client {
    connection: ClientConnection,
    channel: Channel,
    server: SocketAddr,
    arrived: VecDeque<Vec<u8>>,
}

/// A server that takes one client.
struct Server {
    acceptor: Acceptor,
    channel: Channel,
    connection: Option<Box<ServerConnection>>,
    /// Handshake packets to be sent.
    answers: VecDeque<(Vec<u8>, SocketAddr)>,
    arrived: VecDeque<Vec<u8>>,
}

/// All messages go on this channel.
pub(crate) async fn serve(
    channel: Channel,
    listen: SocketAddr,
    invite: impl FnOnce(Invitation) -> Result<()>,
    session: &mut Session,
) -> Result<()> {
    let socket = UdpSocket::bind(listen).await?;
    let key = ServerKey::from_secret(rand::random());
    let keys = ServerKeys::new(vec![key], "netlab")?;
    let pin = keys.pins().next().context("a server without a key")?;
    let (address, key) = (socket.local_addr()?, pin.to_string());
    invite(Invitation { address, key })?;
    let server = Server {
        acceptor: Acceptor::new(keys, 0),
        channel,
        connection: None,
        answers: VecDeque::new(),
        arrived: VecDeque::new(),
    };
    drive(socket, server, session).await
}

pub(crate) async fn connect(
    channel: Channel,
    to: &Invitation,
    session: &mut Session,
) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let pins: ServerPins = to.key.parse()?;
    let (attempt, ephemeral) = (rand::random(), rand::random());
    let config = Arc::new(Config::default());
    let client = Client {
        connection: ClientConnection::connect(now_us(), pins, None, attempt, ephemeral, config),
        channel,
        server: to.address,
        arrived: VecDeque::new(),
    };
    drive(socket, client, session).await
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

// === impl Client ===

impl Machine for Client {
    fn send(&mut self, message: &[u8], now_us: u64) -> Result<()> {
        let message = Bytes::copy_from_slice(message);
        Ok(self.connection.send(now_us, self.channel, message)?)
    }

    fn receive(&mut self, datagram: &mut [u8], _from: SocketAddr, now_us: u64) -> Result<()> {
        let arrived = &mut self.arrived;
        // What it drops it drops; what ends it is asked for below.
        let _ = self
            .connection
            .receive(now_us, datagram, &mut |_, message| {
                arrived.push_back(message.to_vec());
                true
            });
        let (failure, end) = (self.connection.failure(), self.connection.end());
        ensure!(failure.is_none(), "no session: {failure:?}");
        ensure!(end.is_none(), "the session has ended: {end:?}");
        Ok(())
    }

    fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.arrived.pop_front()
    }

    fn poll_datagram(&mut self, datagram: &mut Vec<u8>, now_us: u64) -> Option<SocketAddr> {
        datagram.clear();
        self.connection.transmit(now_us, datagram)?;
        Some(self.server)
    }

    fn timeout_us(&mut self, _now_us: u64) -> Option<u64> {
        self.connection.timeout()
    }

    fn on_timeout(&mut self, now_us: u64) -> Result<()> {
        self.connection.on_timeout(now_us);
        Ok(())
    }
}

// === impl Server ===

impl Server {
    fn receive_handshake(&mut self, datagram: &[u8], from: SocketAddr, now_us: u64) -> Result<()> {
        let knock = match self.acceptor.receive(datagram, from, unix_ms()) {
            Arrival::Knock(knock) => knock,
            Arrival::Answer(answer) => {
                self.answers.push_back((answer.to_vec(), from));
                return Ok(());
            }
            Arrival::Drop(_) => return Ok(()),
        };
        let welcome = match &self.connection {
            Some(connection) => connection.welcome().cloned(),
            None => {
                let accepted = self.acceptor.accept(&knock, now_us, rand::random())?;
                let config = Arc::new(Config::default());
                let connection = ServerConnection::new(now_us, accepted, from, config);
                let connection = self.connection.insert(Box::new(connection));
                connection.welcome().cloned()
            }
        };
        self.answers
            .extend(welcome.map(|welcome| (welcome.to_vec(), from)));
        Ok(())
    }
}

impl Machine for Server {
    fn send(&mut self, message: &[u8], now_us: u64) -> Result<()> {
        let connection = self.connection.as_mut();
        let connection = connection.context("nobody to send to yet")?;
        let message = Bytes::copy_from_slice(message);
        Ok(connection.send(now_us, self.channel, message)?)
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr, now_us: u64) -> Result<()> {
        match (Header::parse(datagram), &mut self.connection) {
            (Ok(Header::Handshake(_)), _) => self.receive_handshake(datagram, from, now_us),
            (Ok(Header::Session(header)), Some(connection)) => {
                let arrived = &mut self.arrived;
                let mut sink = |_: Channel, message: &[u8]| {
                    arrived.push_back(message.to_vec());
                    true
                };
                let token = rand::random();
                // As at the client.
                let _ = connection.receive(now_us, &header, datagram, from, token, &mut sink);
                let end = connection.end();
                ensure!(end.is_none(), "the session has ended: {end:?}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.arrived.pop_front()
    }

    fn poll_datagram(&mut self, datagram: &mut Vec<u8>, now_us: u64) -> Option<SocketAddr> {
        if let Some((answer, to)) = self.answers.pop_front() {
            *datagram = answer;
            return Some(to);
        }
        datagram.clear();
        let sent = self.connection.as_mut()?.transmit(now_us, datagram)?;
        Some(sent.address)
    }

    fn timeout_us(&mut self, _now_us: u64) -> Option<u64> {
        self.connection.as_ref()?.timeout()
    }

    fn on_timeout(&mut self, now_us: u64) -> Result<()> {
        if let Some(connection) = &mut self.connection {
            connection.on_timeout(now_us);
        }
        Ok(())
    }
}
