//! The UDP socket of a datagram link.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::UdpSocket;

/// A socket of its own for one session with this server.
pub(super) fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    // Answers of others don't reach the session, and errors of the network do.
    socket.connect(server)?;
    forbid_fragments(&socket, server);
    UdpSocket::from_std(socket)
}

/// The session looks for the largest datagram that arrives whole; the system must
/// not cut them. Where it can't be told so, the probes tell less.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn forbid_fragments(socket: &std::net::UdpSocket, server: SocketAddr) {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    let done = match server {
        SocketAddr::V4(_) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE),
        SocketAddr::V6(_) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "datagrams may be cut");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn forbid_fragments(_socket: &std::net::UdpSocket, _server: SocketAddr) {}
