//! Frames from the server: unmasked, never fragmented.

use bytes::{BufMut, BytesMut};
use sluice_protocol::packet::CloseReason;

use super::{CONTROL_MAX_BYTES, Opcode};
use crate::FrameHeader;

/// The header of a whole message or control frame from the server.
pub fn encode_header(opcode: Opcode, payload_bytes: usize) -> FrameHeader {
    const FIN: u8 = 0x80;
    let first = FIN | opcode.bits();
    if let Ok(length @ 0..=125) = u8::try_from(payload_bytes) {
        return FrameHeader::new(&[first, length]);
    }
    if let Ok(length) = u16::try_from(payload_bytes) {
        let [high, low] = length.to_be_bytes();
        return FrameHeader::new(&[first, 126, high, low]);
    }
    let [a, b, c, d, e, f, g, h] = (payload_bytes as u64).to_be_bytes();
    FrameHeader::new(&[first, 127, a, b, c, d, e, f, g, h])
}

/// Answers [`crate::Frame::Ping`]; at most 125 bytes of payload are taken.
pub fn append_pong(ping_payload: &[u8], out: &mut BytesMut) {
    let (payload, _) = ping_payload.split_at(ping_payload.len().min(CONTROL_MAX_BYTES));
    out.put_slice(&encode_header(Opcode::Pong, payload.len()));
    out.put_slice(payload);
}

/// Ends the WebSocket. The reason is cut at 123 bytes, between two characters.
pub fn append_close(code: u16, reason: &str, out: &mut BytesMut) {
    let longest = reason.len().min(CONTROL_MAX_BYTES - 2);
    let end = (0..=longest).rev().find(|at| reason.is_char_boundary(*at));
    let (reason, _) = reason.split_at(end.unwrap_or(0));
    out.put_slice(&encode_header(Opcode::Close, 2 + reason.len()));
    out.put_u16(code);
    out.put_slice(reason.as_bytes());
}

/// The status code with which the gateway closes a WebSocket for this reason:
/// 1001 and 1011 where RFC 6455 has a word for it, else 4000 + the reason's
/// number, so that a client reads the reason even without the last packet.
/// Broken framing has codes of its own: [`crate::FrameError::websocket_close_code`].
pub fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::Unspecified => 1000,
        CloseReason::GoingAway => 1001,
        CloseReason::BadFrame => 1002,
        CloseReason::Internal => 1011,
        // Numbers are below 1000 by the proto file.
        other => 4000 + (other as u16),
    }
}
