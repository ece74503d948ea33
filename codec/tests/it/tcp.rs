//! Length-framed packets.

use sluice_codec::{Decoder, Frame, FrameError, Input};

/// Everything a decoder finds when the bytes come in these pieces.
fn outcome(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut packets = Vec::new();
    for piece in pieces {
        let mut scratch = piece.to_vec();
        let mut input = Input::new(&mut scratch);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Frame::Packet(payload))) => packets.push(payload.to_vec()),
                Ok(Some(other)) => unreachable!("{other:?} over TCP"),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

fn refused(bytes: &[u8]) -> Option<FrameError> {
    outcome(Decoder::tcp(4096), &[bytes]).1
}

#[test]
fn foreign_and_absurd_lengths_have_errors_of_their_own() {
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\n"),
        Some(FrameError::LooksLikeHttp)
    );
    assert_eq!(
        refused(b"\x16\x03\x01\x02\x00\x01"),
        Some(FrameError::LooksLikeTls)
    );
    assert_eq!(refused(&[0xff; 4]), Some(FrameError::NegativeLength));
    assert_eq!(refused(&[0; 4]), Some(FrameError::Empty));
    assert_eq!(
        refused(&[0, 0, 0x10, 1]),
        Some(FrameError::TooLarge {
            bytes: 4097,
            max_bytes: 4096
        })
    );
    assert_eq!(refused(&[0, 0, 0x10, 0]), None);
}

#[test]
fn an_error_comes_once_and_the_rest_is_ignored() {
    let mut decoder = Decoder::tcp(4096);
    let mut bytes = *b"\xff\xff\xff\xff\0\0\0\x01x";
    let mut input = Input::new(&mut bytes);
    assert_eq!(decoder.decode(&mut input), Err(FrameError::NegativeLength));
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert!(input.is_empty() && decoder.is_finished() && !decoder.is_mid_frame());
}
