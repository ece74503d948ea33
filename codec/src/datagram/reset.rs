//! The answer to a packet of a session that the server no longer has.
//!
//! A server that was started anew knows none of its old sessions and can't seal
//! a word for them. It can compute their reset tokens, though: a keyed hash of
//! the connection id, which it told the client, sealed, when the session began.
//! Nobody else can, so nobody else can end a session.

use super::{
    ConnectionId,
    header::RESET_FIRST_BYTE,
    secret::{self, Secret},
};

/// Proves that the server of a session has forgotten it.
#[derive(Debug, Clone, Copy)]
pub struct ResetToken([u8; Self::BYTES]);

// === impl ResetToken ===

impl ResetToken {
    /// Bytes on the wire.
    pub const BYTES: usize = 16;
    /// Of a reset packet: its first byte and the token.
    pub const PACKET_BYTES: usize = 1 + Self::BYTES;

    /// From the wire.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(crate) fn of(id: ConnectionId, secret: &Secret) -> Self {
        Self(secret.mac(&[id.as_bytes()]))
    }

    pub(crate) fn packet(&self) -> [u8; Self::PACKET_BYTES] {
        let mut packet = [RESET_FIRST_BYTE; Self::PACKET_BYTES];
        let [_, token @ ..] = &mut packet;
        *token = self.0;
        packet
    }
}

/// In constant time.
impl PartialEq for ResetToken {
    fn eq(&self, other: &Self) -> bool {
        secret::equal(&self.0, &other.0)
    }
}

impl Eq for ResetToken {}
