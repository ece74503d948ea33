//! The way out: what goes before a packet's bytes on each transport.

use std::ops::Deref;

use bytes::{BufMut, BytesMut};
use prost::Message;
use sluice_protocol::packet::Packet;

use crate::{EncodeError, packet::checked_bytes, websocket};

/// How packets are framed on a connection, as the server sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A 4-byte big-endian length.
    Tcp,
    /// An unfragmented, unmasked binary message (RFC 6455).
    WebSocket,
}

/// What goes before a payload, at most 10 bytes; for `writev` with a payload
/// that many connections share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

// === impl Framing ===

impl Framing {
    /// The header of a frame with a payload of this many bytes.
    pub fn header(self, payload_bytes: usize) -> FrameHeader {
        match self {
            Self::Tcp => {
                // Encoders cap the payload at 16 MiB.
                let length = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
                FrameHeader::new(&length.to_be_bytes())
            }
            Self::WebSocket => websocket::encode_header(websocket::Opcode::Binary, payload_bytes),
        }
    }

    /// Bytes on the wire of a frame with this payload.
    pub fn frame_bytes(self, payload_bytes: usize) -> usize {
        self.header(payload_bytes).len() + payload_bytes
    }

    /// Appends a whole frame.
    ///
    /// # Errors
    /// Over `frame_max_bytes`, or without a body; nothing was appended then.
    pub fn append_packet(
        self,
        packet: &Packet,
        frame_max_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let payload_bytes = checked_bytes(packet, frame_max_bytes)?;
        let header = self.header(payload_bytes);
        out.reserve(header.len() + payload_bytes);
        out.put_slice(&header);
        // It fails only for want of room, and a BytesMut grows.
        let _ = packet.encode(out);
        Ok(())
    }
}

// === impl FrameHeader ===

impl FrameHeader {
    /// Of the longest header that a server sends.
    pub const MAX_BYTES: usize = 10;

    /// Longer slices are cut; there are none.
    pub(crate) fn new(header: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX_BYTES];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(header) {
            *to = *from;
            len += 1;
        }
        Self { bytes, len }
    }
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for FrameHeader {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
