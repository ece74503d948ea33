//! A UDP client's socket and session.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use prost::Message as _;
use sluice_codec::datagram::{AddressTicket, Channel, ClientConnection, Config, End};
use sluice_protocol::packet::Packet;
use tokio::{net::UdpSocket, time::Instant};

use crate::rig::datagram_key;

/// Sends and receives only while it is asked for packets.
pub(crate) struct UdpClient {
    pub(crate) socket: UdpSocket,
    pub(crate) connection: ClientConnection,
    began: Instant,
    received: VecDeque<Packet>,
    /// The last datagram that was sent.
    pub(crate) last_sent: Vec<u8>,
    /// Datagrams that the handshake took from the server.
    pub(crate) handshake_answers: usize,
}

// === impl UdpClient ===

impl UdpClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_from("127.0.0.1", address, None).await
    }

    /// From an address of this machine, perhaps with a ticket.
    pub(crate) async fn connect_from(
        local: &str,
        address: SocketAddr,
        ticket: Option<AddressTicket>,
    ) -> Self {
        let connection = ClientConnection::connect(
            0,
            datagram_key().pin().into(),
            ticket.map(|ticket| (datagram_key().pin(), ticket)),
            rand::random(),
            rand::random(),
            Arc::new(Config::default()),
        );
        Self {
            socket: bound(local, address).await,
            connection,
            began: Instant::now(),
            received: VecDeque::new(),
            last_sent: Vec::new(),
            handshake_answers: 0,
        }
    }

    /// Goes on from another port, as behind another network.
    pub(crate) async fn move_away(&mut self) {
        self.move_to("127.0.0.1").await;
    }

    /// Goes on from a port of this address.
    pub(crate) async fn move_to(&mut self, local: &str) {
        self.socket = bound(local, self.socket.peer_addr().unwrap()).await;
        let now_us = self.now_us();
        self.connection.rebind(now_us);
    }

    pub(crate) async fn send(&mut self, packet: &Packet) -> Result<(), String> {
        let (now_us, payload) = (self.now_us(), packet.encode_to_vec());
        let sent = (self.connection).send(now_us, Channel::CONTROL, payload.into());
        sent.map_err(|error| error.to_string())?;
        self.flush().await;
        Ok(())
    }

    /// The next packet; `None` when the session has ended.
    pub(crate) async fn recv(&mut self) -> Option<Packet> {
        let mut datagram = vec![0; 2_000];
        loop {
            if let Some(packet) = self.received.pop_front() {
                return Some(packet);
            }
            self.flush().await;
            if self.end().is_some() || self.connection.failure().is_some() {
                return None;
            }
            let timeout = self.connection.timeout();
            let due = timeout.map(|at_us| self.began + std::time::Duration::from_micros(at_us));
            tokio::select! {
                // A port that nobody listens on is an error of one datagram.
                Ok(bytes) = self.socket.recv(&mut datagram) => {
                    let now_us = self.now_us();
                    self.handshake_answers += usize::from(!self.connection.is_open());
                    let received = &mut self.received;
                    let mut sink = |_, message: &[u8]| {
                        received.push_back(Packet::decode(message).unwrap());
                        true
                    };
                    let _ = self.connection.receive(now_us, &mut datagram[..bytes], &mut sink);
                }
                () = tokio::time::sleep_until(due.unwrap_or(self.began)), if due.is_some() => {
                    let now_us = self.now_us();
                    self.connection.on_timeout(now_us);
                }
            }
        }
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.connection.end()
    }

    pub(crate) async fn flush(&mut self) {
        let now_us = self.now_us();
        let mut datagram = Vec::new();
        while self.connection.transmit(now_us, &mut datagram).is_some() {
            let _ = self.socket.send(&datagram).await;
            self.last_sent = std::mem::take(&mut datagram);
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }
}

async fn bound(local: &str, address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((local, 0)).await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}
