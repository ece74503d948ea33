//! What a channel still has to write: coalesced small packets and shared large
//! ones, in order, written with `writev` once a turn. Over an encrypted stream they
//! are sealed then (`sealed`).

mod sealed;

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sluice_codec::Framing;
use sluice_protocol::packet::Packet;

use crate::push_window::PushContent;

/// Unwritten bytes. Exists only while there are some: idle channels own none.
#[derive(Debug, Default)]
pub(crate) struct Output {
    parts: VecDeque<Part>,
    bytes: usize,
    /// Before the parts: what goes to the socket as it is, of an encrypted stream.
    staged: BytesMut,
    /// Bytes that were appended for what is staged.
    staged_for_bytes: usize,
}

#[derive(Debug)]
enum Part {
    /// Small packets, one behind the other.
    Own(BytesMut),
    /// An entry that other channels write too.
    Shared(Bytes),
}

/// Outputs and buffers that wait for their next use, for all channels of a
/// loop. Bounded, and large ones are not kept.
#[derive(Debug, Default)]
pub(crate) struct OutputPool {
    #[allow(
        clippy::vec_box,
        reason = "channels hold the boxes; pooling keeps them"
    )]
    outputs: Vec<Box<Output>>,
    buffers: Vec<BytesMut>,
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Of what was appended.
    pub(crate) bytes: usize,
    /// What the socket took; more, where it is sealed.
    pub(crate) wire_bytes: usize,
    /// The socket takes no more for now.
    pub(crate) blocked: bool,
}

/// Smaller entries are copied: cheaper than a part of their own in a `writev`.
const SHARE_MIN_BYTES: usize = 1024;
/// A buffer that has grown to this is followed by a new one.
const BUFFER_FULL_BYTES: usize = 16 * 1024;
/// Larger buffers are given back to the allocator.
const POOLED_BUFFER_MAX_BYTES: usize = 64 * 1024;
const POOLED_MAX: usize = 64;
const IO_SLICES_MAX: usize = 64;
/// Of a push prefix: frame header, keys, varints and a conversation id.
const PREFIX_ROOM_BYTES: usize = 192;

// === impl Output ===

