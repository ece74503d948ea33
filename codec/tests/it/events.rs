//! Runs a decoder over pieces of bytes and writes down what it finds.

use sluice_codec::{Decoder, Frame, FrameError, Input};

/// A frame or an error, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Packet(Vec<u8>),
    Handshake(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Error(FrameError),
}

/// Every event of these pieces. Checks after each piece that no more is held
/// than promised, and nothing between two frames; there it is packed, and goes on
/// as what was unpacked.
pub(crate) fn events<'p>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<Event> {
    const BOOKKEEPING_BYTES: usize = 256;
    let mut found = Vec::new();
    let mut arrived_bytes = 0;
    for piece in pieces {
        arrived_bytes += piece.len();
        let mut scratch = piece.to_vec();
        let mut input = Input::new(&mut scratch);
        loop {
            // Each event takes bytes: a decoder that repeats itself ends here.
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
        assert_eq!(decoder.held_bytes() > 0, decoder.is_mid_frame());
        sleep(decoder);
    }
    found
}

fn sleep(decoder: &mut Decoder) {
    let (mut packed, told) = (vec![7], format!("{decoder:?}"));
    if !decoder.pack(&mut packed) {
        assert_eq!(packed, [7]);
        return;
    }
    assert!(!decoder.is_mid_frame() && !decoder.is_finished());
    for end in 1..packed.len() {
        assert!(Decoder::unpack(&mut &packed[1..end]).is_none());
    }
    *decoder = Decoder::unpack(&mut &packed[1..]).unwrap();
    assert_eq!(format!("{decoder:?}"), told);
}

/// A frame as a client sends it, the payload masked with this mask.
pub(crate) fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// A WebSocket decoder whose handshake is done.
pub(crate) fn opened(frame_max_bytes: usize) -> Decoder {
    let mut decoder = Decoder::websocket(frame_max_bytes);
    let answers = events(&mut decoder, [crate::handshake::REQUEST.as_bytes()]);
    assert!(
        matches!(answers.as_slice(), [Event::Handshake(_)]),
        "{answers:?}"
    );
    decoder
}

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
