//! What a session keeps of its encryption: two keys and where they began.
//!
//! Each direction has a key of its own and changes it by itself: after
//! [`KEY_MAX_PACKETS`] or [`KEY_MAX_AGE_US`], once the peer has acknowledged a packet
//! under the present one, the sender goes on to the next key of the chain and
//! flips the phase bit in its headers. A receiver that sees the bit flipped tries
//! the next key; with the first packet that opens it goes along, and keeps the
//! last key for [`KEY_OVERLAP_US`] for packets that are late. The chain runs one way:
//! who learns a key can't open what was sealed before it.
//!
//! Cost: the cipher is keyed for each packet (a copy of 32 bytes), so that a
//! session keeps no cipher's state. Sealing and opening happen in place and
//! allocate nothing; a change of the peer's key allocates for the overlap.

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce, Tag};

use super::{
    ConnectionId, PACKET_NUMBER_MAX, SessionHeader, TruncatedNumber, noise::Split, secret::Secret,
};
use crate::packed::{
    put_difference, put_number, take_array, take_byte, take_difference, take_narrow, take_number,
};

/// Bytes that sealing adds behind a payload.
pub const TAG_BYTES: usize = 16;
/// Packet numbers that are sealed with one key, about.
pub const KEY_MAX_PACKETS: u64 = 1 << 20;
/// Age at which a key is replaced.
pub const KEY_MAX_AGE_US: u64 = 3_600_000_000;
/// How long the peer's last key is kept beside its new one.
pub const KEY_OVERLAP_US: u64 = 10_000_000;
/// Packets that may fail to open before the session must end. Far below what
/// would help to forge one (2³⁶ for a key, RFC 9001, 6.6).
pub const FORGERIES_MAX: u32 = u32::MAX;

/// The keys of one side of a session.
#[derive(Debug)]
pub struct SessionKeys {
    connection_id: ConnectionId,
    is_client: bool,
    sender: Sender,
    receiver: Receiver,
}

#[derive(Debug)]
struct Sender {
    key: Secret,
    phase: bool,
    rotation_wanted: bool,
    /// Where the key began to be used.
    first_number: u64,
    since_us: u64,
    /// No number is sealed twice.
    next_number: u64,
}

#[derive(Debug)]
struct Receiver {
    key: Secret,
    phase: bool,
    forgeries: u32,
    /// The first number that opened with the key.
    first_number: u64,
    last: Option<Box<LastKey>>,
}

#[derive(Debug)]
struct LastKey {
    key: Secret,
    until_us: u64,
}

/// A packet that can't be sealed: the caller's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Numbers rise.
    #[error("packet number {number} was passed already, {next} is next")]
    NumberPassed {
        /// The number given.
        number: u64,
        /// The lowest that may be used.
        next: u64,
    },
    /// Over [`PACKET_NUMBER_MAX`], or too far from what is acknowledged.
    #[error("the packet number is too large, or too many before it are unacknowledged")]
    NumberTooLarge,
    /// No room for header and tag.
    #[error("the buffer has no room for header and tag")]
    Short,
}

/// A packet that can't be opened; it is dropped, and says nothing of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It ends before its tag does.
    #[error("the packet is too short")]
    Short,
    /// It is none of the peer's, or was changed on the way.
    #[error("the packet was not sealed by the peer")]
    Forged,
    /// Too many were forged: end the session.
    #[error("too many packets were forged")]
    TooManyForgeries,
    /// It came later than the key it was sealed with is kept.
    #[error("the packet was sealed with a key that is gone")]
    KeyGone,
}

// === impl SessionKeys ===

impl SessionKeys {
    pub(crate) fn of_client(connection_id: ConnectionId, split: Split, now_us: u64) -> Self {
        Self::new(
            connection_id,
            true,
            split.to_server,
            split.to_client,
            now_us,
        )
    }

    pub(crate) fn of_server(connection_id: ConnectionId, split: Split, now_us: u64) -> Self {
        Self::new(
            connection_id,
            false,
            split.to_client,
            split.to_server,
            now_us,
        )
    }

    fn new(id: ConnectionId, is_client: bool, send: Secret, receive: Secret, now_us: u64) -> Self {
        Self {
            connection_id: id,
            is_client,
            sender: Sender {
                key: send,
                phase: false,
                rotation_wanted: false,
                first_number: 0,
                since_us: now_us,
                next_number: 0,
            },
            receiver: Receiver {
                key: receive,
                phase: false,
                forgeries: 0,
                first_number: 0,
                last: None,
            },
        }
    }

