//! Sans-IO codecs: bytes to packets and back, for TCP, WebSocket and datagrams.
//!
//! No sockets and no clock: bytes come in through [`Decoder::decode`], bytes go
//! out through [`Framing`]. One road for both transports:
//!
//! ```text
//! socket ─▶ loop's scratch ─▶ Input ─▶ Decoder ─▶ Frame::Packet(&[u8]) ─▶ decode_packet ─▶ Packet
//! Packet ─▶ encode_packet ─▶ Bytes (shared) ─▶ Framing::header + payload ─▶ writev
//! ```
//!
//! A frame that is whole in the scratch is lent from it without a copy; only
//! the rest of a frame that isn't is kept, and given back once it is whole. So a
//! connection between two frames owns the 40 bytes of its [`Decoder`] and no
//! buffer. No length from the network is trusted for an allocation, every limit
//! has a name and an error of its own ([`FrameError`]).
//!
//! The tokio side (the client SDK) uses the same TCP framing as [`PacketCodec`].

pub mod datagram;
mod decoder;
mod error;
mod framing;
mod input;
pub mod packed;
mod packet;
#[cfg(feature = "tokio")]
mod packet_codec;
mod partial;
pub mod sealed_tcp;
mod tcp;
pub mod websocket;

pub use decoder::{Decoder, Frame};
pub use error::{EncodeError, FrameError};
pub use framing::{FrameHeader, Framing};
pub use input::Input;
pub use packet::{decode_packet, decode_packet_bytes, encode_packet};
#[cfg(feature = "tokio")]
pub use packet_codec::{PacketCodec, PacketCodecError};

/// Largest frame cap that can be set, in bytes: small enough that the first
/// bytes of HTTP and TLS, read as a length, are always over it.
pub const FRAME_MAX_BYTES_CEILING: usize = 16 * 1024 * 1024;