impl Output {
    /// Unwritten bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.staged.len()
    }

    /// Memory held by this channel alone.
    pub(crate) fn heap_bytes(&self) -> usize {
        let own = self.parts.iter().map(|part| match part {
            Part::Own(buffer) => buffer.capacity(),
            Part::Shared(_) => 0,
        });
        let parts = self.parts.capacity() * size_of::<Part>();
        size_of::<Self>() + parts + own.sum::<usize>() + self.staged.capacity()
    }

    /// Appends a packet; returns the bytes it takes, 0 if it is over the cap
    /// (which the gateway's own packets never are).
    pub(crate) fn packet(
        &mut self,
        framing: Framing,
        packet: &Packet,
        frame_max_bytes: usize,
        pool: &mut OutputPool,
    ) -> usize {
        let before = self.bytes;
        let buffer = self.tail(pool);
        let start = buffer.len();
        let appended = framing.append_packet(packet, frame_max_bytes, buffer);
        let bytes = buffer.len() - start;
        if let Err(error) = appended {
            tracing::error!(%error, "a packet of the gateway's own could not be encoded");
        }
        self.bytes = before + bytes;
        bytes
    }

    /// Appends an encoded packet; returns the bytes it takes.
    pub(crate) fn payload(
        &mut self,
        framing: Framing,
        payload: &Bytes,
        pool: &mut OutputPool,
    ) -> usize {
        let header = framing.header(payload.len());
        self.raw(&header, pool);
        self.shared(payload, pool);
        header.len() + payload.len()
    }

    /// Appends a push with this number; returns the bytes it takes.
    pub(crate) fn push(
        &mut self,
        framing: Framing,
        content: &PushContent,
        number: u64,
        user_seq: u64,
        pool: &mut OutputPool,
    ) -> usize {
        let prefix = content.prefix(user_seq);
        let entry_bytes = content.entry.len();
        let packet_bytes = prefix.packet_bytes(number, entry_bytes);
        let header = framing.header(packet_bytes);
        let prefix_bytes = header.len() + packet_bytes - entry_bytes;
        let buffer = self.tail(pool);
        buffer.reserve(PREFIX_ROOM_BYTES);
        buffer.put_slice(&header);
        prefix.encode(number, entry_bytes, buffer);
        self.bytes += prefix_bytes;
        self.shared(&content.entry, pool);
        prefix_bytes + entry_bytes
    }

    /// Takes the first packet out, of an output in [`Framing::Tcp`] that nothing was
    /// written of.
    pub(crate) fn next_frame(&mut self, pool: &mut OutputPool) -> Option<Bytes> {
        let Some(Part::Own(buffer)) = self.parts.front_mut() else {
            return None;
        };
        // A header is never parted: it goes into one buffer as a whole.
        let length = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
        buffer.advance(size_of::<u32>());
        self.bytes = self.bytes.saturating_sub(size_of::<u32>() + length);
        if buffer.len() > length {
            return Some(buffer.split_to(length).freeze());
        }
        let mut frame = BytesMut::with_capacity(length);
        while frame.len() < length {
            let missing = length - frame.len();
            match self.parts.front_mut()? {
                Part::Own(buffer) => frame.put_slice(&buffer.split_to(missing.min(buffer.len()))),
                Part::Shared(bytes) => frame.put_slice(&bytes.split_to(missing.min(bytes.len()))),
            }
            if self
                .parts
                .front()
                .is_some_and(|part| part.as_slice().is_empty())
                && let Some(Part::Own(buffer)) = self.parts.pop_front()
            {
                pool.give_buffer(buffer);
            }
        }
        Some(frame.freeze())
    }

    /// Appends bytes as they are: WebSocket control frames, HTTP.
    pub(crate) fn raw(&mut self, bytes: &[u8], pool: &mut OutputPool) {
        self.tail(pool).put_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Writes as much as the socket takes. `Ok` with `blocked` unset means that
    /// nothing is left.
    pub(crate) fn write_to(
        &mut self,
        socket: &mut impl Write,
        pool: &mut OutputPool,
    ) -> io::Result<Written> {
        let mut total = 0;
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); IO_SLICES_MAX];
            let mut offered = 0;
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                let bytes = part.as_slice();
                *slice = IoSlice::new(bytes);
                offered += bytes.len();
                count += 1;
            }
            let written = match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::plain(total, true));
                }
                Err(error) => return Err(error),
            };
            total += written;
            self.consume(written, pool);
            if written < offered {
                // A short write has filled the socket (epoll(7)): the next edge
                // comes when there is room.
                return Ok(Written::plain(total, true));
            }
        }
        Ok(Written::plain(total, false))
    }

    fn consume(&mut self, mut written: usize, pool: &mut OutputPool) {
        self.bytes -= written;
        while let Some(part) = self.parts.front_mut() {
            let len = part.as_slice().len();
            if written < len {
                match part {
                    Part::Own(buffer) => buffer.advance(written),
                    Part::Shared(bytes) => bytes.advance(written),
                }
                return;
            }
            written -= len;
            if let Some(Part::Own(buffer)) = self.parts.pop_front() {
                pool.give_buffer(buffer);
            }
        }
    }

    fn shared(&mut self, bytes: &Bytes, pool: &mut OutputPool) {
        if bytes.len() < SHARE_MIN_BYTES {
            self.raw(bytes, pool);
        } else {
            self.bytes += bytes.len();
            self.parts.push_back(Part::Shared(bytes.clone()));
        }
    }

    /// The buffer that the next small packet goes into.
    fn tail(&mut self, pool: &mut OutputPool) -> &mut BytesMut {
        let has_room =
            matches!(self.parts.back(), Some(Part::Own(b)) if b.len() < BUFFER_FULL_BYTES);
        if !has_room {
            self.parts.push_back(Part::Own(pool.take_buffer()));
        }
        match self.parts.back_mut() {
            Some(Part::Own(buffer)) => buffer,
            _ => unreachable!("a buffer was pushed just above"),
        }
    }
}

// === impl Written ===

impl Written {
    fn plain(bytes: usize, blocked: bool) -> Self {
        Self {
            bytes,
            wire_bytes: bytes,
            blocked,
        }
    }
}

