//! Encrypted packets over TCP.

use bytes::BytesMut;
use proptest::prelude::*;
use sluice_codec::{
    Decoder, Frame, FrameError, Framing, Input, PacketCodec,
    datagram::{ServerKey, ServerKeys},
    encode_packet,
    sealed_tcp::{SealedError, SealedStream, StreamConnector, StreamSealer},
};
use sluice_protocol::packet::{Packet, Ping, packet::Body};
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::events::{Event, events};

const FRAME_MAX_BYTES: usize = 4096;

fn keys(secret: u8) -> ServerKeys {
    ServerKeys::new(vec![ServerKey::from_secret([secret; 32])], "").unwrap()
}

fn server() -> Decoder {
    Decoder::tcp_or_sealed(FRAME_MAX_BYTES, keys(7), [9; 32])
}

fn begin() -> (StreamConnector, Vec<u8>) {
    StreamConnector::begin(keys(7).pins().next().unwrap(), [1; 32]).unwrap()
}

/// Both sides behind the opening.
fn opened() -> (SealedStream, Decoder) {
    let (connector, opening) = begin();
    let mut decoder = server();
    let answer = handshake(&mut decoder, opening);
    let stream = connector.finish(&answer.try_into().unwrap()).unwrap();
    assert!(decoder.is_sealed());
    (stream, decoder)
}

fn handshake(decoder: &mut Decoder, mut opening: Vec<u8>) -> Vec<u8> {
    match decoder.decode(&mut Input::new(&mut opening)) {
        Ok(Some(Frame::Handshake(answer))) => answer,
        other => unreachable!("{other:?}"),
    }
}

fn frames(sealer: &mut StreamSealer, payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let frame = |payload: &&[u8]| {
        let mut out = BytesMut::new();
        sealer.append_payload(payload, &mut out);
        out.to_vec()
    };
    payloads.iter().map(frame).collect()
}

fn forged() -> Event {
    Event::Error(SealedError::Forged.into())
}

#[test]
fn packets_come_through_however_they_are_cut_up() {
    for piece_bytes in [1, 2, 3, 7, 20, 50, 1000] {
        let (connector, opening) = begin();
        let mut decoder = server();
        let mut answers = Vec::new();
        for piece in opening.chunks(piece_bytes) {
            answers.extend(events(&mut decoder, [piece]));
        }
        let answer = match answers.as_slice() {
            [Event::Handshake(answer)] => answer.clone(),
            other => unreachable!("{other:?}"),
        };
        let mut stream = connector.finish(&answer.try_into().unwrap()).unwrap();
        let long = vec![5; FRAME_MAX_BYTES];
        let sent = frames(&mut stream.sealer, &[b"one", &long, b"three"]).concat();
        let came = events(&mut decoder, sent.chunks(piece_bytes));
        let expected = [b"one".to_vec(), long, b"three".to_vec()].map(Event::Packet);
        assert_eq!(came, expected);
        assert!(!decoder.is_mid_frame());
    }
}

#[test]
fn the_sdk_speaks_it_in_both_directions() {
    let (stream, mut decoder) = opened();
    let mut codec = PacketCodec::sealed(FRAME_MAX_BYTES, FRAME_MAX_BYTES, stream);
    let packet = Packet {
        id: 3,
        body: Some(Body::Ping(Ping::default())),
    };
    let payload = encode_packet(&packet, FRAME_MAX_BYTES).unwrap();
    let mut sent = BytesMut::new();
    codec.encode(&packet, &mut sent).unwrap();
    codec.encode(&packet, &mut sent).unwrap();
    let plain_bytes = Framing::Tcp.frame_bytes(payload.len());
    assert_eq!(sent.len(), 2 * (plain_bytes + 16));
    let came = events(&mut decoder, [&sent[..]]);
    assert_eq!(came, vec![Event::Packet(payload.to_vec()); 2]);

    let mut back = BytesMut::new();
    let sealer = decoder.sealer().unwrap();
    sealer
        .append_packet(&packet, FRAME_MAX_BYTES, &mut back)
        .unwrap();
    let mut cut = back.split_to(back.len() - 1);
    assert_eq!(codec.decode(&mut cut).unwrap(), None);
    cut.unsplit(back);
    assert_eq!(codec.decode(&mut cut).unwrap(), Some(packet));
    assert!(cut.is_empty());
}

