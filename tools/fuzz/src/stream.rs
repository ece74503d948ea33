//! The decoders of streams: any bytes, however cut up.

use bytes::BytesMut;
use sluice_codec::{
    Decoder, Frame, FrameError, Input, PacketCodec,
    datagram::{ServerKey, ServerKeys},
    decode_packet,
    sealed_tcp::{SealedStream, StreamConnector},
};
use tokio_util::codec::Decoder as _;

use crate::script::Script;

const FRAME_MAX_BYTES: usize = 4096;
/// Held beside what arrived, for WebSocket.
const BOOKKEEPING_BYTES: usize = 256;

/// A handshake that is taken.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Sec-WebSocket-Protocol: sluice.v1\r\n\r\n";

/// A frame or an error, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Packet(Vec<u8>),
    Handshake(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Error(FrameError),
}

/// Plain TCP: the same, whole and in pieces.
pub(crate) fn tcp(input: &[u8]) {
    let mut script = Script::new(input);
    let piece_bytes = usize::from(script.byte()).max(1);
    let bytes = script.rest();
    let whole = events(&mut Decoder::tcp(FRAME_MAX_BYTES), [bytes]);
    let pieces = bytes.chunks(piece_bytes);
    assert_eq!(events(&mut Decoder::tcp(FRAME_MAX_BYTES), pieces), whole);
    for event in whole {
        match event {
            Event::Packet(payload) => drop(decode_packet(&payload)),
            Event::Error(error) => drop((error.label(), error.refusal(), error.http_answer())),
            other => panic!("{other:?} over TCP"),
        }
    }
}

/// WebSocket: from the handshake on, or behind it, with frames that are masked here.
pub(crate) fn websocket(input: &[u8]) {
    let mut script = Script::new(input);
    let piece_bytes = usize::from(script.byte()).max(1);
    let kind = script.byte() % 3;
    let bytes = match kind {
        2 => masked_frames(&mut script),
        _ => script.rest().to_vec(),
    };
    let decoder = || {
        let mut decoder = Decoder::websocket(FRAME_MAX_BYTES);
        if kind > 0 {
            let opened = events(&mut decoder, [REQUEST]);
            assert!(
                matches!(opened.as_slice(), [Event::Handshake(_)]),
                "{opened:?}"
            );
        }
        decoder
    };
    let whole = events(&mut decoder(), [&*bytes]);
    assert_eq!(events(&mut decoder(), bytes.chunks(piece_bytes)), whole);
    for event in whole {
        match event {
            Event::Ping(payload) => assert!(payload.len() <= 125),
            Event::Error(error) => drop((error.websocket_close_code(), error.http_answer())),
            _ => {}
        }
    }
}

/// Frames as a client would make them: head, length and payload by the script.
fn masked_frames(script: &mut Script<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !script.is_empty() {
        bytes.push(script.byte());
        let count = script.byte() % 126;
        bytes.push(0x80 | count);
        let mask = [count, 1, 2, 3];
        bytes.extend(mask);
        let payload = script.bytes(count.into());
        bytes.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
    }
    bytes
}

/// Encrypted TCP: bytes before it is known; frames that are damaged on the way to the
/// server, and to the client.
pub(crate) fn sealed_tcp(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.byte() % 3;
    let piece_bytes = usize::from(script.byte()).max(1);
    if kind == 0 {
        let bytes = script.rest();
        let whole = events(&mut server(), [bytes]);
        assert_eq!(events(&mut server(), bytes.chunks(piece_bytes)), whole);
        return;
    }
    let (mut decoder, mut stream) = opened();
    let payloads: Vec<Vec<u8>> = (0..script.byte() % 8)
        .map(|at| {
            let mut payload = vec![at; usize::from(script.byte())];
            // Packets without a body: field 1 and a number.
            payload.splice(..0, [8, at]);
            payload
        })
        .collect();
    let mut bytes = BytesMut::new();
    let mut ends = Vec::new();
    for payload in &payloads {
        match (kind, decoder.sealer()) {
            (2, Some(sealer)) => sealer.append_payload(payload, &mut bytes),
            _ => stream.sealer.append_payload(payload, &mut bytes),
        }
        ends.push(bytes.len());
    }
    let sent = bytes.to_vec();
    let mut bytes = sent.clone();
    script.damage(&mut bytes);
    let intact_bytes = sent.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
    let intact = ends.iter().filter(|end| **end <= intact_bytes).count();
    if kind == 1 {
        let came = events(&mut decoder, bytes.chunks(piece_bytes));
        let (errors, packets): (Vec<_>, Vec<_>) = came
            .into_iter()
            .partition(|event| matches!(event, Event::Error(_)));
        let expected = payloads.iter().take(intact).cloned().map(Event::Packet);
        assert_eq!(packets, expected.collect::<Vec<_>>());
        assert!(errors.len() <= 1);
    } else {
        let mut codec = PacketCodec::sealed(FRAME_MAX_BYTES, FRAME_MAX_BYTES, stream);
        let mut arrived = BytesMut::new();
        for piece in bytes.chunks(piece_bytes) {
            arrived.extend_from_slice(piece);
            if codec.decode(&mut arrived).is_err() {
                return;
            }
        }
        // What is not there whole waits.
        assert!(arrived.len() <= FRAME_MAX_BYTES + 32);
    }
}

fn server() -> Decoder {
    let keys = ServerKeys::new(
        vec![ServerKey::from_secret(std::array::from_fn(|at| at as u8))],
        "",
    );
    let ephemeral = std::array::from_fn(|at| 0x40 + at as u8);
    Decoder::tcp_or_sealed(FRAME_MAX_BYTES, keys.expect("one key"), ephemeral)
}

fn opened() -> (Decoder, SealedStream) {
    let pin = ServerKey::from_secret(std::array::from_fn(|at| at as u8)).pin();
    let begun = StreamConnector::begin(pin, std::array::from_fn(|at| 0x20 + at as u8));
    let (connector, opening) = begun.expect("a real pin");
    let mut decoder = server();
    let answer = match events(&mut decoder, [&*opening]).pop() {
        Some(Event::Handshake(answer)) => answer,
        other => panic!("no answer: {other:?}"),
    };
    let answer = answer.try_into().expect("an answer's length");
    (decoder, connector.finish(&answer).expect("an answer"))
}

/// Every event of these pieces. No more is held than promised, nothing between frames.
fn events<'p>(decoder: &mut Decoder, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Event> {
    let mut found = Vec::new();
    let mut arrived_bytes = 0;
    for piece in pieces {
        arrived_bytes += piece.len();
        let mut scratch = piece.to_vec();
        let mut input = Input::new(&mut scratch);
        loop {
            // Each event takes bytes.
            assert!(found.len() <= arrived_bytes);
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => found.push(Event::from(frame)),
                Ok(None) => break,
                Err(error) => {
                    assert!(decoder.is_finished());
                    found.push(Event::Error(error));
                }
            }
        }
        assert!(input.is_empty());
        assert!(decoder.held_bytes() <= 2 * arrived_bytes + BOOKKEEPING_BYTES);
    }
    found
}

// === impl Event ===

impl From<Frame<'_>> for Event {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Packet(payload) => Self::Packet(payload.to_vec()),
            Frame::Handshake(answer) => Self::Handshake(answer),
            Frame::Ping(payload) => Self::Ping(payload.to_vec()),
            Frame::Pong => Self::Pong,
            Frame::Close(code) => Self::Close(code),
        }
    }
}
