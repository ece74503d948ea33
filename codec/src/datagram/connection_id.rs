//! The name of a session on the wire.

use std::fmt;

/// Names a session towards its server, whatever address its packets come from.
///
/// The first byte is the event loop that holds the session, the other seven are
/// random to all but the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId([u8; Self::BYTES]);

// === impl ConnectionId ===

impl ConnectionId {
    /// Bytes on the wire.
    pub const BYTES: usize = 8;

    /// From the wire.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// For the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The index of the event loop that holds the session. From the network it
    /// may name a loop that does not exist.
    pub const fn event_loop(self) -> u8 {
        self.0[0]
    }

    /// A loop and seven bytes of a keyed hash.
    pub(crate) fn new(event_loop: u8, hash: &[u8; 32]) -> Self {
        let mut bytes = [event_loop; Self::BYTES];
        for (to, from) in bytes.iter_mut().skip(1).zip(hash) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