#[test]
fn whole_frames_are_lent_from_the_input() {
    let (mut stream, mut decoder) = opened();
    let mut sent = frames(&mut stream.sealer, &[b"one"]).concat();
    let whole = sent.as_ptr_range();
    match decoder.decode(&mut Input::new(&mut sent)) {
        Ok(Some(Frame::Packet(payload))) => {
            assert!(payload == b"one" && whole.contains(&payload.as_ptr()));
        }
        other => unreachable!("{other:?}"),
    }
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn no_frame_can_be_changed_repeated_moved_or_left_out() {
    let sealed = || {
        let (mut stream, decoder) = opened();
        (frames(&mut stream.sealer, &[b"one", b"two"]), decoder)
    };
    let (sent, _) = sealed();
    for at in 4..sent[0].len() {
        let (mut sent, mut decoder) = sealed();
        sent[0][at] ^= 1;
        assert_eq!(events(&mut decoder, [&sent[0][..]]), [forged()]);
    }
    let (sent, mut decoder) = sealed();
    assert_eq!(events(&mut decoder, [&sent[1][..], &sent[0]]), [forged()]);
    let (sent, mut decoder) = sealed();
    let came = events(&mut decoder, [&sent[0][..], &sent[0]]);
    assert_eq!(came, [Event::Packet(b"one".to_vec()), forged()]);
    // A frame without a tag, and one without a packet.
    for length in [1, 15, 16] {
        let (_, mut decoder) = sealed();
        let came = events(&mut decoder, [&[0, 0, 0, length][..], &[0; 16]]);
        assert_eq!(came, [Event::Error(FrameError::Empty)]);
    }
    let (_, mut decoder) = sealed();
    let over = (FRAME_MAX_BYTES as u32 + 17).to_be_bytes();
    assert!(matches!(
        events(&mut decoder, [&over[..]]).as_slice(),
        [Event::Error(FrameError::TooLarge { .. })]
    ));
    // Nothing more comes of it, but last words can be sealed.
    assert!(decoder.is_finished() && decoder.held_bytes() == 0);
    assert_eq!(events(&mut decoder, [&over[..]]), []);
    assert!(decoder.sealer().is_some());
}

#[test]
fn no_byte_of_the_opening_or_its_answer_can_be_changed() {
    let (_, opening) = begin();
    for at in 1..opening.len() {
        let mut changed = opening.clone();
        changed[at] ^= 0x40;
        let expected = if at < 4 {
            SealedError::Opening
        } else {
            SealedError::Key
        };
        assert_eq!(
            events(&mut server(), [&changed[..]]),
            [Event::Error(expected.into())],
            "{at}"
        );
    }
    let answer = handshake(&mut server(), opening);
    for at in 0..answer.len() {
        let mut changed = answer.clone();
        changed[at] ^= 0x40;
        assert!(
            begin().0.finish(&changed.try_into().unwrap()).is_err(),
            "{at}"
        );
    }
}

#[test]
fn an_opening_replayed_opens_nothing_that_was_sent_behind_it() {
    let (connector, opening) = begin();
    let mut decoder = server();
    let answer = handshake(&mut decoder, opening.clone());
    let mut stream = connector.finish(&answer.try_into().unwrap()).unwrap();
    let login = frames(&mut stream.sealer, &[b"login"]).concat();
    // Each connection has another ephemeral key.
    let mut again = Decoder::tcp_or_sealed(FRAME_MAX_BYTES, keys(7), [10; 32]);
    handshake(&mut again, opening);
    assert_eq!(events(&mut again, [&login[..]]), [forged()]);
    assert_eq!(
        events(&mut decoder, [&login[..]]),
        [Event::Packet(b"login".to_vec())]
    );
}

#[test]
fn a_server_without_the_key_closes() {
    let (_, opening) = begin();
    let mut other = Decoder::tcp_or_sealed(FRAME_MAX_BYTES, keys(8), [9; 32]);
    let refused = FrameError::Sealed(SealedError::Key);
    assert_eq!(
        events(&mut other, [&opening[..]]),
        [Event::Error(refused.clone())]
    );
    // An error packet would be noise to the peer.
    assert!(refused.is_foreign() && refused.http_answer().is_none());
}

#[test]
fn an_opening_that_comes_slowly_is_under_a_deadline() {
    let (_, opening) = begin();
    let mut decoder = server();
    assert!(!decoder.is_mid_frame());
    events(&mut decoder, [&opening[..1]]);
    assert!(decoder.is_mid_frame() && decoder.held_bytes() <= 256);
}

proptest! {
    #[test]
    fn plain_connections_are_what_they_were(
        first in 0u8..0xf0,
        rest in prop::collection::vec(any::<u8>(), 0..200),
        piece_bytes in 1usize..50,
    ) {
        let mut bytes = vec![first];
        if first < 0x40 {
            bytes = vec![0, 0, 0, first];
        }
        bytes.extend(rest);
        let plain = events(&mut Decoder::tcp(FRAME_MAX_BYTES), bytes.chunks(piece_bytes));
        prop_assert_eq!(events(&mut server(), bytes.chunks(piece_bytes)), plain);
    }

    #[test]
    fn any_bytes_behind_an_opening_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        piece_bytes in 1usize..50,
    ) {
        let (_, mut decoder) = opened();
        let came = events(&mut decoder, bytes.chunks(piece_bytes));
        prop_assert!(came.iter().all(|event| matches!(event, Event::Error(_))));
        prop_assert!(came.len() <= 1 && decoder.held_bytes() <= 2 * bytes.len());
    }
}
