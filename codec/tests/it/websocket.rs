//! Frames of an open WebSocket.

use bytes::BytesMut;
use sluice_codec::{
    FrameError, Framing,
    websocket::{Opcode, Violation, append_close, append_pong, close_code, encode_header},
};
use sluice_protocol::packet::CloseReason;

use crate::events::{Event, events, masked, opened};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn outcome(bytes: &[u8]) -> Vec<Event> {
    events(&mut opened(4096), [bytes])
}

fn refused(bytes: &[u8]) -> FrameError {
    match outcome(bytes).as_slice() {
        [Event::Error(error)] => error.clone(),
        other => unreachable!("{other:?}"),
    }
}

fn packet(payload: &[u8]) -> Event {
    Event::Packet(payload.to_vec())
}

/// The examples of RFC 6455, section 5.7, byte for byte.
#[test]
fn rfc_examples() {
    // "A single-frame unmasked text message": unmasked and text, both refused here.
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(refused(&hello), FrameError::Text);
    // "A single-frame masked text message", and as a binary one.
    let mut hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(refused(&hello), FrameError::Text);
    hello[0] = 0x82;
    assert_eq!(outcome(&hello), [packet(b"Hello")]);
    // "Unmasked Ping request and masked Ping response".
    let pong = [
        0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(outcome(&pong), [Event::Pong]);
    let mut answer = BytesMut::new();
    append_pong(b"Hello", &mut answer);
    assert_eq!(&answer[..], [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    // "256 bytes binary message in a single unmasked frame" and "64KiB …".
    assert_eq!(
        &Framing::WebSocket.header(256)[..],
        [0x82, 0x7e, 0x01, 0x00]
    );
    let header = [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(&Framing::WebSocket.header(65536)[..], header);
}

#[test]
fn headers_use_the_shortest_length() {
    assert_eq!(&encode_header(Opcode::Binary, 0)[..], [0x82, 0]);
    assert_eq!(&encode_header(Opcode::Ping, 125)[..], [0x89, 125]);
    assert_eq!(&encode_header(Opcode::Binary, 126)[..], [0x82, 126, 0, 126]);
    assert_eq!(
        &encode_header(Opcode::Binary, 0xffff)[..],
        [0x82, 126, 0xff, 0xff]
    );
    assert_eq!(Framing::WebSocket.frame_bytes(126), 130);
}

#[test]
fn fragments_become_one_message_with_control_frames_in_between() {
    let bytes = [
        masked(0x02, MASK, b"one "),
        masked(0x89, MASK, b"ping"),
        masked(0x00, [0; 4], b""),
        masked(0x8a, MASK, b"pong"),
        masked(0x00, [9; 4], b"packet "),
        masked(0x80, MASK, b"in all"),
        masked(0x82, MASK, b"next"),
        masked(0x88, MASK, &[0x03, 0xe8]),
        masked(0x82, MASK, b"after the close"),
    ]
    .concat();
    let expected = [
        Event::Ping(b"ping".to_vec()),
        Event::Pong,
        packet(b"one packet in all"),
        packet(b"next"),
        Event::Close(Some(1000)),
    ];
    assert_eq!(outcome(&bytes), expected);
    for size in 1..9 {
        let found = events(&mut opened(4096), bytes.chunks(size));
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

#[test]
fn broken_rules_are_named() {
    use Violation as V;
    let long_ping = masked(0x89, MASK, &[0; 126]);
    let cases: [(&[u8], Violation); 15] = [
        (&[0xc2], V::ReservedBits),
        (&[0xa2], V::ReservedBits),
        (&[0x92], V::ReservedBits),
        (&[0x83], V::ReservedOpcode(3)),
        (&[0x8b], V::ReservedOpcode(11)),
        (&[0x82, 0x05], V::Unmasked),
        (&[0x89, 0x00], V::Unmasked),
        (&[0x09], V::FragmentedControl),
        (&[0x08], V::FragmentedControl),
        (&long_ping, V::LongControl),
        (&[0x80], V::NothingToContinue),
        (&[0x82, 0xfe, 0x00, 0x7d], V::LengthNotMinimal),
        (
            &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            V::LengthNotMinimal,
        ),
        (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], V::NegativeLength),
        (&[0x02, 0x80, 1, 2, 3, 4, 0x82], V::MessageUnfinished),
    ];
    for (bytes, violation) in cases {
        let error = refused(bytes);
        assert_eq!(error, FrameError::WebSocket(violation));
        assert_eq!(error.websocket_close_code(), 1002);
        assert_eq!(error.close_reason(), CloseReason::BadFrame);
    }
}

#[test]
fn close_frames_are_checked() {
    let closed = |payload: &[u8]| outcome(&masked(0x88, MASK, payload));
    assert_eq!(closed(b""), [Event::Close(None)]);
    assert_eq!(closed(b"\x0f\xa1bye"), [Event::Close(Some(4001))]);
    for payload in [
        b"\x03".as_slice(),
        &[0, 0],
        &[0x03, 0xed],
        &[0x03, 0xf7],
        &[0x13, 0x88],
    ] {
        assert_eq!(closed(payload), [Event::Error(Violation::CloseCode.into())]);
    }
    let error = FrameError::from(Violation::CloseReasonNotUtf8);
    assert_eq!(error.websocket_close_code(), 1007);
    assert_eq!(closed(b"\x03\xe8\xff"), [Event::Error(error)]);
}

#[test]
fn the_cap_holds_for_frames_and_for_messages() {
    let frame = &masked(0x82, MASK, &[0; 4097])[..8];
    let error = refused(frame);
    assert_eq!(
        error,
        FrameError::TooLarge {
            bytes: 4097,
            max_bytes: 4096
        }
    );
    assert_eq!(error.websocket_close_code(), 1009);

    let message = [masked(0x02, MASK, &[0; 4000]), masked(0x00, MASK, &[0; 97])].concat();
    assert_eq!(refused(&message), error);
    let message = [masked(0x02, MASK, &[5; 4000]), masked(0x80, MASK, &[5; 96])].concat();
    assert_eq!(outcome(&message), [packet(&[5; 4096])]);

    let huge = [
        0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let huge = [masked(0x02, MASK, b"x"), huge.to_vec()].concat();
    assert_eq!(
        refused(&huge),
        FrameError::WebSocket(Violation::MessageUnfinished)
    );
}

#[test]
fn text_and_empty_messages_are_refused() {
    let error = refused(&masked(0x81, MASK, b"{}"));
    assert_eq!(
        (error.clone(), error.websocket_close_code()),
        (FrameError::Text, 1003)
    );
    assert_eq!(refused(&masked(0x82, MASK, b"")), FrameError::Empty);
    let fragments = [masked(0x02, MASK, b""), masked(0x80, MASK, b"")].concat();
    assert_eq!(refused(&fragments), FrameError::Empty);
}

#[test]
fn a_close_frame_is_cut_between_characters() {
    let mut out = BytesMut::new();
    append_close(1001, &"é".repeat(100), &mut out);
    assert_eq!(out.len(), 2 + 2 + 122);
    assert_eq!(out[..4], [0x88, 124, 0x03, 0xe9]);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
}

#[test]
fn every_close_reason_has_a_code_that_may_travel() {
    let reasons = (0..64).filter_map(|number| CloseReason::try_from(number).ok());
    for reason in reasons {
        let code = close_code(reason);
        let frame = masked(0x88, MASK, &code.to_be_bytes());
        assert_eq!(outcome(&frame), [Event::Close(Some(code))], "{reason:?}");
    }
    assert_eq!(close_code(CloseReason::Replaced), 4001);
}
