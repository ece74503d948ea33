//! Which channel of a datagram session a packet takes.

use prost::encoding::{WireType, decode_key, decode_varint};
use sluice_codec::datagram::Channel;

/// Field numbers of `Packet` (protocol/proto/sluice/v1/packet.proto).
const ID: u32 = 1;
const PUSH: u32 = 18;
const GROUP_NOTICE: u32 = 19;
const TYPING: u32 = 25;
const TYPING_NOTICE: u32 = 26;
const EPHEMERAL_MESSAGE: u32 = 27;

/// The channel for an encoded packet, by its body. Pushes have sequence numbers
/// of their own, so none waits for another that was lost; all that an answer is
/// expected to keeps its order.
pub(crate) fn channel_of(mut packet: &[u8]) -> Channel {
    while let Ok((field, wire_type)) = decode_key(&mut packet) {
        match field {
            ID if wire_type == WireType::Varint => {
                if decode_varint(&mut packet).is_err() {
                    break;
                }
            }
            PUSH | GROUP_NOTICE => return Channel::PUSHES,
            TYPING | TYPING_NOTICE => return Channel::LATEST,
            EPHEMERAL_MESSAGE => return Channel::EPHEMERAL,
            _ => break,
        }
    }
    Channel::CONTROL
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use sluice_protocol::packet::{self, Packet, packet::Body};

    #[test]
    fn a_packet_takes_the_channel_of_its_body() {
        let of = |id, body| {
            let packet = Packet {
                id,
                body: Some(body),
            };
            channel_of(&packet.encode_to_vec())
        };
        assert_eq!(of(0, Body::Push(packet::Push::default())), Channel::PUSHES);
        let notice = Body::GroupNotice(packet::GroupNotice::default());
        assert_eq!(of(7, notice), Channel::PUSHES);
        let typing = Body::TypingNotice(packet::TypingNotice::default());
        assert_eq!(of(0, typing), Channel::LATEST);
        let ephemeral = Body::EphemeralMessage(packet::EphemeralMessage::default());
        assert_eq!(of(0, ephemeral), Channel::EPHEMERAL);
        assert_eq!(
            of(1 << 40, Body::Pong(packet::Pong::default())),
            Channel::CONTROL
        );
        for junk in [&b""[..], b"\x08", b"\xff\xff", b"\x08\x80"] {
            assert_eq!(channel_of(junk), Channel::CONTROL);
        }
    }
}
