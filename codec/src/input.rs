//! A cursor over freshly read bytes.

use std::ops::Range;

/// Bytes as they came from the socket, in the event loop's scratch buffer.
///
/// Mutable because WebSocket payloads are unmasked where they lie.
#[derive(Debug)]
pub struct Input<'s> {
    bytes: &'s mut [u8],
    at: usize,
}

// === impl Input ===

impl<'s> Input<'s> {
    /// Starts before the first of these bytes.
    pub fn new(bytes: &'s mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are not consumed yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// True once every byte is consumed.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// As [`Input::rest`], to open a frame in place.
    pub(crate) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..]
    }

    /// Consumes at most `bytes` bytes and says where they lie.
    pub(crate) fn consume(&mut self, bytes: usize) -> Range<usize> {
        let start = self.at;
        self.at += bytes.min(self.remaining());
        start..self.at
    }

    /// Consumes at most `bytes` bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> &mut [u8] {
        let range = self.consume(bytes);
        &mut self.bytes[range]
    }

    /// Consumes one byte.
    pub(crate) fn take_byte(&mut self) -> Option<u8> {
        self.take(1).first().copied()
    }

    /// Makes the last `bytes` consumed bytes unread again.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.at -= bytes.min(self.at);
    }

    /// Bytes that [`Input::consume`] has located.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// As [`Input::slice`], to unmask them in place.
    pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }
}
