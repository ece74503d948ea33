//! An `Up` that carries a client's packet, encoded in one go: the packet's bytes
//! are copied once, from the socket's scratch into the entry.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// The fields of `Origin`, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct OriginFields<'a> {
    /// Who asks.
    pub user_id: &'a str,
    /// From which device.
    pub device_id: &'a str,
    /// Over which connection, 16 bytes.
    pub connection_id: &'a [u8],
    /// `Packet.id`.
    pub request_id: u64,
    /// Stream for the answer.
    pub reply_to: &'a str,
}

// Field numbers of bus.proto; a test holds them against the generated types.
const UP_ORIGIN: u32 = 1;
const UP_RECEIVED_AT_MS: u32 = 2;
const UP_PACKET: u32 = 3;
const ORIGIN_USER_ID: u32 = 1;
const ORIGIN_DEVICE_ID: u32 = 2;
const ORIGIN_CONNECTION_ID: u32 = 3;
const ORIGIN_REQUEST_ID: u32 = 4;
const ORIGIN_REPLY_TO: u32 = 5;

/// Encodes `Up { origin, received_at_ms, body: Packet(packet) }`.
pub fn encode_up_packet(origin: OriginFields<'_>, received_at_ms: u64, packet: &[u8]) -> Bytes {
    let origin_bytes = origin.encoded_bytes();
    let whole = slice_bytes(UP_ORIGIN, origin_bytes)
        + key_len(UP_RECEIVED_AT_MS)
        + encoded_len_varint(received_at_ms)
        + slice_bytes(UP_PACKET, packet.len());
    let mut out = Vec::with_capacity(whole);
    encode_key(UP_ORIGIN, WireType::LengthDelimited, &mut out);
    encode_varint(origin_bytes as u64, &mut out);
    origin.encode(&mut out);
    encode_key(UP_RECEIVED_AT_MS, WireType::Varint, &mut out);
    encode_varint(received_at_ms, &mut out);
    put_slice(UP_PACKET, packet, &mut out);
    out.into()
}

// === impl OriginFields ===

impl<'a> OriginFields<'a> {
    fn slices(&self) -> [(u32, &'a [u8]); 4] {
        [
            (ORIGIN_USER_ID, self.user_id.as_bytes()),
            (ORIGIN_DEVICE_ID, self.device_id.as_bytes()),
            (ORIGIN_CONNECTION_ID, self.connection_id),
            (ORIGIN_REPLY_TO, self.reply_to.as_bytes()),
        ]
    }

    fn encoded_bytes(&self) -> usize {
        let slices = self.slices();
        let slices = slices.iter().map(|(f, bytes)| slice_bytes(*f, bytes.len()));
        slices.sum::<usize>() + key_len(ORIGIN_REQUEST_ID) + encoded_len_varint(self.request_id)
    }

    fn encode(&self, out: &mut impl BufMut) {
        for (field, bytes) in self.slices() {
            put_slice(field, bytes, out);
        }
        encode_key(ORIGIN_REQUEST_ID, WireType::Varint, out);
        encode_varint(self.request_id, out);
    }
}

fn put_slice(field: u32, bytes: &[u8], out: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn slice_bytes(field: u32, bytes: usize) -> usize {
    key_len(field) + encoded_len_varint(bytes as u64) + bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Origin, Up, up};
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn is_what_the_generated_types_say(
            user in ".{1,16}",
            device in ".{1,16}",
            request_id in any::<u64>(),
            received_at_ms in any::<u64>(),
            packet in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let connection = [7; 16];
            let origin = OriginFields {
                user_id: &user,
                device_id: &device,
                connection_id: &connection,
                request_id,
                reply_to: "down:{9}",
            };
            let up = Up::decode(encode_up_packet(origin, received_at_ms, &packet)).unwrap();
            prop_assert_eq!(up, Up {
                origin: Some(Origin {
                    user_id: user.clone(),
                    device_id: device.clone(),
                    connection_id: connection.to_vec().into(),
                    request_id,
                    reply_to: "down:{9}".into(),
                }),
                received_at_ms,
                body: Some(up::Body::Packet(packet.into())),
            });
        }
    }
}
