//! The header of one frame from a client (RFC 6455, section 5.2).

use super::{CONTROL_MAX_BYTES, Violation};
use crate::FrameError;

/// Longest header of a client's frame: 2 bytes, 8 of length, 4 of mask.
pub(super) const HEADER_MAX_BYTES: usize = 14;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation,
    /// Not taken from clients.
    Text,
    /// A packet.
    Binary,
    /// The last frame of its sender.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or is a heartbeat one way.
    Pong,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) payload_bytes: u64,
    /// Of the header itself.
    pub(super) header_bytes: usize,
}

// === impl Opcode ===

impl Opcode {
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    fn parse(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            reserved => return Err(Violation::ReservedOpcode(reserved)),
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

// === impl Header ===

impl Header {
    /// Reads a header; `None` while it isn't all there. Each rule is checked as
    /// soon as its byte is there, in the order of the bytes, so that it makes no
    /// difference how they are cut up.
    pub(super) fn parse(bytes: &[u8], message_open: bool) -> Result<Option<Self>, FrameError> {
        let Some((&first, bytes)) = bytes.split_first() else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        let opcode = Self::checked_opcode(first, fin, message_open)?;
        let Some((&second, bytes)) = bytes.split_first() else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked.into());
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX_BYTES {
            return Err(Violation::LongControl.into());
        }
        let Some((payload_bytes, length_bytes)) = Self::length(short, bytes)? else {
            return Ok(None);
        };
        let Some(mask) = bytes
            .get(length_bytes..)
            .and_then(|bytes| bytes.first_chunk())
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask: *mask,
            payload_bytes,
            header_bytes: 2 + length_bytes + mask.len(),
        }))
    }

    fn checked_opcode(first: u8, fin: bool, message_open: bool) -> Result<Opcode, FrameError> {
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits.into());
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        match opcode {
            _ if opcode.is_control() && !fin => Err(Violation::FragmentedControl.into()),
            Opcode::Continuation if !message_open => Err(Violation::NothingToContinue.into()),
            Opcode::Text | Opcode::Binary if message_open => {
                Err(Violation::MessageUnfinished.into())
            }
            Opcode::Text => Err(FrameError::Text),
            _ => Ok(opcode),
        }
    }

    /// The payload's length and how many bytes tell it beyond the first two.
    fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
        match short {
            126 => {
                let Some(&length) = bytes.first_chunk::<2>() else {
                    return Ok(None);
                };
                let length = u16::from_be_bytes(length);
                if length < 126 {
                    return Err(Violation::LengthNotMinimal.into());
                }
                Ok(Some((u64::from(length), 2)))
            }
            127 => {
                let Some(&length) = bytes.first_chunk::<8>() else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(length);
                if length >> 63 != 0 {
                    return Err(Violation::NegativeLength.into());
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::LengthNotMinimal.into());
                }
                Ok(Some((length, 8)))
            }
            length => Ok(Some((u64::from(length), 0))),
        }
    }
}
