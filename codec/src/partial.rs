//! The beginning of a frame whose rest has not arrived.

/// Grows only by what has arrived, never to what a length field promises: the
/// first bytes are kept in an exact fit, later growth doubles, up to the size
/// of the whole. So it never holds more than twice the bytes received.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    bytes: Vec<u8>,
}

// === impl Partial ===

impl Partial {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Memory held, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps `arrived`; `whole_bytes` is what the partial will hold at most, as
    /// far as is known now.
    pub(crate) fn append(&mut self, arrived: &[u8], whole_bytes: usize) {
        let needed = self.bytes.len() + arrived.len();
        if needed > self.bytes.capacity() {
            let doubled = self.bytes.capacity().saturating_mul(2).min(whole_bytes);
            let capacity = doubled.max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(arrived);
    }
}
