//! Encrypted packets over plain TCP, for devices without TLS.
//!
//! The keys of the datagram session ([`crate::datagram::ServerKey`]), the same
//! Noise NK, no cookie, since TCP has shown the address. A client that wants it
//! begins with an opening in place of a frame; no length begins with its first
//! byte, so that both kinds of client come to the same port:
//!
//! ```text
//! client   f0 53 4c │ version, 1 │ hint, 4 │ first Noise message, 48
//! server   f0 53 4c │ version, 1 │ second Noise message, 48
//! then     length, 4 │ sealed packet │ tag, 16      in both directions
//! ```
//!
//! The length is that of the sealed packet and the tag. Frames are counted from 0
//! in each direction; the count is the nonce, so that nothing can be left out,
//! repeated or moved. A server that does not take an opening closes without an
//! answer: the client could not tell it from another's.
//!
//! Cost: a frame that is whole in the scratch is opened where it lies and lent. An
//! idle connection holds 112 bytes of heap more than a plain one, for both
//! directions.

mod connector;
mod frames;
mod opening;

pub use connector::{SealedStream, StreamConnector};
pub(crate) use frames::SealedState;
pub use frames::{STREAM_KEY_MAX_FRAMES, StreamOpener, StreamSealer};
pub(crate) use opening::{Opening, Step};

use crate::datagram::{ServerPin, TAG_BYTES, noise};

/// What both sides begin with: a byte that no length begins with, a name, the version.
const PREFIX: [u8; 4] = [0xf0, b'S', b'L', 1];
/// Of the client's opening.
const OPENING_BYTES: usize = PREFIX.len() + ServerPin::HINT_BYTES + noise::FIRST_BYTES;
/// Of the server's answer.
const ANSWER_BYTES: usize = PREFIX.len() + noise::SECOND_OVERHEAD_BYTES;
/// Bytes that sealing adds to a frame.
pub const SEALED_OVERHEAD_BYTES: usize = TAG_BYTES;

/// What a peer did that ends an encrypted stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// It begins as no opening of this version does.
    #[error("no opening of version 1")]
    Opening,
    /// It was made for a key that this server doesn't have, or the server that
    /// answers doesn't have the one that is pinned.
    #[error("the opening was not made for this key")]
    Key,
    /// A frame is not the peer's, or not the next one.
    #[error("the frame was not sealed by the peer, or is not the next one")]
    Forged,
}

/// Hashed before the first Noise message: a name, and the prefix.
const PROLOGUE: &[u8; 17] = b"sluice stream\xf0SL\x01";
