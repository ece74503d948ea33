//! Listening sockets: one a loop and port. `SO_REUSEPORT` lets the kernel spread
//! new connections over the loops by hash, so no loop hands a socket to another.

use std::{io, net::SocketAddr};

use mio::net::TcpListener;
use sluice_codec::Framing;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps ready, at most (`somaxconn` bounds it too).
const BACKLOG: i32 = 4096;

/// A port that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// What is spoken there.
    pub(crate) framing: Framing,
}

// === impl Listener ===

impl Listener {
    /// Opens `count` sockets on one address; with port 0 the first picks the
    /// port for all.
    pub(crate) fn bind_all(
        address: SocketAddr,
        framing: Framing,
        count: u16,
    ) -> io::Result<(SocketAddr, Vec<Self>)> {
        // Sharing a port must be meant: another process on it (a second server,
        // say) would silently get half of the connections.
        drop(open(address, false)?);
        let mut bound = address;
        let mut listeners = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let socket = open(bound, true)?;
            bound = socket.local_addr()?;
            listeners.push(Self { socket, framing });
        }
        Ok((bound, listeners))
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}
