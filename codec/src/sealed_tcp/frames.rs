//! Frames of an encrypted stream.

use bytes::{BufMut, BytesMut};
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use prost::Message;
use sluice_protocol::packet::Packet;

use super::{SEALED_OVERHEAD_BYTES, SealedError};
use crate::{
    EncodeError, FRAME_MAX_BYTES_CEILING, FrameError, Input,
    datagram::{noise::Split, nonce, secret::Secret},
    decoder::{Found, Place},
    packed::{put_number, take_array, take_number},
    packet::checked_bytes,
    partial::Partial,
    tcp::{self, HEADER_BYTES},
};

/// After so many frames a direction goes on to its next key.
pub const STREAM_KEY_MAX_FRAMES: u64 = 1 << 20;

/// Seals what one side sends. Each frame must be written, in order.
#[derive(Debug)]
pub struct StreamSealer(Counted);

/// Opens what the other side sends.
#[derive(Debug)]
pub struct StreamOpener(Counted);

/// A key and how often it was used.
#[derive(Debug)]
struct Counted {
    key: Secret,
    count: u64,
}

/// Where an encrypted TCP connection stands inside its bytes.
#[derive(Debug)]
pub(crate) struct SealedState {
    opener: StreamOpener,
    sealer: StreamSealer,
    partial: Partial,
    lent: bool,
    /// After an error: nothing more is opened, last words are still sealed.
    is_ended: bool,
}

// === impl Counted ===

impl Counted {
    /// The cipher for the next frame, and its number.
    fn next(&mut self) -> (ChaCha20Poly1305, u64) {
        let count = self.count;
        if count > 0 && count.is_multiple_of(STREAM_KEY_MAX_FRAMES) {
            self.key = self.key.derive("sluice stream next key");
        }
        // 2⁶⁴ frames don't come about.
        self.count = count.wrapping_add(1);
        (ChaCha20Poly1305::new(self.key.as_bytes().into()), count)
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        put_number(out, self.count);
    }

    fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            key: Secret::from_bytes(take_array(input)?),
            count: take_number(input)?,
        })
    }
}

// === impl StreamSealer ===

impl StreamSealer {
    /// Appends a whole frame with a packet that is encoded already.
    pub fn append_payload(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.append_with(payload.len(), out, |out| out.put_slice(payload));
    }

    /// Appends a whole frame whose payload `write` appends: so many bytes.
    pub fn append_with(
        &mut self,
        payload_bytes: usize,
        out: &mut BytesMut,
        write: impl FnOnce(&mut BytesMut),
    ) {
        let start = out.len();
        let sealed_bytes = payload_bytes + SEALED_OVERHEAD_BYTES;
        out.reserve(HEADER_BYTES + sealed_bytes);
        out.put_slice(&length(sealed_bytes));
        write(out);
        self.seal_from(start, out);
    }

    /// Appends a whole frame.
    ///
    /// # Errors
    /// Over `frame_max_bytes`, or without a body; nothing was appended then.
    pub fn append_packet(
        &mut self,
        packet: &Packet,
        frame_max_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let payload_bytes = checked_bytes(packet, frame_max_bytes)?;
        self.append_with(payload_bytes, out, |out| {
            // It fails only for want of room, and a BytesMut grows.
            let _ = packet.encode(out);
        });
        Ok(())
    }

    /// Seals the frame that begins at `start` and ends with its plain payload.
    fn seal_from(&mut self, start: usize, out: &mut BytesMut) {
        let (cipher, count) = self.0.next();
        let frame = out.get_mut(start..).unwrap_or_default();
        let (header, payload) = frame.split_at_mut(HEADER_BYTES.min(frame.len()));
        let tag = cipher.encrypt_in_place_detached(&nonce(count), header, payload);
        // It fails for more than 256 GiB only.
        out.put_slice(&tag.unwrap_or_default());
    }
}