// === impl Part ===

impl Part {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(bytes) => bytes,
        }
    }
}

// === impl OutputPool ===

impl OutputPool {
    pub(crate) fn take(&mut self) -> Box<Output> {
        self.outputs.pop().unwrap_or_default()
    }

    /// Takes back an output that is of no more use.
    pub(crate) fn give(&mut self, mut output: Box<Output>) {
        for part in output.parts.drain(..) {
            if let Part::Own(buffer) = part {
                self.give_buffer(buffer);
            }
        }
        output.bytes = 0;
        self.give_buffer(std::mem::take(&mut output.staged));
        output.staged_for_bytes = 0;
        if self.outputs.len() < POOLED_MAX && output.parts.capacity() <= IO_SLICES_MAX {
            self.outputs.push(output);
        }
    }

    fn take_buffer(&mut self) -> BytesMut {
        self.buffers.pop().unwrap_or_default()
    }

    fn give_buffer(&mut self, mut buffer: BytesMut) {
        if buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        // Get back what was consumed at the front, if nobody else has it.
        let _ = buffer.try_reclaim(BUFFER_FULL_BYTES);
        if self.buffers.len() < POOLED_MAX && buffer.capacity() <= POOLED_BUFFER_MAX_BYTES {
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_window::PushKind;
    use proptest::prelude::*;
    use prost::Message;
    use sluice_codec::{Decoder, Frame, Input, decode_packet};
    use sluice_protocol::packet::{Entry, Ping, packet};

    /// Takes at most so many bytes a call, and blocks every other time.
    struct Throttled {
        taken: Vec<u8>,
        at_once: usize,
        calls: usize,
    }

    impl Write for Throttled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            self.write(&bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ping(id: u64) -> Packet {
        Packet {
            id,
            body: Some(packet::Body::Ping(Ping {})),
        }
    }

    proptest! {
        #[test]
        fn packets_come_out_whole_and_in_order(
            steps in prop::collection::vec((0..3_u8, 0..5_000_usize), 1..60),
            at_once in 1..3_000_usize,
            websocket in any::<bool>(),
        ) {
            let framing = if websocket { Framing::WebSocket } else { Framing::Tcp };
            let mut pool = OutputPool::default();
            let mut output = pool.take();
            let mut expected = Vec::new();
            let mut offset = 0;
            for (number, (step, size)) in (1..).zip(steps) {
                offset += match step {
                    0 => {
                        expected.push(ping(number));
                        output.packet(framing, &ping(number), 100, &mut pool)
                    }
                    1 => {
                        expected.push(ping(number));
                        let payload = ping(number).encode_to_vec();
                        output.payload(framing, &payload.into(), &mut pool)
                    }
                    _ => {
                        let entry = Entry { sender: "x".repeat(size), seq: 1, ..Entry::default() };
                        let content = PushContent {
                            kind: PushKind::Group,
                            conversation: "g:1".into(),
                            seq: 1,
                            entry: entry.encode_to_vec().into(),
                            trace: None,
                        };
                        let mut bytes = Vec::new();
                        content.prefix(0).encode(number, content.entry.len(), &mut bytes);
                        bytes.extend_from_slice(&content.entry);
                        expected.push(decode_packet(&bytes).unwrap());
                        output.push(framing, &content, number, 0, &mut pool)
                    }
                };
                prop_assert_eq!(output.bytes(), offset);
            }
            let mut socket = Throttled { taken: Vec::new(), at_once, calls: 0 };
            let mut written = 0;
            while output.bytes() > 0 {
                written += output.write_to(&mut socket, &mut pool).unwrap().bytes;
            }
            prop_assert_eq!(written, offset);
            pool.give(output);
            if !websocket {
                let mut decoder = Decoder::tcp(100_000);
                let mut input = Input::new(&mut socket.taken);
                let mut got = Vec::new();
                while let Some(Frame::Packet(payload)) = decoder.decode(&mut input).unwrap() {
                    got.push(decode_packet(payload).unwrap());
                }
                prop_assert_eq!(got, expected);
            }
        }
    }
}
