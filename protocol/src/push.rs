//! The bytes of a push, in two parts: a short prefix made for each connection,
//! and the encoded entry, which all connections (and every retry) share.
//!
//! Prefix and entry together are one encoded `Packet` that holds a `Push` or a
//! `GroupNotice`; a gateway writes them side by side without copying the entry.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// What comes before the entry in a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushPrefix<'a> {
    /// A `Push` for an inbox.
    Inbox {
        /// Position in the receiver's inbox.
        user_seq: u64,
    },
    /// A `GroupNotice`; without an entry when that is too large to ride along.
    Group {
        /// The group.
        conversation_id: &'a str,
        /// How far its log has grown.
        seq: u64,
    },
}

// Field numbers of packet.proto; a test holds them against the generated types.
const PACKET_PUSH: u32 = 18;
const PACKET_GROUP_NOTICE: u32 = 19;
const NUMBER: u32 = 1;
const PUSH_USER_SEQ: u32 = 2;
const PUSH_ENTRY: u32 = 3;
const NOTICE_CONVERSATION_ID: u32 = 2;
const NOTICE_SEQ: u32 = 3;
const NOTICE_ENTRY: u32 = 4;

// === impl PushPrefix ===

impl PushPrefix<'_> {
    /// Bytes of the whole packet: prefix and an entry of `entry_bytes`.
    pub fn packet_bytes(&self, number: u64, entry_bytes: usize) -> usize {
        let body = self.body_bytes(number, entry_bytes);
        key_len(self.packet_field()) + encoded_len_varint(body as u64) + body
    }

    /// Appends all that comes before the entry's bytes. `number` is the
    /// connection's push number.
    pub fn encode(&self, number: u64, entry_bytes: usize, out: &mut impl BufMut) {
        encode_key(self.packet_field(), WireType::LengthDelimited, out);
        encode_varint(self.body_bytes(number, entry_bytes) as u64, out);
        encode_number(NUMBER, number, out);
        let entry_field = match self {
            Self::Inbox { user_seq } => {
                encode_number(PUSH_USER_SEQ, *user_seq, out);
                PUSH_ENTRY
            }
            Self::Group {
                conversation_id,
                seq,
            } => {
                encode_key(NOTICE_CONVERSATION_ID, WireType::LengthDelimited, out);
                encode_varint(conversation_id.len() as u64, out);
                out.put_slice(conversation_id.as_bytes());
                encode_number(NOTICE_SEQ, *seq, out);
                NOTICE_ENTRY
            }
        };
        if entry_bytes > 0 {
            encode_key(entry_field, WireType::LengthDelimited, out);
            encode_varint(entry_bytes as u64, out);
        }
    }

    fn packet_field(&self) -> u32 {
        match self {
            Self::Inbox { .. } => PACKET_PUSH,
            Self::Group { .. } => PACKET_GROUP_NOTICE,
        }
    }

    fn body_bytes(&self, number: u64, entry_bytes: usize) -> usize {
        let fields = match self {
            Self::Inbox { user_seq } => number_bytes(PUSH_USER_SEQ, *user_seq),
            Self::Group {
                conversation_id,
                seq,
            } => {
                let text = conversation_id.len();
                key_len(NOTICE_CONVERSATION_ID)
                    + encoded_len_varint(text as u64)
                    + text
                    + number_bytes(NOTICE_SEQ, *seq)
            }
        };
        let entry = match entry_bytes {
            0 => 0,
            bytes => key_len(PUSH_ENTRY) + encoded_len_varint(bytes as u64) + bytes,
        };
        number_bytes(NUMBER, number) + fields + entry
    }
}

fn encode_number(field: u32, value: u64, out: &mut impl BufMut) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

fn number_bytes(field: u32, value: u64) -> usize {
    key_len(field) + encoded_len_varint(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Entry, GroupNotice, Message, Packet, Push, entry, packet};
    use proptest::prelude::*;
    use prost::Message as _;

    fn entry(body: Vec<u8>) -> Entry {
        Entry {
            conversation_id: "p:5:alice:bob".into(),
            seq: 7,
            message_id: 99,
            content: Some(entry::Content::Message(Message {
                body: body.into(),
                ..Message::default()
            })),
            ..Entry::default()
        }
    }

    fn written(prefix: PushPrefix<'_>, number: u64, entry: &[u8]) -> Packet {
        let mut bytes = Vec::new();
        prefix.encode(number, entry.len(), &mut bytes);
        bytes.extend_from_slice(entry);
        assert_eq!(bytes.len(), prefix.packet_bytes(number, entry.len()));
        Packet::decode(bytes.as_slice()).unwrap()
    }

    proptest! {
        #[test]
        fn is_what_the_generated_types_say(
            number in 1..u64::MAX,
            seq in 1..u64::MAX,
            conversation_id in "[a-z:]{1,135}",
            body in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let entry = entry(body);
            let encoded = entry.encode_to_vec();
            let push = written(PushPrefix::Inbox { user_seq: seq }, number, &encoded);
            prop_assert_eq!(push.body, Some(packet::Body::Push(Push {
                number, user_seq: seq, entry: Some(entry.clone()),
            })));
            let group = PushPrefix::Group { conversation_id: &conversation_id, seq };
            let notice = |entry| Some(packet::Body::GroupNotice(GroupNotice {
                number, conversation_id: conversation_id.clone(), seq, entry,
            }));
            prop_assert_eq!(written(group, number, &encoded).body, notice(Some(entry)));
            prop_assert_eq!(written(group, number, &[]).body, notice(None));
        }
    }
}
