//! What a connection goes by: a socket of its own, or a session on the loop's UDP port.

use mio::net::TcpStream;
use sluice_codec::{
    Decoder, Framing,
    datagram::ServerKeys,
    packed::{put_number, take_byte},
};
use sluice_protocol::limits::FRAME_MAX_BYTES_BEFORE_LOGIN;

use crate::datagram::{DATAGRAM_FRAMING, DatagramLink};

/// See the module.
#[derive(Debug)]
pub(crate) enum Transport {
    /// TCP, with packets or WebSocket frames on it.
    Stream { socket: TcpStream, decoder: Decoder },
    /// UDP.
    Datagram(Box<DatagramLink>),
}

/// The transports, as they are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportKind {
    Tcp,
    SealedTcp,
    WebSocket,
    Datagram,
}

// === impl TransportKind ===

impl TransportKind {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::SealedTcp => "tcp+noise",
            Self::WebSocket => "ws",
            Self::Datagram => "udp",
        }
    }

    /// How packets lie in its channel's output.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::Tcp | Self::SealedTcp => Framing::Tcp,
            Self::WebSocket => Framing::WebSocket,
            Self::Datagram => DATAGRAM_FRAMING,
        }
    }

    pub(crate) fn pack(self, out: &mut Vec<u8>) {
        put_number(out, self as u64);
    }

    pub(crate) fn unpack(input: &mut &[u8]) -> Option<Self> {
        let byte = take_byte(input)?;
        let all = [Self::Tcp, Self::SealedTcp, Self::WebSocket, Self::Datagram];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
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

    /// Of its own, if it has one.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Stream { socket, .. } => Some(socket),
            Self::Datagram(_) => None,
        }
    }

    /// Heap held for a frame that is not whole yet.
    pub(crate) fn partial_frame_bytes(&self) -> usize {
        match self {
            Self::Stream { decoder, .. } => decoder.held_bytes(),
            Self::Datagram(_) => 0,
        }
    }

    /// Heap of the session over UDP.
    pub(crate) fn datagram_bytes(&self) -> usize {
        match self {
            Self::Stream { .. } => 0,
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

    /// `framing`: of its channel.
    pub(crate) fn kind(&self, framing: Framing) -> TransportKind {
        match (self, framing) {
            (Self::Stream { decoder, .. }, Framing::Tcp) if decoder.is_sealed() => {
                TransportKind::SealedTcp
            }
            (Self::Stream { .. }, Framing::Tcp) => TransportKind::Tcp,
            (Self::Stream { .. }, Framing::WebSocket) => TransportKind::WebSocket,
            (Self::Datagram(_), _) => TransportKind::Datagram,
        }
    }
}
