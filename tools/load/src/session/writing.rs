//! What a session says: packets written field by field, into frames.

use sluice_protocol::{ClientMsgId, limits::PUSH_ACK_RANGES_MAX};

use super::{ID_SHIFT, Session, Talk, field};
use crate::{
    clock::MS_NS,
    driver::Message,
    fields::{bytes_len, number_len, put_bytes, put_head, put_number, put_varint},
};

/// Of pulls; those of messages begin above.
const PULL_ID: u64 = 1;
const MSG_ID_BYTES: usize = 16;

// === impl Session ===

impl Session {
    pub(super) fn msg_id(&self, client: usize, number: u64, due_ns: u64) -> ClientMsgId {
        let mut random = [0; 10];
        random[..3].copy_from_slice(&self.run);
        random[3..6].copy_from_slice(&(client as u32).to_be_bytes()[1..]);
        random[6..].copy_from_slice(&(number as u32).to_be_bytes());
        ClientMsgId::new(self.epoch_ms + due_ns / MS_NS, random)
    }

    pub(super) fn put_send(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let target: (u32, &str) = match &self.talk {
            Talk::Group(id) => (3, id),
            _ => (2, self.logins[client ^ 1].user.as_str()),
        };
        let id = self.msg_id(client, message.number, message.due_ns);
        let predecessor = message
            .follows_due_ns
            .map(|due_ns| self.msg_id(client, message.number - 1, due_ns));
        let bytes = bytes_len(target.0, target.1.len())
            + bytes_len(4, MSG_ID_BYTES)
            + predecessor.map_or(0, |_| bytes_len(5, MSG_ID_BYTES))
            + bytes_len(7, self.body.bytes().len());
        put_number(field::ID, packet_id(message), out);
        put_head(field::SEND, bytes, out);
        put_bytes(target.0, target.1.as_bytes(), out);
        put_bytes(4, id.as_bytes(), out);
        if let Some(predecessor) = predecessor {
            put_bytes(5, predecessor.as_bytes(), out);
        }
        put_bytes(7, self.body.bytes(), out);
    }

    pub(super) fn put_request(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let Talk::Request(service) = &self.talk else {
            return;
        };
        let key = (client as u32).to_be_bytes();
        let bytes = bytes_len(1, service.len())
            + bytes_len(2, key.len())
            + bytes_len(3, self.body.bytes().len());
        put_number(field::ID, packet_id(message), out);
        put_head(field::REQUEST, bytes, out);
        put_bytes(1, service.as_bytes(), out);
        put_bytes(2, &key, out);
        put_bytes(3, self.body.bytes(), out);
    }

    /// What the gateway would make of a message to a group, for the bare server.
    pub(super) fn put_notice(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let Talk::Group(group) = &self.talk else {
            return;
        };
        let seq = message.number + 1;
        let sender = self.logins[client].user.as_str();
        let content = bytes_len(2, self.body.bytes().len());
        // Message id and time, of which nobody takes notice, have their usual lengths.
        let entry = bytes_len(1, group.len())
            + number_len(2, seq)
            + 9
            + bytes_len(4, sender.len())
            + bytes_len(5, MSG_ID_BYTES)
            + number_len(6, self.epoch_ms)
            + bytes_len(7, content);
        let notice = number_len(1, seq)
            + bytes_len(2, group.len())
            + number_len(3, seq)
            + bytes_len(4, entry);
        put_head(field::GROUP_NOTICE, notice, out);
        put_number(1, seq, out);
        put_bytes(2, group.as_bytes(), out);
        put_number(3, seq, out);
        put_head(4, entry, out);
        put_bytes(1, group.as_bytes(), out);
        put_number(2, seq, out);
        out.push(3 << 3 | 1);
        out.extend(message.due_ns.to_le_bytes());
        put_bytes(4, sender.as_bytes(), out);
        put_bytes(5, self.msg_id(client, seq, message.due_ns).as_bytes(), out);
        put_number(6, self.epoch_ms, out);
        put_head(7, content, out);
        put_bytes(2, self.body.bytes(), out);
    }

    pub(super) fn put_push_ack(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        // To whom the bare server's would go, nobody wants them.
        if std::mem::take(&mut member.untold) == 0 || self.is_bare {
            return;
        }
        let pushes = member.pushes;
        let ranges = || pushes.ranges().take(PUSH_ACK_RANGES_MAX);
        self.transport.frame(out, |out| {
            // Packed numbers need their length first; these are few, and rare.
            let mut packed = Vec::new();
            for number in ranges().flat_map(|(first, last)| [first + 1, last + 1]) {
                put_varint(number, &mut packed);
            }
            let ranges_len = match packed.len() {
                0 => 0,
                bytes => bytes_len(2, bytes),
            };
            let bytes = number_len(1, pushes.next()) + ranges_len;
            put_head(field::PUSH_ACK, bytes, out);
            put_number(1, pushes.next(), out);
            if !packed.is_empty() {
                put_bytes(2, &packed, out);
            }
        });
    }

    pub(super) fn put_pull(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        member.pulls = member.pulls.saturating_add(1);
        let after = member.inbox.next();
        self.transport.frame(out, |out| {
            put_number(field::ID, PULL_ID, out);
            if let Talk::Group(id) = &self.talk {
                let bytes = bytes_len(1, id.len()) + number_len(2, after);
                put_head(field::SYNC_CONVERSATION, bytes, out);
                put_bytes(1, id.as_bytes(), out);
                put_number(2, after, out);
                return;
            }
            put_head(field::SYNC_INBOX, number_len(1, after), out);
            put_number(1, after, out);
        });
    }

    pub(super) fn put_heads(&mut self, client: usize, out: &mut Vec<u8>) {
        self.members[client].pulls += 1;
        self.transport.frame(out, |out| {
            put_number(field::ID, PULL_ID, out);
            put_head(field::SYNC_HEADS, 0, out);
        });
    }
}

/// Tells a message and which attempt it is; from 256 on.
pub(super) fn packet_id(message: Message) -> u64 {
    (message.number + 1) << ID_SHIFT | u64::from(message.attempt)
}
