//! What can be wrong with bytes from a peer, and with a packet to be sent.

use sluice_protocol::{
    Refusal,
    packet::{CloseReason, ErrorCode},
};

use crate::{
    sealed_tcp::SealedError,
    websocket::{HandshakeError, Violation},
};

/// Bytes that are no frame, or a frame that is no packet. The peer's fault,
/// always; the connection cannot go on after it, except after
/// [`FrameError::UnknownPacket`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Over the frame cap; raised as soon as the length is known.
    #[error("the frame has {bytes} bytes, at most {max_bytes} are allowed now")]
    TooLarge {
        /// What the peer announced. For a fragmented WebSocket message: up to
        /// and including the fragment that broke the cap.
        bytes: u64,
        /// The cap in force.
        max_bytes: u32,
    },
    /// A TCP length with the highest bit set.
    #[error("the frame length has its highest bit set; lengths are 4 bytes, big-endian")]
    NegativeLength,
    /// No packet is empty.
    #[error("the frame is empty; every frame holds one packet")]
    Empty,
    /// An HTTP request on the TCP port.
    #[error(
        "this port speaks length-framed packets, not HTTP; WebSocket and HTTP have ports of their own"
    )]
    LooksLikeHttp,
    /// A TLS hello on a port without TLS.
    #[error("this port does not speak TLS; connect without it or through a TLS proxy")]
    LooksLikeTls,
    /// The WebSocket handshake was refused; [`FrameError::http_answer`] says so to the peer.
    #[error("WebSocket handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// RFC 6455 broken.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Violation),
    /// A text message; packets are binary.
    #[error("WebSocket text messages are not taken; send one packet in a binary message")]
    Text,
    /// An encrypted stream broken.
    #[error("encrypted stream: {0}")]
    Sealed(#[from] SealedError),
    /// Not protobuf, or not a `Packet`.
    #[error("not a packet: {0}")]
    BadPacket(prost::DecodeError),
    /// A packet whose body is missing or of a type this version doesn't know.
    /// A server refuses it; a client passes over it, since a newer server may
    /// send what an older client need not understand.
    #[error("the packet has no body of a known type")]
    UnknownPacket {
        /// The packet's id, to be repeated in the answer.
        id: u64,
    },
}

/// A packet that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Over the cap that the peer takes.
    #[error("the packet has {bytes} bytes, the peer takes at most {max_bytes}")]
    TooLarge {
        /// Encoded.
        bytes: usize,
        /// The cap in force.
        max_bytes: usize,
    },
    /// A packet without a body: the peer would refuse it.
    #[error("the packet has no body")]
    NoBody,
}

// === impl FrameError ===

impl FrameError {
    /// Why the connection is closed.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::BadPacket(_) | Self::UnknownPacket { .. } => CloseReason::BadPacket,
            _ => CloseReason::BadFrame,
        }
    }

    /// The code of the `Error` packet that tells the peer.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::BadPacket(_) | Self::UnknownPacket { .. } => ErrorCode::BadPacket,
            _ => ErrorCode::BadFrame,
        }
    }

    /// As the answer to the peer.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.error_code(), self.to_string())
    }

    /// For metrics; one of a fixed dozen or so.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NegativeLength => "negative_length",
            Self::Empty => "empty",
            Self::LooksLikeHttp => "looks_like_http",
            Self::LooksLikeTls => "looks_like_tls",
            Self::Handshake(_) => "websocket_handshake",
            Self::WebSocket(_) => "websocket_violation",
            Self::Text => "websocket_text",
            Self::Sealed(SealedError::Opening | SealedError::Key) => "sealed_opening",
            Self::Sealed(SealedError::Forged) => "sealed_forged",
            Self::BadPacket(_) => "bad_packet",
            Self::UnknownPacket { .. } => "unknown_packet",
        }
    }

    /// An HTTP response for a peer that speaks HTTP and no packets: to be
    /// written *instead* of an `Error` packet, then close.
    pub fn http_answer(&self) -> Option<Vec<u8>> {
        match self {
            Self::Handshake(error) => error.http_answer(),
            Self::LooksLikeHttp => Some(crate::websocket::bad_request(&self.to_string())),
            _ => None,
        }
    }

    /// True where the peer cannot read packets in this connection's framing, so
    /// that an `Error` packet would be noise to it: write
    /// [`FrameError::http_answer`], if any, and close.
    pub fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::LooksLikeHttp | Self::LooksLikeTls | Self::Handshake(_) | Self::Sealed(_)
        )
    }

    /// The status of the close frame that ends a WebSocket (RFC 6455, section 7.4.1).
    pub fn websocket_close_code(&self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLarge { .. } => 1009,
            Self::WebSocket(Violation::CloseReasonNotUtf8) => 1007,
            Self::BadPacket(_) | Self::UnknownPacket { .. } => {
                crate::websocket::close_code(CloseReason::BadPacket)
            }
            _ => 1002,
        }
    }
}
