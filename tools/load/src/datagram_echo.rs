//! The floor of datagrams: a bare epoll server that sends each back to where it came
//! from, and knows nothing of sessions or keys.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use mio::{Events, Interest, Poll, Token, net::UdpSocket};

/// A server that sends back what it receives.
pub struct DatagramEcho(UdpSocket);

const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const DATAGRAM_MAX_BYTES: usize = 64 * 1024;

// === impl DatagramEcho ===

impl DatagramEcho {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// The socket's.
    pub fn bind() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let sizes = socket2::SockRef::from(&socket);
        // What the kernel doesn't give is lost in bursts only.
        let _ = sizes.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = sizes.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        Ok(Self(socket))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Echoes until the process ends.
    ///
    /// # Errors
    /// The socket's own failure.
    pub fn run(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(8);
        let mut datagram = vec![0; DATAGRAM_MAX_BYTES];
        poll.registry()
            .register(&mut self.0, Token(0), Interest::READABLE)?;
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            loop {
                match self.0.recv_from(&mut datagram) {
                    Ok((bytes, from)) => {
                        // What is lost is lost.
                        let _ = self.0.send_to(&datagram[..bytes], from);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
