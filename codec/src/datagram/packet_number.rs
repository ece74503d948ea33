//! Packet numbers travel cut down to their last bytes (RFC 9000, 17.1 and A).

/// The largest packet number; a session ends long before.
pub const PACKET_NUMBER_MAX: u64 = (1 << 62) - 1;

/// A packet number as it travels: its last 1 to 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruncatedNumber {
    value: u32,
    bytes: u8,
}

// === impl TruncatedNumber ===

impl TruncatedNumber {
    /// Cuts `number` down, given the largest number that the peer has
    /// acknowledged: to eight times the numbers in between, so that a packet that
    /// is later than three times as many others is still read right. `None`: 2²⁹
    /// numbers or more are unacknowledged.
    pub fn new(number: u64, largest_acked: Option<u64>) -> Option<Self> {
        let unacked = match largest_acked {
            Some(acked) => number.saturating_sub(acked),
            None => number.saturating_add(1),
        };
        let bytes = match unacked {
            0..0x20 => 1,
            0x20..0x2000 => 2,
            0x2000..0x20_0000 => 3,
            0x20_0000..0x2000_0000 => 4,
            _ => return None,
        };
        let mask = u32::MAX >> (32 - 8 * u32::from(bytes));
        // Cutting it down is what this is for.
        let value = number as u32 & mask;
        Some(Self { value, bytes })
    }

    /// From the wire: the number's last bytes, most significant first.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        let value = wire
            .iter()
            .fold(0, |value, byte| value << 8 | u32::from(*byte));
        // The header's two bits say at most 4.
        let bytes = wire.len() as u8;
        Self { value, bytes }
    }

    /// Bytes on the wire, 1 to 4.
    pub const fn len(self) -> usize {
        self.bytes as usize
    }

    /// Never; a packet number has one byte at least.
    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// Big-endian; the last [`TruncatedNumber::len`] bytes are those of the wire.
    pub(crate) const fn to_be_bytes(self) -> [u8; 4] {
        self.value.to_be_bytes()
    }

    /// The number that is nearest to the one after `largest_received`, the
    /// largest that was opened so far.
    pub fn expand(self, largest_received: Option<u64>) -> u64 {
        let expected = largest_received.map_or(0, |largest| largest.saturating_add(1));
        let window = 1u64 << (8 * u32::from(self.bytes.clamp(1, 4)));
        let half = window / 2;
        let candidate = (expected & !(window - 1)) | u64::from(self.value);
        if candidate.saturating_add(half) <= expected && candidate <= PACKET_NUMBER_MAX - window {
            candidate + window
        } else if candidate > expected.saturating_add(half) && candidate >= window {
            candidate - window
        } else {
            candidate
        }
    }
}
