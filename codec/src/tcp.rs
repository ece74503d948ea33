//! TCP framing: a 4-byte big-endian length, then that many bytes of one packet.

use crate::{
    FrameError, Input,
    decoder::{Found, Place},
    partial::Partial,
};

/// Bytes of the length that goes before each packet.
pub(crate) const HEADER_BYTES: usize = 4;

/// Where a TCP connection stands inside its bytes.
#[derive(Debug, Default)]
pub(crate) struct TcpState {
    /// Header and payload as far as they arrived; whole while it is lent.
    partial: Partial,
    lent: bool,
}

/// Reads the length at the start of `bytes`; `None` while it isn't all there.
///
/// # Errors
/// A length that no frame can have: too large, negative, zero, or the first
/// bytes of another protocol.
pub(crate) fn payload_bytes(
    bytes: &[u8],
    frame_max_bytes: u32,
) -> Result<Option<usize>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header);
    if (1..=frame_max_bytes).contains(&length) {
        return Ok(Some(length as usize));
    }
    Err(match header {
        [0, 0, 0, 0] => FrameError::Empty,
        [0x80..=0xff, ..] => FrameError::NegativeLength,
        // A TLS record: handshake, version 3.x.
        [0x16, 0x03, 0x00..=0x04, _] => FrameError::LooksLikeTls,
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"TRAC"
        | b"PRI " => FrameError::LooksLikeHttp,
        _ => FrameError::TooLarge {
            bytes: u64::from(length),
            max_bytes: frame_max_bytes,
        },
    })
}

// === impl TcpState ===

impl TcpState {
    pub(crate) fn advance(
        &mut self,
        input: &mut Input<'_>,
        frame_max_bytes: u32,
    ) -> Result<Option<Found>, FrameError> {
        if self.lent {
            *self = Self::default();
        }
        if self.partial.is_empty()
            && let Some(payload) = payload_bytes(input.rest(), frame_max_bytes)?
            && input.remaining() >= HEADER_BYTES + payload
        {
            input.consume(HEADER_BYTES);
            return Ok(Some(Found::Packet(Place::Input(input.consume(payload)))));
        }
        self.keep(input, frame_max_bytes)
    }

    /// The less common way: the frame comes in pieces.
    fn keep(
        &mut self,
        input: &mut Input<'_>,
        frame_max_bytes: u32,
    ) -> Result<Option<Found>, FrameError> {
        loop {
            let payload = payload_bytes(self.partial.as_slice(), frame_max_bytes)?;
            let whole_bytes = HEADER_BYTES + payload.unwrap_or(0);
            let missing = whole_bytes.saturating_sub(self.partial.len());
            if missing == 0 {
                self.lent = true;
                return Ok(Some(Found::Packet(Place::Held)));
            }
            if input.is_empty() {
                return Ok(None);
            }
            self.partial.append(input.take(missing), whole_bytes);
        }
    }

    pub(crate) fn held_frame(&self) -> &[u8] {
        self.partial
            .as_slice()
            .get(HEADER_BYTES..)
            .unwrap_or_default()
    }

    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.lent && !self.partial.is_empty()
    }

    /// Between two frames, with nothing lent.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.lent && self.partial.is_empty()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }
}
