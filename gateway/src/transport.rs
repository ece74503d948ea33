//! What a connection goes by: a socket of its own, or a session on the loop's UDP port.

use mio::net::TcpStream;
use sluice_codec::{Decoder, Framing, datagram::ServerKeys};
use sluice_protocol::limits::FRAME_MAX_BYTES_BEFORE_LOGIN;

use crate::datagram::DatagramLink;

/// See the module.
#[derive(Debug)]
pub(crate) enum Transport {
    /// TCP, with packets or WebSocket frames on it.
    Stream { socket: TcpStream, decoder: Decoder },
    /// UDP.
    Datagram(Box<DatagramLink>),
}

// === impl Transport ===

impl Transport {
    /// `keys`: for TCP clients that encrypt, where they may.
    pub(crate) fn stream(socket: TcpStream, framing: Framing, keys: Option<&ServerKeys>) -> Self {
        let cap = FRAME_MAX_BYTES_BEFORE_LOGIN;
        let decoder = match (framing, keys) {
            (Framing::Tcp, None) => Decoder::tcp(cap),
            (Framing::Tcp, Some(keys)) => Decoder::tcp_or_sealed(cap, keys.clone(), rand::random()),
            (Framing::WebSocket, _) => Decoder::websocket(cap),
        };
        Self::Stream { socket, decoder }
    }

    pub(crate) fn set_frame_max_bytes(&mut self, frame_max_bytes: usize) {
        match self {
            Self::Stream { decoder, .. } => decoder.set_frame_max_bytes(frame_max_bytes),
            Self::Datagram(link) => link.set_packet_max_bytes(frame_max_bytes),
        }
    }

    /// Heap held for what is not whole yet.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Stream { decoder, .. } => decoder.held_bytes(),
            Self::Datagram(link) => link.heap_bytes(),
        }
    }

    /// Heap held for its keys as long as it lives, over a stream.
    pub(crate) fn sealing_bytes(&self) -> usize {
        match self {
            Self::Stream { decoder, .. } if decoder.is_sealed() => Decoder::SEALED_BYTES,
            _ => 0,
        }
    }

    /// For people.
    pub(crate) fn name(&self, framing: Framing) -> &'static str {
        match (self, framing) {
            (Self::Stream { decoder, .. }, Framing::Tcp) if decoder.is_sealed() => "tcp+noise",
            (Self::Stream { .. }, Framing::Tcp) => "tcp",
            (Self::Stream { .. }, Framing::WebSocket) => "ws",
            (Self::Datagram(_), _) => "udp",
        }
    }
}
