//! Frames a turn of the event loop: what one read brings, decoded and encoded.
//!
//! `cargo bench -p sluice-benches --bench codec`

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice_codec::{Decoder, Frame, Framing, Input, decode_packet, encode_packet};
use sluice_protocol::{
    limits::FRAME_MAX_BYTES,
    packet::{ContentType, DeliveryClass, Packet, Send, packet::Body, send::Target},
};

/// Requests that a pipelining client has in flight.
const FRAMES: usize = 16;

fn send() -> Packet {
    let send = Send {
        delivery_class: DeliveryClass::Durable.into(),
        target: Some(Target::ToUser("bob".into())),
        client_msg_id: Bytes::from_static(&[7; 16]),
        predecessor: Bytes::new(),
        content_type: ContentType::Text.into(),
        body: Bytes::from_static(b"what a message in a chat is like"),
    };
    Packet {
        id: 1,
        body: Some(Body::Send(send)),
    }
}

/// A handshake and then masked frames, as a client sends them; the mask is one
/// that changes nothing, so that the same bytes can be unmasked for ever.
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: sluice.v1\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn frames(framing: Framing) -> Vec<u8> {
    let payload = encode_packet(&send(), FRAME_MAX_BYTES).unwrap_or_default();
    let mut header = framing.header(payload.len()).to_vec();
    if framing == Framing::WebSocket {
        header[1] |= 0x80;
        header.extend([0; 4]);
    }
    [&header, &payload[..]].concat().repeat(FRAMES)
}

fn decoder(framing: Framing) -> Decoder {
    match framing {
        Framing::Tcp => Decoder::tcp(FRAME_MAX_BYTES),
        Framing::WebSocket => {
            let mut decoder = Decoder::websocket(FRAME_MAX_BYTES);
            let mut request = HANDSHAKE.to_vec();
            let mut input = Input::new(&mut request);
            let answer = decoder.decode(&mut input);
            assert!(matches!(answer, Ok(Some(Frame::Handshake(_)))));
            decoder
        }
    }
}

/// Feeds bytes and counts the packets, each given to `each`.
fn drain(decoder: &mut Decoder, bytes: &mut [u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut input = Input::new(bytes);
    let mut packets = 0;
    while let Ok(Some(Frame::Packet(payload))) = decoder.decode(&mut input) {
        each(payload);
        packets += 1;
    }
    packets
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_16_frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for framing in [Framing::Tcp, Framing::WebSocket] {
        let mut bytes = frames(framing);
        let mut decoder = decoder(framing);
        assert_eq!(drain(&mut decoder, &mut bytes, |_| {}), FRAMES);
        group.bench_function(format!("{framing:?}/frames"), |bench| {
            bench.iter(|| drain(&mut decoder, &mut bytes, |payload| _ = black_box(payload)));
        });
        group.bench_function(format!("{framing:?}/packets"), |bench| {
            bench.iter(|| {
                drain(&mut decoder, &mut bytes, |payload| {
                    _ = black_box(decode_packet(payload));
                })
            });
        });
        // The read ends inside the last frame: its rest is kept and completed.
        let cut = bytes.len() - 20;
        let (first, second) = bytes.split_at_mut(cut);
        group.bench_function(format!("{framing:?}/cut"), |bench| {
            bench.iter(|| {
                drain(&mut decoder, first, |payload| _ = black_box(payload))
                    + drain(&mut decoder, second, |payload| _ = black_box(payload))
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_16_frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let packet = send();
    for framing in [Framing::Tcp, Framing::WebSocket] {
        group.bench_function(format!("{framing:?}/append"), |bench| {
            bench.iter_batched_ref(
                || BytesMut::with_capacity(FRAMES * 128),
                |out| {
                    for _ in 0..FRAMES {
                        let appended = framing.append_packet(&packet, FRAME_MAX_BYTES, out);
                        debug_assert!(appended.is_ok());
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
