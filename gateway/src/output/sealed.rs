//! The output of an encrypted stream: frames lie in it as on plain TCP, so that a push
//! is shared until its turn comes, and are sealed by the batch as the socket takes them.
//!
//! Cost: one copy more than plain TCP's, into a buffer of the loop's pool; no allocation
//! a frame. A slow reader has at most one batch and one frame sealed ahead.

use std::io::{self, Write};

use bytes::{Buf, BufMut, BytesMut};
use sluice_codec::sealed_tcp::StreamSealer;

use super::{Output, OutputPool, Part, Written};

/// So much is sealed before it is written.
const BATCH_BYTES: usize = 16 * 1024;

// === impl Output ===

impl Output {
    /// Appends bytes that go to the socket as they are, before all frames.
    pub(crate) fn stage(&mut self, bytes: &[u8]) {
        self.staged.put_slice(bytes);
        self.staged_for_bytes += bytes.len();
    }

    /// Seals and writes as much as the socket takes, of an output in
    /// [`sluice_codec::Framing::Tcp`]. `Ok` with `blocked` unset means that nothing is
    /// left.
    pub(crate) fn write_sealed_to(
        &mut self,
        sealer: &mut StreamSealer,
        socket: &mut impl Write,
        pool: &mut OutputPool,
    ) -> io::Result<Written> {
        let mut written = Written::plain(0, false);
        while !self.staged.is_empty() || self.seal_batch(sealer, pool) {
            match socket.write(&self.staged) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.staged.advance(taken);
                    written.wire_bytes += taken;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    written.blocked = true;
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
            if !self.staged.is_empty() {
                // A short write has filled the socket, as above.
                written.blocked = true;
                return Ok(written);
            }
            written.bytes += std::mem::take(&mut self.staged_for_bytes);
        }
        pool.give_buffer(std::mem::take(&mut self.staged));
        Ok(written)
    }

    /// False when there was nothing to seal.
    fn seal_batch(&mut self, sealer: &mut StreamSealer, pool: &mut OutputPool) -> bool {
        if self.staged.capacity() == 0 {
            self.staged = pool.take_buffer();
        }
        while self.staged.len() < BATCH_BYTES
            && let Some(payload_bytes) = self.next_payload_bytes()
        {
            let mut staged = std::mem::take(&mut self.staged);
            self.consume(size_of::<u32>(), pool);
            sealer.append_with(payload_bytes, &mut staged, |out| {
                self.copy_front(payload_bytes, out);
            });
            self.consume(payload_bytes, pool);
            self.staged_for_bytes += size_of::<u32>() + payload_bytes;
            self.staged = staged;
        }
        !self.staged.is_empty()
    }

    /// Of the first frame: its header lies in one part, and all of it is there.
    fn next_payload_bytes(&self) -> Option<usize> {
        let first = self.parts.iter().find(|part| !part.as_slice().is_empty())?;
        Some(u32::from_be_bytes(*first.as_slice().first_chunk()?) as usize)
    }

