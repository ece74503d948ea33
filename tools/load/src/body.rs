//! A message's body: its due time and its number, by which whoever receives it knows
//! it again, and then letters up to the length that is wanted.

use crate::driver::Message;

/// The body that all messages of a driver share, stamped for one after the other.
pub(crate) struct Body {
    bytes: Vec<u8>,
}

/// A body begins with its message's due time and number.
pub const BODY_MIN_BYTES: usize = 12;

const DUE_BYTES: usize = 8;

// === impl Body ===

impl Body {
    /// Of so many bytes, or as few as a stamp takes.
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes.max(BODY_MIN_BYTES);
        Self {
            bytes: (0..bytes).map(|at| b'a' + (at % 26) as u8).collect(),
        }
    }

    /// From now on it is this message's.
    pub(crate) fn stamp(&mut self, message: Message) {
        self.bytes[..DUE_BYTES].copy_from_slice(&message.due_ns.to_le_bytes());
        let number = (message.number as u32).to_le_bytes();
        self.bytes[DUE_BYTES..BODY_MIN_BYTES].copy_from_slice(&number);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Due time and number of the message that has this body.
pub(crate) fn stamp_of(body: &[u8]) -> Option<(u64, u64)> {
    let (due_ns, rest) = body.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let number = u32::from_le_bytes(*number);
    Some((u64::from_le_bytes(*due_ns), number.into()))
}

/// When the message with this body was due, by the monotonic clock.
pub fn due_ns_of(body: &[u8]) -> Option<u64> {
    stamp_of(body).map(|(due_ns, _)| due_ns)
}