    /// The session's name at the server.
    pub const fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// Bytes before the payload of the packet with this number; `None` if it can
    /// not be sent, since too many before it are unacknowledged.
    pub fn header_bytes(&self, number: u64, largest_acked: Option<u64>) -> Option<usize> {
        self.header(number, largest_acked)
            .map(|header| header.len())
    }

    fn header(&self, number: u64, largest_acked: Option<u64>) -> Option<SessionHeader> {
        Some(SessionHeader {
            connection_id: self.is_client.then_some(self.connection_id),
            key_phase: self.sender.phase,
            number: TruncatedNumber::new(number, largest_acked)?,
        })
    }

    /// Makes a datagram: `datagram` has the payload behind
    /// [`SessionKeys::header_bytes`], and [`TAG_BYTES`] behind the payload.
    /// `largest_acked` is the largest number that the peer has acknowledged, the
    /// same as for `header_bytes`.
    ///
    /// # Errors
    /// See [`SealError`]; nothing was written then.
    pub fn seal(
        &mut self,
        now_us: u64,
        number: u64,
        largest_acked: Option<u64>,
        datagram: &mut [u8],
    ) -> Result<(), SealError> {
        let next = self.sender.next_number;
        if number < next {
            return Err(SealError::NumberPassed { number, next });
        }
        if number > PACKET_NUMBER_MAX {
            return Err(SealError::NumberTooLarge);
        }
        let header_bytes = self
            .header_bytes(number, largest_acked)
            .ok_or(SealError::NumberTooLarge)?;
        let sealed = datagram.len().checked_sub(header_bytes + TAG_BYTES);
        let payload_bytes = sealed.ok_or(SealError::Short)?;
        self.sender.turn(now_us, number, largest_acked);
        // Made anew: the turn may have flipped the phase, which changes no length.
        let header = self
            .header(number, largest_acked)
            .ok_or(SealError::NumberTooLarge)?;
        let (head, rest) = datagram.split_at_mut(header_bytes);
        header.write(head);
        let (payload, tag_room) = rest.split_at_mut(payload_bytes);
        let cipher = ChaCha20Poly1305::new(self.sender.key.as_bytes().into());
        let tag = cipher.encrypt_in_place_detached(&nonce(number), head, payload);
        // It fails for more than 256 GiB only.
        tag_room.copy_from_slice(&tag.unwrap_or_default());
        self.sender.next_number = number + 1;
        Ok(())
    }

    /// Opens a datagram in place: its packet number, and its payload. `header` is
    /// its header as parsed, `largest_received` the largest number that was opened
    /// so far. A packet that was opened before is opened again: the caller keeps
    /// the window of numbers that it has seen.
    ///
    /// # Errors
    /// See [`OpenError`]; the datagram is as it was then.
    pub fn open<'a>(
        &mut self,
        now_us: u64,
        header: &SessionHeader,
        largest_received: Option<u64>,
        datagram: &'a mut [u8],
    ) -> Result<(u64, &'a mut [u8]), OpenError> {
        if datagram.len() < header.len() {
            return Err(OpenError::Short);
        }
        let number = header.number.expand(largest_received);
        let (head, rest) = datagram.split_at_mut(header.len());
        let (payload, tag) = rest.split_last_chunk_mut().ok_or(OpenError::Short)?;
        let tag: [u8; TAG_BYTES] = *tag;
        self.receiver
            .open(now_us, header.key_phase, number, head, payload, &tag.into())?;
        Ok((number, payload))
    }

    /// Has the next packet sealed with a new key, as soon as the peer has
    /// acknowledged one under the present key.
    pub fn rotate(&mut self) {
        self.sender.rotation_wanted = true;
    }

    /// Heap memory held, in bytes: none but in the overlap after a change of the
    /// peer's key.
    pub fn held_bytes(&self) -> usize {
        self.receiver
            .last
            .as_ref()
            .map_or(0, |_| size_of::<LastKey>())
    }

    /// The keys lie in `out` as they are: whoever has it wipes it.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.connection_id.as_bytes());
        out.push(u8::from(self.is_client));
        self.sender.pack(out);
        self.receiver.pack(out);
    }

    pub(super) fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            connection_id: ConnectionId::from_bytes(take_array(input)?),
            is_client: take_byte(input)? != 0,
            sender: Sender::unpack(input)?,
            receiver: Receiver::unpack(input)?,
        })
    }
}