    fn copy_front(&self, mut bytes: usize, out: &mut BytesMut) {
        for part in self.parts.iter().map(Part::as_slice) {
            let taken = part.get(..bytes).unwrap_or(part);
            out.put_slice(taken);
            bytes -= taken.len();
            if bytes == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message as _;
    use sluice_codec::{
        Decoder, Frame, Framing, Input,
        datagram::{ServerKey, ServerKeys},
        sealed_tcp::{SealedStream, StreamConnector},
    };
    use sluice_protocol::packet::{Entry, Packet, Ping, packet::Body};

    use super::*;
    use crate::push_window::{PushContent, PushKind};

    /// A server's side behind the opening, and the client's.
    fn opened() -> (Decoder, SealedStream) {
        let keys = ServerKeys::new(vec![ServerKey::from_secret([7; 32])], "").unwrap();
        let pin = keys.pins().next().unwrap();
        let (connector, mut opening) = StreamConnector::begin(pin, [1; 32]).unwrap();
        let mut decoder = Decoder::tcp_or_sealed(4096, keys, [2; 32]);
        let answer = match decoder.decode(&mut Input::new(&mut opening)) {
            Ok(Some(Frame::Handshake(answer))) => answer,
            other => unreachable!("{other:?}"),
        };
        let stream = connector.finish(&answer.try_into().unwrap()).unwrap();
        (decoder, stream)
    }

    /// Takes so much at once, every other call nothing.
    struct Narrow {
        taken: BytesMut,
        at_once: usize,
        calls: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn push(bytes: usize) -> PushContent {
        let entry = Entry {
            sender: "x".repeat(bytes),
            seq: 1,
            ..Entry::default()
        };
        PushContent {
            kind: PushKind::Group,
            conversation: "g:1".into(),
            seq: 1,
            entry: entry.encode_to_vec().into(),
            trace: None,
        }
    }

    fn ping(id: u64) -> Packet {
        Packet {
            id,
            body: Some(Body::Ping(Ping {})),
        }
    }

    proptest! {
        #[test]
        fn frames_are_those_of_plain_tcp_however_the_socket_takes_them(
            steps in prop::collection::vec((0..2_u8, 0..40_000_usize), 1..40),
            at_once in 1..90_000_usize,
        ) {
            let (mut decoder, stream) = opened();
            let sealer = decoder.sealer().unwrap();
            let (mut pool, mut plain) = (OutputPool::default(), BytesMut::new());
            let mut output = pool.take();
            output.stage(b"an answer");
            let mut appended = output.bytes();
            let mut socket = Narrow { taken: BytesMut::new(), at_once, calls: 0 };
            let mut written = 0;
            for (number, (step, size)) in (1..).zip(steps) {
                let mut twin = pool.take();
                for output in [&mut output, &mut twin] {
                    match step {
                        0 => output.packet(Framing::Tcp, &ping(number), 100, &mut pool),
                        _ => output.push(Framing::Tcp, &push(size), number, 0, &mut pool),
                    };
                }
                appended += twin.bytes();
                while twin.bytes() > 0 {
                    twin.write_to(&mut (&mut plain).writer(), &mut pool).unwrap();
                }
                let wrote = output.write_sealed_to(sealer, &mut socket, &mut pool).unwrap();
                written += wrote.bytes;
                prop_assert_eq!(wrote.blocked, output.bytes() > 0);
                prop_assert!(output.staged.len() <= BATCH_BYTES + 41_000);
            }
            while output.bytes() > 0 {
                written += output.write_sealed_to(sealer, &mut socket, &mut pool).unwrap().bytes;
            }
            prop_assert_eq!(written, appended);
            let mut wire = socket.taken.split_off(b"an answer".len());
            prop_assert_eq!(&socket.taken[..], b"an answer");
            let mut opened = BytesMut::new();
            let mut codec = sluice_codec::PacketCodec::sealed(1 << 20, 1 << 20, stream);
            use tokio_util::codec::Decoder as _;
            while let Some(packet) = codec.decode(&mut wire).unwrap() {
                Framing::Tcp.append_packet(&packet, 1 << 20, &mut opened).unwrap();
            }
            prop_assert!(wire.is_empty());
            prop_assert_eq!(opened, plain);
        }
    }

    #[test]
    fn a_steady_stream_allocates_nothing() {
        let (mut decoder, _) = opened();
        let sealer = decoder.sealer().unwrap();
        let mut pool = OutputPool::default();
        let content = Arc::new(push(2_000));
        let mut turn = || {
            let mut output = pool.take();
            for number in 0..20 {
                output.push(Framing::Tcp, &content, number, 0, &mut pool);
                output.packet(Framing::Tcp, &ping(number), 100, &mut pool);
            }
            let wrote = output.write_sealed_to(sealer, &mut io::sink(), &mut pool);
            assert!(!wrote.unwrap().blocked && output.bytes() == 0);
            pool.give(output);
        };
        for _ in 0..100 {
            turn();
        }
        let allocated = allocation_counter::measure(|| (0..100).for_each(|_| turn()));
        assert_eq!(allocated.count_total, 0);
    }
}
