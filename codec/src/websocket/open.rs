//! An open WebSocket: frames to messages.

use std::ops::Range;

use super::{
    CONTROL_MAX_BYTES, Opcode, Violation,
    header::{HEADER_MAX_BYTES, Header},
};
use crate::{
    FrameError, Input,
    decoder::{Found, Place},
    partial::Partial,
};

/// Where an open WebSocket stands inside its bytes: between two messages,
/// mostly, and then it holds nothing.
#[derive(Debug, Default)]
pub(crate) struct OpenState {
    held: Option<Box<Held>>,
}

/// A message that isn't whole, or a frame of it.
#[derive(Debug, Default)]
struct Held {
    /// The next frame's header as far as it arrived.
    header: [u8; HEADER_MAX_BYTES],
    header_len: u8,
    /// The frame whose payload has come in part.
    current: Option<Current>,
    /// A fragmented message has begun; control frames may come in between.
    message_open: bool,
    message: Partial,
    control: Partial,
    /// What the caller looks at since the last call.
    lent: Lent,
}

/// A frame whose header is read.
#[derive(Debug, Clone, Copy)]
struct Current {
    opcode: Opcode,
    fin: bool,
    /// Rotated so that its first byte is for the next payload byte.
    mask: [u8; 4],
    missing_bytes: usize,
    /// What will be kept at most before this message or control frame is whole.
    whole_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

/// Unmasks in place (RFC 6455, section 5.3), eight bytes a step.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Reads a close frame's payload: nothing, or a status code and a reason.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(Violation::CloseCode)?;
    let code = u16::from_be_bytes(*code);
    // Assigned by the RFC or its registry, or for private use; 1004–1006 and
    // 1015 never travel.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok(Some(code))
}

/// What a whole, unmasked frame (or the message it ends) amounts to.
fn found(opcode: Opcode, payload: &[u8], place: Place) -> Result<Found, Violation> {
    Ok(match opcode {
        Opcode::Ping => Found::Ping(place),
        Opcode::Pong => Found::Pong,
        Opcode::Close => Found::Close(close_code(payload)?),
        Opcode::Binary | Opcode::Continuation | Opcode::Text => Found::Packet(place),
    })
}

// === impl OpenState ===

impl OpenState {
    pub(crate) fn advance(
        &mut self,
        input: &mut Input<'_>,
        frame_max_bytes: u32,
    ) -> Result<Option<Found>, FrameError> {
        self.release();
        loop {
            let (current, is_new) = match self.held.as_deref().and_then(|held| held.current) {
                Some(current) => (current, false),
                None => match self.next_header(input, frame_max_bytes)? {
                    Some(current) => (current, true),
                    None => return Ok(None),
                },
            };
            if is_new && input.remaining() >= current.missing_bytes && self.stands_alone(current) {
                let range = input.consume(current.missing_bytes);
                return self.lend_from_input(input, range, current).map(Some);
            }
            let held = self.held.get_or_insert_default();
            if let Some(found) = held.keep(input, current)? {
                return Ok(Some(found));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The next frame's header; `None` while it isn't all there.
    fn next_header(
        &mut self,
        input: &mut Input<'_>,
        frame_max_bytes: u32,
    ) -> Result<Option<Current>, FrameError> {
        let (message_open, message_bytes, header_len) = match self.held.as_deref() {
            None => (false, 0, 0),
            Some(held) => (held.message_open, held.message.len(), held.header_len),
        };
        let header = match header_len {
            0 => Header::parse(input.rest(), message_open)?,
            _ => None,
        };
        let header = match header {
            Some(header) => {
                input.consume(header.header_bytes);
                Some(header)
            }
            None if input.is_empty() => None,
            None => self.held.get_or_insert_default().keep_header(input)?,
        };
        header
            .map(|header| Current::checked(header, message_bytes, frame_max_bytes))
            .transpose()
    }

    /// True for a frame that is a message (or control frame) by itself, so that
    /// it needs no copy once it is whole in the input.
    fn stands_alone(&self, current: Current) -> bool {
        let message_open = self.held.as_deref().is_some_and(|held| held.message_open);
        current.opcode.is_control() || (current.fin && !message_open)
    }

    fn lend_from_input(
        &mut self,
        input: &mut Input<'_>,
        range: Range<usize>,
        current: Current,
    ) -> Result<Found, FrameError> {
        let payload = input.slice_mut(range.clone());
        unmask(payload, current.mask);
        let found = found(current.opcode, payload, Place::Input(range))?;
        self.give_back_if_idle();
        Ok(found)
    }

    /// Ends what was lent by the call before.
    fn release(&mut self) {
        if let Some(held) = self.held.as_deref_mut()
            && held.lent != Lent::Nothing
        {
            match std::mem::take(&mut held.lent) {
                Lent::Message => held.message = Partial::default(),
                Lent::Control => held.control = Partial::default(),
                Lent::Nothing => {}
            }
            self.give_back_if_idle();
        }
    }

    fn give_back_if_idle(&mut self) {
        if self.held.as_deref().is_some_and(Held::is_idle) {
            self.held = None;
        }
    }

    pub(crate) fn held_frame(&self) -> &[u8] {
        match self.held.as_deref() {
            None => &[],
            Some(held) => match held.lent {
                Lent::Message => held.message.as_slice(),
                Lent::Control => held.control.as_slice(),
                Lent::Nothing => &[],
            },
        }
    }

    pub(crate) fn is_mid_frame(&self) -> bool {
        self.held.as_deref().is_some_and(|held| !held.is_idle())
    }

    /// Between two messages, with nothing lent.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.held.is_none()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        match self.held.as_deref() {
            None => 0,
            Some(held) => size_of::<Held>() + held.message.capacity() + held.control.capacity(),
        }
    }
}

// === impl Held ===

impl Held {
    /// True when no frame and no message has begun.
    fn is_idle(&self) -> bool {
        self.header_len == 0 && self.current.is_none() && !self.message_open
    }

