//! The frames of a sealed packet, to bytes and back (SPEC.md, "Frames").
//!
//! ```text
//! 00            PADDING
//! 01            PING
//! 02 / 03       ACK: largest, delay, first range / and a count of (gap, range)
//! 04            CREDIT: limit
//! 05 / 06       PATH_CHALLENGE / PATH_RESPONSE: 8 bytes
//! 07            CLOSE: code, length, reason
//! 08            TOKEN: length, bytes
//! 01mmcfl0      DATA: mode, channel byte?, fragment?, length?
//! ```
//!
//! Decoding lends from the packet and allocates nothing. Every length is checked
//! against what is left of it.

use super::{
    Channel, Violation,
    config::{ACK_RANGES_MAX, FRAGMENTS_MAX, MESSAGE_MAX_BYTES, UNRELIABLE_MAX_BYTES},
    varint,
};

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const ACK_RANGES: u8 = 0x03;
const CREDIT: u8 = 0x04;
const PATH_CHALLENGE: u8 = 0x05;
const PATH_RESPONSE: u8 = 0x06;
const CLOSE: u8 = 0x07;
const TOKEN: u8 = 0x08;
const DATA: u8 = 0x40;
const DATA_CHANNEL: u8 = 0x08;
const DATA_FRAGMENT: u8 = 0x04;
const DATA_LENGTH: u8 = 0x02;
const DATA_RESERVED: u8 = 0x81;

/// Bytes of the reason in a CLOSE frame.
pub(crate) const REASON_MAX_BYTES: usize = 255;
/// Bytes in a TOKEN frame.
pub(crate) const TOKEN_MAX_BYTES: usize = 512;
/// Bytes of a PING.
pub(crate) const PING_BYTES: usize = 1;
/// Bytes of a CREDIT.
pub(crate) const CREDIT_BYTES: usize = 5;
/// Bytes of a PATH_CHALLENGE or PATH_RESPONSE.
pub(crate) const PATH_BYTES: usize = 9;
/// Pieces of a message other than its last have at least this many bytes, so
/// that many small pieces don't cost more than they carry.
pub(crate) const FRAGMENT_MIN_BYTES: usize = 512;
/// Largest head of a DATA frame with its length.
pub(crate) const DATA_HEAD_MAX_BYTES: usize = 1 + 1 + 2 + 2 + 4 + 2;
/// Unit of the delay in an ACK frame, in microseconds.
const DELAY_UNIT_US: u64 = 250;

/// One frame, lent from its packet.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack, and no ACK may allocate"
)]
pub(crate) enum Frame<'a> {
    Padding,
    Ping,
    Ack(Ack),
    /// Bytes that the receiver of this frame may have charged in all, modulo 2³².
    Credit(u32),
    PathChallenge(u64),
    PathResponse(u64),
    Close {
        code: u16,
        reason: &'a [u8],
    },
    Token(&'a [u8]),
    Data(Data<'a>),
}

/// Ranges of packets received, newest first, ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) delay_us: u64,
    count: u8,
    ranges: [(u64, u64); ACK_RANGES_MAX],
}

/// A message or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Data<'a> {
    pub(crate) channel: Channel,
    /// The low bits of the message's number; 0 where the frame has none.
    pub(crate) id: u16,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) payload: &'a [u8],
}

/// The place of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) index: u8,
    pub(crate) count: u8,
    pub(crate) total_bytes: u32,
}

// === impl Ack ===

impl Ack {
    /// None yet.
    pub(crate) fn new(delay_us: u64) -> Self {
        Self {
            delay_us,
            count: 0,
            ranges: [(0, 0); ACK_RANGES_MAX],
        }
    }

    /// Adds a range below those there are; false if there is no place for it.
    pub(crate) fn push(&mut self, low: u64, high: u64) -> bool {
        match self.ranges.get_mut(usize::from(self.count)) {
            Some(range) => {
                *range = (low, high);
                self.count += 1;
                true
            }
            None => false,
        }
    }

    /// Newest first, `(lowest, highest)`.
    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges[..usize::from(self.count)]
    }

    /// Bytes of the frame at most.
    pub(crate) fn max_len(&self) -> usize {
        let first = 1 + 8 + 1 + 1 + 2;
        first + usize::from(self.count.saturating_sub(1)) * 4
    }

    /// Appends the frame; nothing if there is no range.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Some(((low, high), more)) = self.ranges().split_first() else {
            return;
        };
        out.push(if more.is_empty() { ACK } else { ACK_RANGES });
        varint::put(out, *high);
        out.push((self.delay_us / DELAY_UNIT_US).min(255) as u8);
        if !more.is_empty() {
            out.push(more.len() as u8);
        }
        varint::put(out, high - low);
        let mut above = *low;
        for (low, high) in more {
            varint::put(out, above - high - 2);
            varint::put(out, high - low);
            above = *low;
        }
    }

    fn take(kind: u8, input: &mut &[u8]) -> Result<Self, Violation> {
        let mut high = number(input)?;
        let mut ack = Self::new(u64::from(byte(input)?) * DELAY_UNIT_US);
        let more = if kind == ACK_RANGES { byte(input)? } else { 0 };
        if usize::from(more) >= ACK_RANGES_MAX {
            return Err(Violation::TooManyRanges);
        }
        let mut low = high.checked_sub(number(input)?).ok_or(Violation::BadAck)?;
        ack.push(low, high);
        for _ in 0..more {
            // Between two ranges lies at least one packet that is missing.
            let gap = number(input)?.checked_add(2).ok_or(Violation::BadAck)?;
            high = low.checked_sub(gap).ok_or(Violation::BadAck)?;
            low = high.checked_sub(number(input)?).ok_or(Violation::BadAck)?;
            ack.push(low, high);
        }
        Ok(ack)
    }
}

