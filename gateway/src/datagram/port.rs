//! The UDP port of one loop: what comes in finds its session, asks for one, or is
//! answered without one.

use std::{io, net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use hashbrown::HashMap;
use mio::{Interest, Registry, Token, unix::SourceFd};
use sluice_codec::datagram::{
    Acceptor, Arrival, ConnectionId, Header, Knock, ServerKeys, SessionHeader,
};

use super::{DatagramSocket, Outgoing, ReceiveBuffers};
use crate::{slab::ChannelKey, workbench::Workbench};

/// See the module.
pub(crate) struct DatagramPort {
    socket: Arc<DatagramSocket>,
    acceptor: Acceptor,
    sessions: HashMap<ConnectionId, ChannelKey>,
    /// The kernel may hold more datagrams.
    pub(crate) readable: bool,
}

/// A datagram for another loop.
#[derive(Debug)]
pub(crate) struct Strayed {
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Box<[u8]>,
}

/// What the loop has to do about a datagram.
pub(crate) enum Errand {
    /// It is a session's.
    Session(ChannelKey, SessionHeader),
    /// It is a session's of another loop.
    Elsewhere(u8),
    /// Somebody wants a session and shows to be where they say.
    Knock(Box<Knock>),
    /// It was answered, or is of no use.
    Nothing,
}

// === impl DatagramPort ===

impl DatagramPort {
    pub(crate) fn new(socket: DatagramSocket, keys: ServerKeys, event_loop: u8) -> Self {
        Self {
            socket: Arc::new(socket),
            acceptor: Acceptor::new(keys, event_loop),
            sessions: HashMap::new(),
            readable: false,
        }
    }

    /// For what is to be sent by it.
    pub(crate) fn outgoing(&self) -> Outgoing {
        Outgoing::by(Arc::clone(&self.socket))
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source = &mut SourceFd(&self.socket.as_raw_fd());
        registry.register(source, token, Interest::READABLE)
    }

    pub(crate) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Receives a batch; 0 when the kernel has no more.
    pub(crate) fn receive(&mut self, buffers: &mut ReceiveBuffers) -> usize {
        loop {
            match self.socket.receive(buffers) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Others than "no more" are of one datagram (an ICMP answer to one
                    // sent before, say); the next edge comes with the next datagram.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "receiving datagrams");
                    }
                    self.readable = false;
                    return 0;
                }
            }
        }
    }

    /// Looks at a datagram's head; answers what belongs to no session.
    pub(crate) fn sort(
        &mut self,
        bench: &mut Workbench,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Errand {
        match Header::parse(datagram) {
            Ok(Header::Session(header)) => match header.connection_id {
                Some(id) if u16::from(id.event_loop()) != bench.event_loop => {
                    Errand::Elsewhere(id.event_loop())
                }
                Some(id) => match self.sessions.get(&id) {
                    Some(key) => Errand::Session(*key, header),
                    None => {
                        self.reset(bench, from, id, datagram.len());
                        Errand::Nothing
                    }
                },
                None => self.useless(bench),
            },
            Ok(Header::Handshake(_)) => {
                match self.acceptor.receive(datagram, from, bench.now.unix_ms) {
                    Arrival::Answer(answer) => {
                        answer_with(bench, from, &answer);
                        Errand::Nothing
                    }
                    Arrival::Knock(knock) => Errand::Knock(Box::new(knock)),
                    Arrival::Drop(_) => self.useless(bench),
                }
            }
            Ok(Header::Reset(_)) | Err(_) => self.useless(bench),
        }
    }

    fn useless(&self, bench: &Workbench) -> Errand {
        bench.metrics.datagrams_useless.increment(1);
        Errand::Nothing
    }

    fn reset(&self, bench: &mut Workbench, to: SocketAddr, unknown: ConnectionId, bytes: usize) {
        if let Some(answer) = self.acceptor.reset(unknown, bytes) {
            bench.metrics.datagram_resets.increment(1);
            answer_with(bench, to, &answer);
        }
    }

    pub(crate) fn session(&self, id: ConnectionId) -> Option<ChannelKey> {
        self.sessions.get(&id).copied()
    }

    pub(crate) fn add(&mut self, id: ConnectionId, key: ChannelKey) {
        self.sessions.insert(id, key);
    }

    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.sessions.remove(&id);
    }
}

/// Sends an answer that belongs to no session.
pub(crate) fn answer_with(bench: &mut Workbench, to: SocketAddr, answer: &[u8]) {
    bench.outgoing.append(&bench.metrics, |bytes| {
        bytes.extend_from_slice(answer);
        Some(to)
    });
}
