//! What a connection goes by: a socket of its own, or a session on the loop's UDP port.

use mio::net::TcpStream;
use sluice_codec::{Decoder, Framing};
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
    pub(crate) fn stream(socket: TcpStream, framing: Framing) -> Self {
        let decoder = match framing {
            Framing::Tcp => Decoder::tcp(FRAME_MAX_BYTES_BEFORE_LOGIN),
            Framing::WebSocket => Decoder::websocket(FRAME_MAX_BYTES_BEFORE_LOGIN),
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

    /// For people.
    pub(crate) fn name(&self, framing: Framing) -> &'static str {
        match (self, framing) {
            (Self::Stream { .. }, Framing::Tcp) => "tcp",
            (Self::Stream { .. }, Framing::WebSocket) => "ws",
            (Self::Datagram(_), _) => "udp",
        }
    }
}