// === impl Frame ===

impl<'a> Frame<'a> {
    /// Takes one frame off the front of `input`.
    pub(crate) fn take(input: &mut &'a [u8]) -> Result<Self, Violation> {
        let kind = byte(input)?;
        Ok(match kind {
            PADDING => Self::Padding,
            PING => Self::Ping,
            ACK | ACK_RANGES => Self::Ack(Ack::take(kind, input)?),
            CREDIT => Self::Credit(u32::from_be_bytes(array(input)?)),
            PATH_CHALLENGE => Self::PathChallenge(u64::from_be_bytes(array(input)?)),
            PATH_RESPONSE => Self::PathResponse(u64::from_be_bytes(array(input)?)),
            CLOSE => Self::Close {
                code: u16::from_be_bytes(array(input)?),
                reason: counted(input, REASON_MAX_BYTES)?,
            },
            TOKEN => Self::Token(counted(input, TOKEN_MAX_BYTES)?),
            _ if kind & (DATA | DATA_RESERVED) == DATA => Self::Data(Data::take(kind, input)?),
            _ => return Err(Violation::UnknownFrame),
        })
    }

    /// Whether the peer must acknowledge a packet with this frame.
    pub(crate) fn is_eliciting(&self) -> bool {
        !matches!(self, Self::Padding | Self::Ack(_) | Self::Close { .. })
    }
}

/// Appends a PING.
pub(crate) fn put_ping(out: &mut Vec<u8>) {
    out.push(PING);
}

/// Appends padding until `out` has `bytes`.
pub(crate) fn put_padding(out: &mut Vec<u8>, bytes: usize) {
    if out.len() < bytes {
        out.resize(bytes, PADDING);
    }
}

/// Appends a CREDIT.
pub(crate) fn put_credit(out: &mut Vec<u8>, limit: u32) {
    out.push(CREDIT);
    out.extend_from_slice(&limit.to_be_bytes());
}

/// Appends a PATH_CHALLENGE.
pub(crate) fn put_challenge(out: &mut Vec<u8>, token: u64) {
    out.push(PATH_CHALLENGE);
    out.extend_from_slice(&token.to_be_bytes());
}

/// Appends a PATH_RESPONSE.
pub(crate) fn put_response(out: &mut Vec<u8>, token: u64) {
    out.push(PATH_RESPONSE);
    out.extend_from_slice(&token.to_be_bytes());
}

/// Appends a CLOSE; of the reason the first 255 bytes.
pub(crate) fn put_close(out: &mut Vec<u8>, code: u16, reason: &[u8]) {
    let reason = reason.get(..REASON_MAX_BYTES).unwrap_or(reason);
    out.push(CLOSE);
    out.extend_from_slice(&code.to_be_bytes());
    varint::put(out, reason.len() as u64);
    out.extend_from_slice(reason);
}

/// Takes the length out of the DATA frame at `at`, which is the packet's last:
/// it goes on to the end.
pub(crate) fn strip_length(out: &mut Vec<u8>, at: usize) {
    let Some(kind) = out.get(at).copied() else {
        return;
    };
    let mut length_at = at + 1 + usize::from(kind & DATA_CHANNEL != 0);
    let is_reliable = kind & 0x20 == 0;
    if is_reliable || kind & DATA_FRAGMENT != 0 {
        length_at += 2;
    }
    if kind & DATA_FRAGMENT != 0 {
        length_at += 2;
        length_at += out.get(length_at).map_or(0, |first| 1 << (first >> 6));
    }
    if let Some(first) = out.get(length_at) {
        let length_bytes = 1usize << (first >> 6);
        out.drain(length_at..length_at + length_bytes);
        out[at] &= !DATA_LENGTH;
    }
}

/// Appends a TOKEN.
pub(crate) fn put_token(out: &mut Vec<u8>, token: &[u8]) {
    out.push(TOKEN);
    varint::put(out, token.len() as u64);
    out.extend_from_slice(token);
}

// === impl Data ===

