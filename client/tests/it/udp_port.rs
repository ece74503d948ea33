//! The model's UDP port: a gateway's, without its speed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_client::ServerPins;
use sluice_codec::{
    datagram::{
        Acceptor, Arrival, Channel, Config, Header, ServerConnection, ServerKeys, SessionHeader,
    },
    decode_packet, encode_packet,
};
use sluice_protocol::packet::Packet;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, mpsc::error::TryRecvError},
    task::JoinSet,
    time::Instant,
};

use crate::{
    model::Conn,
    server::{Hub, leave},
};

/// Where it is, and what has happened there.
pub(crate) struct UdpPort {
    pub(crate) address: SocketAddr,
    pub(crate) pins: ServerPins,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    tickets: AtomicUsize,
    moves: AtomicUsize,
    forget: Notify,
}

struct Session {
    link: ServerConnection,
    conn: Conn,
    packets: mpsc::Receiver<Packet>,
}

struct Port {
    socket: UdpSocket,
    acceptor: Acceptor,
    hub: Arc<Mutex<Hub>>,
    sessions: HashMap<[u8; 8], Session>,
    began: Instant,
    seen: Arc<Seen>,
    config: Arc<Config>,
}

// === impl UdpPort ===

impl UdpPort {
    pub(crate) async fn start(
        hub: Arc<Mutex<Hub>>,
        keys: ServerKeys,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let pins = ServerPins::new(keys.pins().collect()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let port = Port {
            socket,
            acceptor: Acceptor::new(keys, 0),
            hub,
            sessions: HashMap::new(),
            began: Instant::now(),
            seen: seen.clone(),
            config: Arc::default(),
        };
        tasks.spawn(port.run());
        Self {
            address,
            pins,
            seen,
        }
    }

    /// Answers to packets that belong to no session: cookies.
    pub(crate) fn answers(&self) -> usize {
        self.seen.answers.load(Ordering::Relaxed)
    }

    /// Knocks with a ticket.
    pub(crate) fn tickets(&self) -> usize {
        self.seen.tickets.load(Ordering::Relaxed)
    }

    /// Clients that were seen at another address.
    pub(crate) fn moves(&self) -> usize {
        self.seen.moves.load(Ordering::Relaxed)
    }

    /// All sessions are gone, as after a restart.
    pub(crate) fn forget(&self) {
        self.seen.forget.notify_one();
    }
}

// === impl Port ===

impl Port {
    async fn run(mut self) {
        let sent = self.hub.lock().unwrap().sent.clone();
        let mut buffer = vec![0; 2048];
        loop {
            let due = self.sessions.values().filter_map(|it| it.link.timeout());
            let due = due.min().map(Duration::from_micros);
            let due = self.began + due.unwrap_or(Duration::from_secs(3600));
            let seen = self.seen.clone();
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((bytes, from)) = received {
                        self.receive(&mut buffer[..bytes], from);
                    }
                }
                () = sent.notified() => {}
                () = seen.forget.notified() => {
                    for (_, session) in self.sessions.drain() {
                        leave(&self.hub, session.conn);
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            self.pump();
        }
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr) {
        match Header::parse(datagram) {
            Ok(Header::Session(header)) => self.receive_sealed(&header, datagram, from),
            Ok(Header::Handshake(_)) => self.receive_handshake(datagram, from),
            Ok(Header::Reset(_)) | Err(_) => {}
        }
    }

    fn receive_sealed(&mut self, header: &SessionHeader, datagram: &mut [u8], from: SocketAddr) {
        let now_us = self.now_us();
        // A fault may have made it one of those to clients, which name no session.
        let Some(id) = header.connection_id else {
            return;
        };
        let Some(session) = self.sessions.get_mut(id.as_bytes()) else {
            if let Some(answer) = self.acceptor.reset(id, datagram.len()) {
                let _ = self.socket.try_send_to(&answer, from);
            }
            return;
        };
        let token = rand::random();
        let before = session.link.address();
        let mut packets = Vec::new();
        let mut sink = |_: Channel, payload: &[u8]| {
            packets.push(decode_packet(payload).unwrap());
            true
        };
        // What is not the client's is dropped.
        let _ = session
            .link
            .receive(now_us, header, datagram, from, token, &mut sink);
        if session.link.address() != before {
            self.seen.moves.fetch_add(1, Ordering::Relaxed);
        }
        let conn = session.conn;
        for packet in packets {
            self.hub.lock().unwrap().handle(conn, packet);
        }
    }

    fn receive_handshake(&mut self, datagram: &[u8], from: SocketAddr) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_us = self.now_us();
        match self
            .acceptor
            .receive(datagram, from, unix.as_millis() as u64)
        {
            Arrival::Answer(answer) => {
                self.seen.answers.fetch_add(1, Ordering::Relaxed);
                let _ = self.socket.try_send_to(&answer, from);
            }
            Arrival::Knock(knock) => {
                let id = *knock.connection_id().as_bytes();
                if !self.sessions.contains_key(&id) {
                    let tickets = usize::from(knock.has_ticket());
                    self.seen.tickets.fetch_add(tickets, Ordering::Relaxed);
                    let accepted = self
                        .acceptor
                        .accept(&knock, now_us, rand::random())
                        .unwrap();
                    let (conn, packets) = self.hub.lock().unwrap().open();
                    let link = ServerConnection::new(now_us, accepted, from, self.config.clone());
                    let session = Session {
                        link,
                        conn,
                        packets,
                    };
                    self.sessions.insert(id, session);
                }
                if let Some(welcome) = self.sessions[&id].link.welcome() {
                    let _ = self.socket.try_send_to(welcome, from);
                }
            }
            Arrival::Drop(_) => {}
        }
    }

    /// Packets into the sessions, datagrams out of them.
    fn pump(&mut self) {
        let now_us = self.now_us();
        let mut out = Vec::new();
        for session in self.sessions.values_mut() {
            session.link.on_timeout(now_us);
            loop {
                match session.packets.try_recv() {
                    Ok(packet) => {
                        let bytes = encode_packet(&packet, 65_536).unwrap();
                        // One that doesn't fit is lost, as by a server that dies.
                        let _ = session
                            .link
                            .send(now_us, Channel::of_server_packet(&bytes), bytes);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        session.link.close(now_us, 0, "");
                        break;
                    }
                }
            }
            while let Some(to) = session.link.transmit(now_us, &mut out) {
                let _ = self.socket.try_send_to(&out, to.address);
                out.clear();
            }
        }
        let hub = &self.hub;
        self.sessions.retain(|_, session| {
            let stays = session.link.end().is_none();
            if !stays {
                leave(hub, session.conn);
            }
            stays
        });
    }
}
