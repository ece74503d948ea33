//! New connections over TCP and WebSocket, into the slab.

use std::io;

use mio::{Interest, Token, net::TcpStream};
use sluice_codec::Framing;
use sluice_protocol::{limits::FRAME_MAX_BYTES_BEFORE_LOGIN, packet::CloseReason};

use super::EventLoop;
use crate::{
    address_limits::AddressLimit, channel::Channel, connection::Connection, metrics,
    transport::Transport,
};

const ACCEPTS_PER_TURN: usize = 128;
const ACCEPT_PAUSE_MS: u64 = 100;

// === impl EventLoop ===

impl EventLoop {
    /// Takes in whoever waits there, as far as a turn allows.
    pub(super) fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            match listener.socket.accept() {
                Ok((socket, peer)) => {
                    let framing = listener.framing;
                    self.admit(socket, peer, framing);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That one has gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors or memory: the kernel tells no more, so
                    // come back by the clock.
                    tracing::warn!(%error, "accept failed");
                    self.accept_more = true;
                    self.accept_paused_until_ms = self.bench.now.mono_ms + ACCEPT_PAUSE_MS;
                    return;
                }
            }
        }
        self.accept_more = true;
    }

    fn admit(
        &mut self,
        socket: mio::net::TcpStream,
        peer: std::net::SocketAddr,
        framing: sluice_codec::Framing,
    ) {
        let now_ms = self.bench.now.mono_ms;
        if let Err(limit) = self.bench.shared.addresses.enter(peer.ip(), now_ms) {
            metrics::turned_away(match limit {
                AddressLimit::Connections => "address_connections",
                AddressLimit::ConnectRate => "address_connect_rate",
            });
            return turn_away(socket, framing, CloseReason::RateLimited);
        }
        if self.connections.is_full() {
            metrics::turned_away("full");
            self.bench.shared.addresses.leave(peer.ip());
            return turn_away(socket, framing, CloseReason::Overloaded);
        }
        // Packets are whole when they are written: nothing to wait for.
        let _ = socket.set_nodelay(true);
        let key = self.connections.insert_with(|key| {
            let channel = Channel::new(key, peer, framing, now_ms);
            let keys = self.bench.shared.stream_keys.as_ref();
            Connection::new(Transport::stream(socket, framing, keys), channel)
        });
        self.bench.metrics.accepted.increment(1);
        self.bench.metrics.connections.increment(1);
        let Some((key, connection)) =
            key.and_then(|key| Some((key, self.connections.get_mut(key)?)))
        else {
            return;
        };
        let token = Token(key.to_bits() as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        let Transport::Stream { socket, .. } = &mut connection.transport else {
            return;
        };
        if let Err(error) = registry.register(socket, token, interest) {
            tracing::warn!(%error, "a socket could not be watched");
            return self.remove(key);
        }
        let login_ms = self.bench.shared.config.timeouts.login_ms;
        connection.channel.arm(&mut self.bench, now_ms + login_ms);
    }
}

/// The socket that could not be given a place: told why as far as one write
/// goes, and dropped.
fn turn_away(mut socket: TcpStream, framing: Framing, reason: CloseReason) {
    use sluice_protocol::packet::{GoAway, Packet, packet::Body};
    use std::io::Write;
    let mut out = bytes::BytesMut::new();
    match framing {
        Framing::Tcp => {
            let packet = Packet {
                id: 0,
                body: Some(Body::GoAway(GoAway {
                    reason: reason.into(),
                    reconnect_delay_min_ms: 1_000,
                    reconnect_delay_max_ms: 10_000,
                })),
            };
            // A GoAway is a dozen bytes, far below any cap.
            let _ = framing.append_packet(&packet, FRAME_MAX_BYTES_BEFORE_LOGIN, &mut out);
        }
        Framing::WebSocket => out.extend_from_slice(
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
    }
    // Best effort: a fresh socket takes a few bytes, or nobody is there.
    let _ = socket.write(&out);
}
