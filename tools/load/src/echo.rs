//! The floor: a bare epoll server that knows nothing of any protocol. One read and
//! one write a wakeup, one thread, no timers: what is left when a gateway has been
//! taken away.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 20_000;

/// A server that says again what it hears.
pub struct EchoServer {
    listener: mio::net::TcpListener,
}

// === impl EchoServer ===

impl EchoServer {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// The socket's.
    pub fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(Self { listener })
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
        let mut sockets: Vec<Option<TcpStream>> = Vec::new();
        let registry = poll.registry();
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept(&poll, &mut sockets)?;
                } else if let Some(place) = sockets.get_mut(event.token().0)
                    && let Some(socket) = place
                    && event.is_readable()
                    && echo(socket, &mut scratch).is_err()
                {
                    *place = None;
                }
            }
        }
    }

    fn accept(&mut self, poll: &Poll, sockets: &mut Vec<Option<TcpStream>>) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let free = sockets.iter().position(Option::is_none);
            let at = free.unwrap_or(sockets.len());
            if at >= CONNECTIONS_MAX {
                continue;
            }
            socket.set_nodelay(true)?;
            poll.registry()
                .register(&mut socket, Token(at), Interest::READABLE)?;
            if at == sockets.len() {
                sockets.push(None);
            }
            sockets[at] = Some(socket);
        }
    }
}

/// One read and one write. What the socket doesn't take at once would have to be
/// kept; the load driver never has so much under way.
fn echo(socket: &mut TcpStream, scratch: &mut [u8]) -> io::Result<()> {
    loop {
        let count = match socket.read(scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &scratch[..count];
        while !rest.is_empty() {
            match socket.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if count < scratch.len() {
            return Ok(());
        }
    }
}
