//! The floor: a bare epoll server. One read and one write a wakeup, one thread, no
//! timers, and it knows nothing of any protocol: what is left when a gateway has been
//! taken away. Where it broadcasts, it knows how long a message is, and makes one write
//! for each message and socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::LoadTransport;

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
/// Connections over its life; more are closed.
const CONNECTIONS_MAX: usize = 20_000;

/// A server that says again what it hears.
pub struct EchoServer {
    listener: mio::net::TcpListener,
    sockets: Vec<Peer>,
    /// Says it to all, a message at a time; they are framed so.
    broadcasts: Option<LoadTransport>,
}

struct Peer {
    /// None: it has gone.
    socket: Option<TcpStream>,
    /// Its first words, by which a client sees that it is connected, go to itself only.
    has_greeted: bool,
}

// === impl EchoServer ===

impl EchoServer {
    /// Listens on a free port of the loopback. To broadcast is to say to all, the
    /// speaker last, each message that one says.
    ///
    /// # Errors
    /// The socket's.
    pub fn bind(broadcasts: Option<LoadTransport>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: mio::net::TcpListener::from_std(listener),
            sockets: Vec::new(),
            broadcasts,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Echoes until the process ends.
    ///
    /// # Errors
    /// The poll's own failure.
    pub fn run(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let registry = poll.registry();
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept(&poll)?;
                } else if event.is_readable() {
                    self.serve(event.token().0, &mut scratch);
                }
            }
        }
    }

    fn accept(&mut self, poll: &Poll) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let at = self.sockets.len();
            if at >= CONNECTIONS_MAX {
                continue;
            }
            socket.set_nodelay(true)?;
            poll.registry()
                .register(&mut socket, Token(at), Interest::READABLE)?;
            self.sockets.push(Peer {
                socket: Some(socket),
                has_greeted: false,
            });
        }
    }

    /// One read, and one write back, or one for each that is to hear a message.
    fn serve(&mut self, at: usize, scratch: &mut [u8]) {
        loop {
            let Some(Peer {
                socket: Some(socket),
                has_greeted,
            }) = self.sockets.get_mut(at)
            else {
                return;
            };
            let count = match socket.read(scratch) {
                Ok(count) if count > 0 => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => return self.sockets[at].socket = None,
            };
            let said = &scratch[..count];
            match self.broadcasts {
                Some(framed) if std::mem::replace(has_greeted, true) => {
                    self.broadcast(at, said, framed);
                }
                _ => say(&mut self.sockets[at], said),
            }
            if count < scratch.len() {
                return;
            }
        }
    }

    /// What is no whole message goes out as it has come.
    fn broadcast(&mut self, at: usize, mut said: &[u8], framed: LoadTransport) {
        while !said.is_empty() {
            let frame = framed.first_frame(said).ok().flatten();
            let (message, rest) = said.split_at(frame.map_or(said.len(), |it| it.payload.end));
            let others = (0..self.sockets.len()).filter(|other| *other != at);
            others.for_each(|other| say(&mut self.sockets[other], message));
            say(&mut self.sockets[at], message);
            said = rest;
        }
    }
}

/// What a socket doesn't take at once would have to be kept; the load driver never
/// has so much under way, so its peer is dropped, which the load driver notices.
fn say(peer: &mut Peer, mut rest: &[u8]) {
    while let (false, Some(socket)) = (rest.is_empty(), &mut peer.socket) {
        match socket.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => peer.socket = None,
        }
    }
}
