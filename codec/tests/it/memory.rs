//! What a connection costs.

use sluice_codec::{Decoder, Frame, Framing, Input};

use crate::events::{events, masked, opened};

fn lies_in(part: &[u8], whole: std::ops::Range<*const u8>) -> bool {
    whole.contains(&part.as_ptr())
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 40, "{}", size_of::<Decoder>());
}

#[test]
fn whole_frames_are_lent_from_the_input() {
    let tcp = b"\0\0\0\x03abc\0\0\0\x02de".to_vec();
    let websocket = [
        masked(0x82, [1, 2, 3, 4], b"abc"),
        masked(0x82, [5; 4], b"de"),
    ]
    .concat();
    for (mut decoder, mut scratch) in [(Decoder::tcp(64), tcp), (opened(64), websocket)] {
        let whole = scratch.as_ptr_range();
        let mut input = Input::new(&mut scratch);
        for expected in [b"abc".as_slice(), b"de"] {
            match decoder.decode(&mut input) {
                Ok(Some(Frame::Packet(payload))) => {
                    assert_eq!(payload, expected);
                    assert!(lies_in(payload, whole.clone()));
                }
                other => unreachable!("{other:?}"),
            }
            assert_eq!(decoder.held_bytes(), 0);
        }
    }
}

#[test]
fn a_promised_length_allocates_nothing() {
    let mut tcp = Decoder::tcp(64 * 1024);
    events(&mut tcp, [[0, 0, 0xff, 0xff].as_slice(), &[1]]);
    assert!(tcp.is_mid_frame() && tcp.held_bytes() <= 8);

    let mut websocket = opened(64 * 1024);
    events(&mut websocket, [&masked(0x82, [0; 4], &[1; 0x8000])[..9]]);
    assert!(websocket.is_mid_frame() && websocket.held_bytes() <= 256);
}

#[test]
fn trickled_frames_hold_at_most_twice_their_bytes_and_never_more_than_the_whole() {
    let payload = vec![9; 60_000];
    let mut frame = Framing::Tcp.header(payload.len()).to_vec();
    frame.extend(&payload);
    let mut decoder = Decoder::tcp(64 * 1024);
    for (at, byte) in frame.iter().enumerate() {
        let mut scratch = [*byte];
        let mut input = Input::new(&mut scratch);
        while let Some(frame) = decoder.decode(&mut input).unwrap() {
            assert_eq!(frame, Frame::Packet(&payload));
        }
        assert!(decoder.held_bytes() <= (2 * (at + 1)).min(frame.len()));
    }
    assert_eq!(decoder.held_bytes(), 0);
}