    /// Takes header bytes one by one, so that none of the payload is taken.
    fn keep_header(&mut self, input: &mut Input<'_>) -> Result<Option<Header>, FrameError> {
        while let Some(slot) = self.header.get_mut(usize::from(self.header_len))
            && let Some(byte) = input.take_byte()
        {
            *slot = byte;
            self.header_len += 1;
            let arrived = &self.header[..usize::from(self.header_len)];
            if let Some(header) = Header::parse(arrived, self.message_open)? {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Keeps what there is of a payload; something is found when that ends a
    /// message or a control frame.
    fn keep(
        &mut self,
        input: &mut Input<'_>,
        mut current: Current,
    ) -> Result<Option<Found>, FrameError> {
        let kept = if current.opcode.is_control() {
            &mut self.control
        } else {
            &mut self.message
        };
        let arrived = input.take(current.missing_bytes);
        unmask(arrived, current.mask);
        current.mask.rotate_left(arrived.len() % 4);
        current.missing_bytes -= arrived.len();
        kept.append(arrived, current.whole_max_bytes);
        if current.missing_bytes > 0 {
            self.current = Some(current);
            return Ok(None);
        }
        self.current = None;
        if current.opcode.is_control() {
            self.lent = Lent::Control;
            let found = found(current.opcode, self.control.as_slice(), Place::Held)?;
            return Ok(Some(found));
        }
        self.message_open = !current.fin;
        if self.message_open {
            return Ok(None);
        }
        self.lent = Lent::Message;
        Ok(Some(Found::Packet(Place::Held)))
    }
}

// === impl Current ===

impl Current {
    /// Holds a header against the cap, before any of its payload is kept.
    fn checked(
        header: Header,
        message_bytes: usize,
        frame_max_bytes: u32,
    ) -> Result<Self, FrameError> {
        let whole_bytes = header.payload_bytes.saturating_add(message_bytes as u64);
        if !header.opcode.is_control() {
            if whole_bytes > u64::from(frame_max_bytes) {
                return Err(FrameError::TooLarge {
                    bytes: whole_bytes,
                    max_bytes: frame_max_bytes,
                });
            }
            if header.fin && whole_bytes == 0 {
                return Err(FrameError::Empty);
            }
        }
        Ok(Self {
            opcode: header.opcode,
            fin: header.fin,
            mask: header.mask,
            // At most the cap, or 125.
            missing_bytes: header.payload_bytes as usize,
            whole_max_bytes: if header.opcode.is_control() {
                CONTROL_MAX_BYTES
            } else if header.fin {
                whole_bytes as usize
            } else {
                frame_max_bytes as usize
            },
        })
    }
}