/// Encoders cap the payload at 16 MiB.
fn length(sealed_bytes: usize) -> [u8; HEADER_BYTES] {
    u32::try_from(sealed_bytes)
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

// === impl StreamOpener ===

impl StreamOpener {
    /// Finds and opens the frame at the start of `bytes`: the bytes of its header,
    /// and of its payload behind that. The tag follows. `None` while it isn't all there.
    ///
    /// # Errors
    /// No frame, over the cap, or not the peer's next one.
    pub(crate) fn open(
        &mut self,
        bytes: &mut [u8],
        frame_max_bytes: u32,
    ) -> Result<Option<usize>, FrameError> {
        let Some(payload_bytes) = payload_bytes(bytes, frame_max_bytes)? else {
            return Ok(None);
        };
        let whole_bytes = HEADER_BYTES + payload_bytes + SEALED_OVERHEAD_BYTES;
        let Some(frame) = bytes.get_mut(..whole_bytes) else {
            return Ok(None);
        };
        let (header, sealed) = frame.split_at_mut(HEADER_BYTES);
        let (payload, tag) = sealed.split_at_mut(payload_bytes);
        let tag: [u8; SEALED_OVERHEAD_BYTES] = match tag.first_chunk() {
            Some(tag) => *tag,
            None => return Ok(None),
        };
        let (cipher, count) = self.0.next();
        let opened = cipher.decrypt_in_place_detached(&nonce(count), header, payload, &tag.into());
        opened.map_err(|_| SealedError::Forged)?;
        Ok(Some(payload_bytes))
    }
}

/// The plain payload's bytes; `None` while the length isn't all there.
fn payload_bytes(bytes: &[u8], frame_max_bytes: u32) -> Result<Option<usize>, FrameError> {
    let ceiling = FRAME_MAX_BYTES_CEILING as u32;
    let max_bytes = (frame_max_bytes + SEALED_OVERHEAD_BYTES as u32).min(ceiling);
    let Some(sealed_bytes) = tcp::payload_bytes(bytes, max_bytes)? else {
        return Ok(None);
    };
    match sealed_bytes.checked_sub(SEALED_OVERHEAD_BYTES) {
        None | Some(0) => Err(FrameError::Empty),
        payload_bytes => Ok(payload_bytes),
    }
}

/// The two halves of the client's or the server's side.
pub(crate) fn halves(split: Split, is_client: bool) -> (StreamSealer, StreamOpener) {
    let counted = |key| Counted { key, count: 0 };
    let (to_server, to_client) = (counted(split.to_server), counted(split.to_client));
    let (send, receive) = if is_client {
        (to_server, to_client)
    } else {
        (to_client, to_server)
    };
    (StreamSealer(send), StreamOpener(receive))
}

// === impl SealedState ===

impl SealedState {
    pub(crate) fn new(sealer: StreamSealer, opener: StreamOpener) -> Self {
        Self {
            opener,
            sealer,
            partial: Partial::default(),
            lent: false,
            is_ended: false,
        }
    }

    /// Appends all that it is, and answers true; appends nothing and answers false
    /// unless it stands between two frames.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) -> bool {
        let Self {
            opener,
            sealer,
            partial,
            lent,
            is_ended,
        } = self;
        if !partial.is_empty() || *lent || *is_ended {
            return false;
        }
        opener.0.pack(out);
        sealer.0.pack(out);
        true
    }

    pub(crate) fn unpack(input: &mut &[u8]) -> Option<Self> {
        let opener = StreamOpener(Counted::unpack(input)?);
        let sealer = StreamSealer(Counted::unpack(input)?);
        Some(Self::new(sealer, opener))
    }

    pub(crate) fn sealer(&mut self) -> &mut StreamSealer {
        &mut self.sealer
    }

    pub(crate) fn end(&mut self) {
        self.partial = Partial::default();
        self.is_ended = true;
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub(crate) fn advance(
        &mut self,
        input: &mut Input<'_>,
        frame_max_bytes: u32,
    ) -> Result<Option<Found>, FrameError> {
        if self.is_ended {
            input.consume(usize::MAX);
            return Ok(None);
        }
        if self.lent {
            self.partial = Partial::default();
            self.lent = false;
        }
        if self.partial.is_empty()
            && let Some(payload) = self.opener.open(input.rest_mut(), frame_max_bytes)?
        {
            input.consume(HEADER_BYTES);
            let place = input.consume(payload);
            input.consume(SEALED_OVERHEAD_BYTES);
            return Ok(Some(Found::Packet(Place::Input(place))));
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
            let behind = payload.map_or(0, |payload| payload + SEALED_OVERHEAD_BYTES);
            let whole_bytes = HEADER_BYTES + behind;
            let missing = whole_bytes.saturating_sub(self.partial.len());
            if missing == 0 {
                self.opener
                    .open(self.partial.as_mut_slice(), frame_max_bytes)?;
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
        let frame = self.partial.as_slice();
        let end = frame.len().saturating_sub(SEALED_OVERHEAD_BYTES);
        frame.get(HEADER_BYTES..end).unwrap_or_default()
    }

    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.lent && !self.partial.is_empty()
    }

    /// Without the state itself, which is as large as long as the connection lives
    /// ([`crate::Decoder::SEALED_BYTES`]).
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_holds_little() {
        assert_eq!(size_of::<SealedState>(), 112);
    }

    #[test]
    fn keys_change_after_so_many_frames_on_both_sides() {
        let secret = Secret::from_bytes([1; 32]);
        let side = || Counted {
            key: secret.clone(),
            count: STREAM_KEY_MAX_FRAMES - 1,
        };
        let (mut sealer, mut opener) = (StreamSealer(side()), StreamOpener(side()));
        for _ in 0..3 {
            let mut frame = BytesMut::new();
            sealer.append_payload(b"payload", &mut frame);
            assert_eq!(opener.open(&mut frame, 64), Ok(Some(7)));
            assert_eq!(&frame[4..11], b"payload");
        }
        assert_ne!(sealer.0.key.as_bytes(), secret.as_bytes());
    }
}
