//! Which channel a packet takes, on either side.
//!
//! Pushes have numbers of their own, so none waits for another that was lost; what
//! has no promise goes without one; all that an answer is expected to keeps its
//! order.

use prost::encoding::{WireType, decode_key, decode_varint};
use sluice_protocol::packet::{DeliveryClass, Packet, packet::Body};

use super::{Channel, config::UNRELIABLE_MAX_BYTES};

/// Field numbers of `Packet` (protocol/proto/sluice/v1/packet.proto).
const ID: u32 = 1;
const PUSH: u32 = 18;
const GROUP_NOTICE: u32 = 19;
const TYPING_NOTICE: u32 = 26;
const EPHEMERAL_MESSAGE: u32 = 27;

// === impl Channel ===

impl Channel {
    /// For a packet of the server, encoded: its body is told by its first keys, so
    /// that what services have encoded isn't decoded again.
    pub fn of_server_packet(mut packet: &[u8]) -> Self {
        while let Ok((field, wire_type)) = decode_key(&mut packet) {
            match field {
                ID if wire_type == WireType::Varint => {
                    if decode_varint(&mut packet).is_err() {
                        break;
                    }
                }
                PUSH | GROUP_NOTICE => return Self::PUSHES,
                TYPING_NOTICE => return Self::LATEST,
                EPHEMERAL_MESSAGE => return Self::EPHEMERAL,
                _ => break,
            }
        }
        Self::CONTROL
    }

    /// For a packet of a client, which has so many bytes when it is encoded.
    pub fn of_client_packet(packet: &Packet, bytes: usize) -> Self {
        match &packet.body {
            Some(Body::Typing(_)) => Self::LATEST,
            Some(Body::Send(send))
                if send.delivery_class() == DeliveryClass::Ephemeral
                    && bytes <= UNRELIABLE_MAX_BYTES =>
            {
                Self::EPHEMERAL
            }
            _ => Self::CONTROL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use sluice_protocol::packet;

    fn of_server(id: u64, body: Body) -> Channel {
        let packet = Packet {
            id,
            body: Some(body),
        };
        Channel::of_server_packet(&packet.encode_to_vec())
    }

    fn of_client(body: Body, bytes: usize) -> Channel {
        let packet = Packet {
            id: 1 << 40,
            body: Some(body),
        };
        Channel::of_client_packet(&packet, bytes)
    }

    #[test]
    fn a_packet_takes_the_channel_of_its_body() {
        let push = Body::Push(packet::Push::default());
        assert_eq!(of_server(0, push.clone()), Channel::PUSHES);
        let notice = Body::GroupNotice(packet::GroupNotice::default());
        assert_eq!(of_server(7, notice), Channel::PUSHES);
        let typing = Body::TypingNotice(packet::TypingNotice::default());
        assert_eq!(of_server(0, typing), Channel::LATEST);
        let ephemeral = Body::EphemeralMessage(packet::EphemeralMessage::default());
        assert_eq!(of_server(0, ephemeral), Channel::EPHEMERAL);
        let pong = Body::Pong(packet::Pong::default());
        assert_eq!(of_server(1 << 40, pong), Channel::CONTROL);
        for junk in [&b""[..], b"\x08", b"\xff\xff", b"\x08\x80"] {
            assert_eq!(Channel::of_server_packet(junk), Channel::CONTROL);
        }
        let typing = Body::Typing(packet::Typing::default());
        assert_eq!(of_client(typing, 10), Channel::LATEST);
        let mut send = packet::Send::default();
        assert_eq!(of_client(Body::Send(send.clone()), 10), Channel::CONTROL);
        send.set_delivery_class(DeliveryClass::Ephemeral);
        assert_eq!(of_client(Body::Send(send.clone()), 10), Channel::EPHEMERAL);
        let large = UNRELIABLE_MAX_BYTES + 1;
        assert_eq!(of_client(Body::Send(send), large), Channel::CONTROL);
        assert_eq!(of_client(push, 10), Channel::CONTROL);
    }
}
