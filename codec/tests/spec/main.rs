//! Holds SPEC.md against this crate: its WebSocket examples, its close codes, its
//! datagrams and what it says of broken frames.

mod datagram;
mod frames;

use std::{collections::BTreeMap, fs};

use bytes::BytesMut;
use sluice_codec::{Decoder, Frame, FrameError, Framing, Input, decode_packet, websocket};
use sluice_protocol::packet::{CloseReason, ErrorCode};

const FRAME_MAX_BYTES: usize = 4096;

/// A fenced block: the words of its first line by key, and its lines.
struct Block {
    keys: BTreeMap<String, String>,
    body: String,
}

fn spec() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/SPEC.md");
    fs::read_to_string(path).expect("SPEC.md lies in the protocol's folder")
}

fn blocks(text: &str, language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut words = info.split_whitespace();
        if words.next() == Some(language) {
            let pairs = words.filter_map(|word| word.split_once('='));
            blocks.push(Block {
                keys: pairs.map(|(k, v)| (k.into(), v.into())).collect(),
                body: body.join("\n"),
            });
        }
    }
    blocks
}

impl Block {
    fn bytes(&self) -> Vec<u8> {
        let hex = self.body.lines().filter_map(|line| line.split('#').next());
        hex.flat_map(str::split_whitespace)
            .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
            .collect()
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.keys.get(key).is_some_and(|it| it == value)
    }

    /// With the line ends of HTTP; the block's last line is the empty one.
    fn http(&self) -> String {
        self.body.replace('\n', "\r\n") + "\r\n"
    }
}

/// The example packet of this name, without the length of its TCP frame.
fn payload(blocks: &[Block], name: &str) -> Vec<u8> {
    let block = blocks.iter().find(|block| block.is("name", name));
    let frame = block.expect("an example of this name").bytes();
    let (length, payload) = frame.split_first_chunk().expect("a TCP frame");
    assert_eq!(
        u32::from_be_bytes(*length) as usize,
        payload.len(),
        "{name}"
    );
    payload.to_vec()
}

/// A decoder behind the handshake of SPEC.md.
fn open_decoder(text: &str) -> Decoder {
    let http = blocks(text, "http");
    let find = |ws| http.iter().find(|block| block.is("ws", ws));
    let request = find("request").expect("an example request").http();
    let answer = find("answer").expect("an example answer").http();
    let mut decoder = Decoder::websocket(FRAME_MAX_BYTES);
    let mut bytes = request.into_bytes();
    match decoder.decode(&mut Input::new(&mut bytes)) {
        Ok(Some(Frame::Handshake(given))) => assert_eq!(String::from_utf8(given), Ok(answer)),
        other => panic!("no answer to the handshake: {other:?}"),
    }
    decoder
}

#[test]
fn websocket_frames_are_those_of_the_codec() {
    let text = spec();
    let blocks = blocks(&text, "hex");
    let mut seen = BTreeMap::<&str, usize>::new();
    for block in &blocks {
        let (Some(side), Some(name)) = (block.keys.get("ws"), block.keys.get("of")) else {
            continue;
        };
        *seen.entry(side).or_default() += 1;
        let payload = payload(&blocks, name);
        let packet = decode_packet(&payload).expect("an example packet");
        let mut bytes = block.bytes();
        if side == "client" {
            let mut decoder = open_decoder(&text);
            let mut input = Input::new(&mut bytes);
            assert_eq!(
                decoder.decode(&mut input),
                Ok(Some(Frame::Packet(&payload)))
            );
        } else {
            let mut out = BytesMut::new();
            let appended = Framing::WebSocket.append_packet(&packet, FRAME_MAX_BYTES, &mut out);
            assert_eq!(appended, Ok(()));
            assert_eq!(bytes, out, "{name}");
        }
    }
    assert!(seen["client"] >= 2 && seen["server"] >= 2);
}

#[test]
fn control_frames_are_those_of_the_codec() {
    let text = spec();
    let blocks = blocks(&text, "hex");
    let control = |kind: &str| {
        let block = blocks.iter().find(|block| block.is("control", kind));
        block.expect("an example of this control frame").bytes()
    };
    let mut decoder = open_decoder(&text);
    let mut ping = control("ping");
    assert_eq!(
        decoder.decode(&mut Input::new(&mut ping)),
        Ok(Some(Frame::Ping(b"Hello")))
    );
    let mut out = BytesMut::new();
    websocket::append_pong(b"Hello", &mut out);
    assert_eq!(control("pong"), out);
    let mut close = control("close");
    assert_eq!(
        decoder.decode(&mut Input::new(&mut close)),
        Ok(Some(Frame::Close(Some(1000))))
    );
    let mut out = BytesMut::new();
    let code = websocket::close_code(CloseReason::TokenExpired);
    websocket::append_close(code, "token_expired", &mut out);
    assert_eq!(control("closed"), out);
}

#[test]
fn close_codes_are_those_of_the_codec() {
    let text = spec();
    let from = text.find("### 2.3 Close codes").expect("the chapter");
    let chapter = text[from..]
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('#'));
    let told: BTreeMap<&str, u16> = chapter
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let reason = cells.next()?.split('`').nth(1)?;
            Some((reason, cells.next()?.parse().ok()?))
        })
        .collect();
    let reasons = (0..64).filter_map(|number| CloseReason::try_from(number).ok());
    let coded = reasons.map(|reason| (reason.as_str_name(), websocket::close_code(reason)));
    assert_eq!(told, coded.collect(), "left: SPEC.md");
}

#[test]
fn broken_frames_are_answered_as_the_spec_says() {
    let cases: [(&[u8], ErrorCode, bool); 6] = [
        (&[0, 0, 0, 0], ErrorCode::BadFrame, false),
        (&[0, 0, 0x10, 1], ErrorCode::TooLarge, false),
        (&[0xff, 0, 0, 0], ErrorCode::BadFrame, false),
        (b"GET ", ErrorCode::BadFrame, true),
        (b"PRI ", ErrorCode::BadFrame, true),
        (&[0x16, 3, 1, 0], ErrorCode::BadFrame, false),
    ];
    for (bytes, code, in_http) in cases {
        let mut bytes = bytes.to_vec();
        let mut decoder = Decoder::tcp(FRAME_MAX_BYTES);
        let error = decoder
            .decode(&mut Input::new(&mut bytes))
            .expect_err("no frame begins like this");
        assert_eq!(error.error_code(), code, "{error}");
        assert_eq!(error.close_reason(), CloseReason::BadFrame, "{error}");
        assert_eq!(error.http_answer().is_some(), in_http, "{error}");
    }
    let too_large = FrameError::TooLarge {
        bytes: 9,
        max_bytes: 8,
    };
    assert_eq!(too_large.websocket_close_code(), 1009);
    assert_eq!(FrameError::Text.websocket_close_code(), 1003);
}
