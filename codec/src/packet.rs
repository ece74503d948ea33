//! One packet ⇄ its bytes.

use bytes::Bytes;
use prost::Message;
use sluice_protocol::packet::Packet;

use crate::{EncodeError, FrameError};

/// Decodes the payload of a frame; `bytes` fields are copied out of it.
///
/// # Errors
/// [`FrameError::Empty`]; [`FrameError::BadPacket`] when it isn't protobuf or
/// nests more than 100 deep; [`FrameError::UnknownPacket`] when the body is
/// missing or of a type that this version doesn't know.
pub fn decode_packet(payload: &[u8]) -> Result<Packet, FrameError> {
    checked(payload.len(), Packet::decode(payload))
}

/// As [`decode_packet`], but `bytes` fields share the payload's memory: none is
/// copied, and the whole frame stays in memory as long as one of them.
///
/// # Errors
/// As [`decode_packet`].
pub fn decode_packet_bytes(payload: Bytes) -> Result<Packet, FrameError> {
    checked(payload.len(), Packet::decode(payload))
}

/// Encodes a packet once, to be shared by all connections that it goes to.
///
/// # Errors
/// Over `frame_max_bytes`, or without a body.
pub fn encode_packet(packet: &Packet, frame_max_bytes: usize) -> Result<Bytes, EncodeError> {
    checked_bytes(packet, frame_max_bytes)?;
    Ok(packet.encode_to_vec().into())
}

/// The encoded size of a packet that may be sent.
pub(crate) fn checked_bytes(packet: &Packet, max_bytes: usize) -> Result<usize, EncodeError> {
    if packet.body.is_none() {
        return Err(EncodeError::NoBody);
    }
    let bytes = packet.encoded_len();
    if bytes > max_bytes {
        return Err(EncodeError::TooLarge { bytes, max_bytes });
    }
    Ok(bytes)
}

fn checked(
    payload_bytes: usize,
    decoded: Result<Packet, prost::DecodeError>,
) -> Result<Packet, FrameError> {
    if payload_bytes == 0 {
        return Err(FrameError::Empty);
    }
    let packet = decoded.map_err(FrameError::BadPacket)?;
    if packet.body.is_none() {
        return Err(FrameError::UnknownPacket { id: packet.id });
    }
    Ok(packet)
}
