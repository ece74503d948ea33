//! Length-framed packets.

use sluice_codec::{Decoder, Frame, FrameError, Input};

use crate::events::{Event, events};

fn outcome(bytes: &[u8]) -> Vec<Event> {
    events(&mut Decoder::tcp(4096), [bytes])
}

fn refused(bytes: &[u8]) -> FrameError {
    match outcome(bytes).as_slice() {
        [Event::Error(error)] => error.clone(),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn foreign_and_absurd_lengths_have_errors_of_their_own() {
    assert_eq!(refused(b"GET / HTTP/1.1\r\n"), FrameError::LooksLikeHttp);
    assert_eq!(
        refused(b"OPTIONS * HTTP/1.1\r\n"),
        FrameError::LooksLikeHttp
    );
    assert_eq!(
        refused(b"\x16\x03\x01\x02\x00\x01"),
        FrameError::LooksLikeTls
    );
    assert_eq!(refused(&[0xff; 4]), FrameError::NegativeLength);
    assert_eq!(refused(&[0x80, 0, 0, 1]), FrameError::NegativeLength);
    assert_eq!(refused(&[0; 4]), FrameError::Empty);
}

#[test]
fn the_cap_is_inclusive_and_holds_before_the_body_comes() {
    let over = FrameError::TooLarge {
        bytes: 4097,
        max_bytes: 4096,
    };
    assert_eq!(refused(&[0, 0, 0x10, 1]), over);
    let mut largest = vec![0, 0, 0x10, 0];
    largest.extend([7; 4096]);
    assert_eq!(outcome(&largest), [Event::Packet(vec![7; 4096])]);
}

#[test]
fn http_and_tls_are_told_apart_under_the_highest_cap_too() {
    for hello in [*b"GET ", *b"\x16\x03\x01\x02"] {
        let found = events(&mut Decoder::tcp(usize::MAX), [hello.as_slice()]);
        assert!(matches!(
            found.as_slice(),
            [Event::Error(
                FrameError::LooksLikeHttp | FrameError::LooksLikeTls
            )]
        ));
    }
}

#[test]
fn the_cap_may_rise_between_two_frames_of_one_read() {
    let mut bytes = b"\0\0\0\x05login\0\0\x20\0".to_vec();
    bytes.extend([1; 0x2000]);
    let mut input = Input::new(&mut bytes);
    let mut decoder = Decoder::tcp(4096);
    assert_eq!(
        decoder.decode(&mut input),
        Ok(Some(Frame::Packet(b"login")))
    );
    decoder.set_frame_max_bytes(64 * 1024);
    assert_eq!(
        decoder.decode(&mut input),
        Ok(Some(Frame::Packet(&[1; 0x2000])))
    );
    assert_eq!(decoder.decode(&mut input), Ok(None));
}

#[test]
fn an_error_comes_once_and_the_rest_is_ignored() {
    let mut decoder = Decoder::tcp(4096);
    let found = events(
        &mut decoder,
        [b"\xff\xff\xff\xff\0\0".as_slice(), b"\0\x01x"],
    );
    assert_eq!(found, [Event::Error(FrameError::NegativeLength)]);
}

#[test]
fn only_peers_that_speak_http_get_an_http_answer() {
    let answer = FrameError::LooksLikeHttp.http_answer().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert!(FrameError::LooksLikeHttp.is_foreign());
    assert_eq!(FrameError::LooksLikeTls.http_answer(), None);
    assert!(!FrameError::Empty.is_foreign());
}
