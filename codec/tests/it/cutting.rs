//! Whatever the bytes and however they are cut up: no panic, the same frames
//! and the same error.

use proptest::prelude::*;
use sluice_codec::{Decoder, Framing};

use crate::{
    events::{Event, events, masked, opened},
    handshake::REQUEST,
};

const MAX_BYTES: usize = 300;

/// Cuts at these places, each given as a share of the length.
fn cut<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in at.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..24)
}

/// Some bytes of a stream overwritten.
fn damaged(stream: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (stream, damage).prop_map(|(mut bytes, damage)| {
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..MAX_BYTES)
}

fn tcp_stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(payload(), 0..6).prop_map(|payloads| {
        let frame = |payload: Vec<u8>| [&Framing::Tcp.header(payload.len())[..], &payload].concat();
        payloads.into_iter().flat_map(frame).collect()
    })
}

/// One step of a valid WebSocket conversation: its frames and what they mean.
fn step() -> impl Strategy<Value = (Vec<u8>, Vec<Event>)> {
    let control = || {
        let payload = prop::collection::vec(any::<u8>(), 0..=125);
        (any::<bool>(), any::<[u8; 4]>(), payload).prop_map(|(ping, mask, payload)| match ping {
            true => (masked(0x89, mask, &payload), Event::Ping(payload)),
            false => (masked(0x8a, mask, &payload), Event::Pong),
        })
    };
    let fragment = (any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..70));
    let with_control = (fragment, prop::option::weighted(0.3, control()));
    (
        payload(),
        any::<[u8; 4]>(),
        prop::collection::vec(with_control, 0..4),
    )
        .prop_map(|(mut message, mask, rest)| {
            let last = rest.len();
            let first = if last == 0 { 0x82 } else { 0x02 };
            message.truncate(MAX_BYTES / 4);
            let (mut bytes, mut found) = (masked(first, mask, &message), Vec::new());
            for (at, ((mask, fragment), control)) in rest.into_iter().enumerate() {
                if let Some((frame, event)) = control {
                    bytes.extend(frame);
                    found.push(event);
                }
                let first = if at + 1 == last { 0x80 } else { 0x00 };
                bytes.extend(masked(first, mask, &fragment));
                message.extend(fragment);
            }
            found.push(Event::Packet(message));
            (bytes, found)
        })
}

fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Event>)> {
    prop::collection::vec(step(), 0..5).prop_map(|steps| {
        let (bytes, found): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        (bytes.concat(), found.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_over_tcp(bytes: Vec<u8>, cuts in cuts()) {
        let whole = events(&mut Decoder::tcp(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut Decoder::tcp(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn damaged_frames_over_tcp(bytes in damaged(tcp_stream()), cuts in cuts()) {
        let whole = events(&mut Decoder::tcp(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut Decoder::tcp(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn tcp_round_trips(payloads in prop::collection::vec(payload(), 0..6), cuts in cuts()) {
        let frame = |payload: &Vec<u8>| [&Framing::Tcp.header(payload.len())[..], payload].concat();
        let bytes: Vec<u8> = payloads.iter().flat_map(frame).collect();
        let found = events(&mut Decoder::tcp(MAX_BYTES), cut(&bytes, &cuts));
        let expected: Vec<_> = payloads.into_iter().map(Event::Packet).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn arbitrary_bytes_as_a_handshake(bytes: Vec<u8>, cuts in cuts()) {
        let whole = events(&mut Decoder::websocket(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut Decoder::websocket(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn damaged_handshakes_with_frames_behind(
        request in damaged(Just(REQUEST.as_bytes().to_vec())),
        (frames, _) in conversation(),
        cuts in cuts(),
    ) {
        let bytes = [request, frames].concat();
        let whole = events(&mut Decoder::websocket(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut Decoder::websocket(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn arbitrary_bytes_over_an_open_websocket(bytes: Vec<u8>, cuts in cuts()) {
        let whole = events(&mut opened(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut opened(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn a_valid_conversation_means_the_same_however_cut(
        (bytes, expected) in conversation(),
        cuts in cuts(),
    ) {
        prop_assert_eq!(&events(&mut opened(MAX_BYTES), [bytes.as_slice()]), &expected);
        prop_assert_eq!(events(&mut opened(MAX_BYTES), cut(&bytes, &cuts)), expected);
    }

    #[test]
    fn a_damaged_conversation_fails_the_same_however_cut(
        bytes in damaged(conversation().prop_map(|(bytes, _)| bytes)),
        cuts in cuts(),
    ) {
        let whole = events(&mut opened(MAX_BYTES), [bytes.as_slice()]);
        prop_assert_eq!(events(&mut opened(MAX_BYTES), cut(&bytes, &cuts)), whole);
    }
}