// === impl Sender ===

impl Sender {
    /// Goes on to the next key if it is time.
    fn turn(&mut self, now_us: u64, number: u64, largest_acked: Option<u64>) {
        let due = self.rotation_wanted
            || number.saturating_sub(self.first_number) >= KEY_MAX_PACKETS
            || now_us.saturating_sub(self.since_us) >= KEY_MAX_AGE_US;
        // Two changes that the peer has seen nothing of would look like none.
        let seen = largest_acked.is_some_and(|acked| acked >= self.first_number);
        if !due || !seen {
            return;
        }
        self.key = next_key(&self.key);
        self.phase = !self.phase;
        self.rotation_wanted = false;
        self.first_number = number;
        self.since_us = now_us;
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.push(u8::from(self.phase) | u8::from(self.rotation_wanted) << 1);
        put_number(out, self.first_number);
        put_number(out, self.since_us);
        put_difference(out, self.next_number, self.first_number);
    }

    fn unpack(input: &mut &[u8]) -> Option<Self> {
        let key = Secret::from_bytes(take_array(input)?);
        let flags = take_byte(input)?;
        let first_number = take_number(input)?;
        Some(Self {
            key,
            phase: flags & 1 != 0,
            rotation_wanted: flags & 2 != 0,
            first_number,
            since_us: take_number(input)?,
            next_number: take_difference(input, first_number)?,
        })
    }
}

// === impl Receiver ===

impl Receiver {
    fn open(
        &mut self,
        now_us: u64,
        phase: bool,
        number: u64,
        head: &[u8],
        payload: &mut [u8],
        tag: &Tag,
    ) -> Result<(), OpenError> {
        if self.forgeries == FORGERIES_MAX {
            return Err(OpenError::TooManyForgeries);
        }
        self.last.take_if(|last| now_us >= last.until_us);
        let open = |key: &Secret, payload: &mut [u8]| {
            let cipher = ChaCha20Poly1305::new(key.as_bytes().into());
            cipher
                .decrypt_in_place_detached(&nonce(number), head, payload, tag)
                .is_ok()
        };
        let opened = if phase == self.phase {
            open(&self.key, payload)
        } else if number < self.first_number {
            let last = self.last.as_ref().ok_or(OpenError::KeyGone)?;
            open(&last.key, payload)
        } else {
            let next = next_key(&self.key);
            let opened = open(&next, payload);
            if opened {
                let key = std::mem::replace(&mut self.key, next);
                let until_us = now_us.saturating_add(KEY_OVERLAP_US);
                self.last = Some(Box::new(LastKey { key, until_us }));
                self.phase = phase;
                self.first_number = number;
            }
            opened
        };
        if !opened {
            self.forgeries += 1;
            return Err(OpenError::Forged);
        }
        Ok(())
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.push(u8::from(self.phase) | u8::from(self.last.is_some()) << 1);
        put_number(out, self.forgeries.into());
        put_number(out, self.first_number);
        if let Some(last) = &self.last {
            out.extend_from_slice(last.key.as_bytes());
            put_number(out, last.until_us);
        }
    }

    fn unpack(input: &mut &[u8]) -> Option<Self> {
        let key = Secret::from_bytes(take_array(input)?);
        let flags = take_byte(input)?;
        let (forgeries, first_number) = (take_narrow(input)?, take_number(input)?);
        let last = match flags & 2 != 0 {
            true => Some(Box::new(LastKey {
                key: Secret::from_bytes(take_array(input)?),
                until_us: take_number(input)?,
            })),
            false => None,
        };
        Some(Self {
            key,
            phase: flags & 1 != 0,
            forgeries,
            first_number,
            last,
        })
    }
}

fn next_key(key: &Secret) -> Secret {
    key.derive("sluice datagram next key")
}

/// As Noise makes it of its counter: 4 zero bytes, then the number, little-endian.
pub(crate) fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(4).zip(number.to_le_bytes()) {
        *to = from;
    }
    nonce.into()
}