impl<'a> Data<'a> {
    /// Bytes of the frame without its payload, with a length or without.
    pub(crate) fn head_len(channel: Channel, fragment: Option<Fragment>, length: usize) -> usize {
        let id = channel.mode().is_reliable() || fragment.is_some();
        1 + usize::from(channel.number() > 0)
            + 2 * usize::from(id)
            + fragment.map_or(0, |it| 2 + varint::len(u64::from(it.total_bytes)))
            + varint::len(length as u64)
    }

    /// Appends the frame, with its length ([`strip_length`]).
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut kind = DATA | (self.channel.0 >> 6) << 4 | DATA_LENGTH;
        let number = self.channel.number();
        if number > 0 {
            kind |= DATA_CHANNEL;
        }
        if self.fragment.is_some() {
            kind |= DATA_FRAGMENT;
        }
        out.push(kind);
        if number > 0 {
            out.push(number);
        }
        if self.channel.mode().is_reliable() || self.fragment.is_some() {
            out.extend_from_slice(&self.id.to_be_bytes());
        }
        if let Some(fragment) = self.fragment {
            out.push(fragment.index);
            out.push(fragment.count);
            varint::put(out, u64::from(fragment.total_bytes));
        }
        varint::put(out, self.payload.len() as u64);
        out.extend_from_slice(self.payload);
    }

    fn take(kind: u8, input: &mut &'a [u8]) -> Result<Self, Violation> {
        let mut channel = Channel((kind & 0x30) << 2);
        if kind & DATA_CHANNEL != 0 {
            channel.0 |= byte(input)? & 0x3f;
        }
        let fragmented = kind & DATA_FRAGMENT != 0;
        let mut id = 0;
        if channel.mode().is_reliable() || fragmented {
            id = u16::from_be_bytes(array(input)?);
        }
        let mut fragment = None;
        if fragmented {
            fragment = Some(Fragment {
                index: byte(input)?,
                count: byte(input)?,
                total_bytes: u32::try_from(number(input)?)
                    .map_err(|_| Violation::MessageTooLarge)?,
            });
        }
        let bytes = match kind & DATA_LENGTH {
            0 => input.len(),
            _ => usize::try_from(number(input)?).map_err(|_| Violation::Truncated)?,
        };
        let data = Self {
            channel,
            id,
            fragment,
            payload: split(input, bytes)?,
        };
        data.check()?;
        Ok(data)
    }

    fn check(&self) -> Result<(), Violation> {
        let max_bytes = match self.channel.mode().is_reliable() {
            true => MESSAGE_MAX_BYTES,
            false => UNRELIABLE_MAX_BYTES,
        };
        if self.message_bytes() > max_bytes {
            return Err(Violation::MessageTooLarge);
        }
        match self.fragment {
            Some(fragment) if fragment.bytes() != Some(self.payload.len()) => {
                Err(Violation::BadFragment)
            }
            None if self.payload.is_empty() => Err(Violation::Truncated),
            _ => Ok(()),
        }
    }

    /// Bytes of the whole message.
    pub(crate) fn message_bytes(&self) -> usize {
        let whole = self.payload.len();
        self.fragment.map_or(whole, |it| it.total_bytes as usize)
    }
}

// === impl Fragment ===

impl Fragment {
    /// Bytes of this piece: all have the same, the last has the rest. None if
    /// the numbers contradict each other.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let (count, index) = (u32::from(self.count), u32::from(self.index));
        if count < 2 || self.count > FRAGMENTS_MAX || index >= count {
            return None;
        }
        let size = self.total_bytes.div_ceil(count);
        let last = self.total_bytes.checked_sub(size * (count - 1))?;
        if last == 0 || (size as usize) < FRAGMENT_MIN_BYTES {
            return None;
        }
        Some(if index + 1 == count { last } else { size } as usize)
    }

    /// Where the piece begins in the message.
    pub(crate) fn offset(&self) -> usize {
        let size = self.total_bytes.div_ceil(u32::from(self.count.max(1)));
        size as usize * usize::from(self.index)
    }
}

fn byte(input: &mut &[u8]) -> Result<u8, Violation> {
    let (first, rest) = input.split_first().ok_or(Violation::Truncated)?;
    *input = rest;
    Ok(*first)
}

fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Violation> {
    let (first, rest) = input.split_first_chunk().ok_or(Violation::Truncated)?;
    *input = rest;
    Ok(*first)
}

fn number(input: &mut &[u8]) -> Result<u64, Violation> {
    varint::take(input).ok_or(Violation::Truncated)
}

fn split<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Violation> {
    let (first, rest) = input.split_at_checked(bytes).ok_or(Violation::Truncated)?;
    *input = rest;
    Ok(first)
}

fn counted<'a>(input: &mut &'a [u8], max_bytes: usize) -> Result<&'a [u8], Violation> {
    let bytes = usize::try_from(number(input)?).unwrap_or(usize::MAX);
    if bytes > max_bytes {
        return Err(Violation::Truncated);
    }
    split(input, bytes)
}
