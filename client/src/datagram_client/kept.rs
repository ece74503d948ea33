//! What a client keeps over a restart, as bytes for the application to store.

use bytes::Bytes;
use prost::Message;
use sluice_protocol::{ConversationId, DeviceId, UserId, packet};

use super::DatagramClient;
use crate::{
    StateError,
    state::{Saved, SavedSend},
    ticket::Ticket,
};

/// Of what follows.
const VERSION: u32 = 1;

/// Stands outside the wire protocol: only this crate reads what it wrote.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    user: String,
    #[prost(string, tag = "3")]
    device: String,
    #[prost(uint64, tag = "4")]
    inbox: u64,
    #[prost(message, repeated, tag = "5")]
    groups: Vec<Position>,
    #[prost(message, repeated, tag = "6")]
    outbox: Vec<Unacked>,
    #[prost(bytes = "bytes", tag = "7")]
    resume_token: Bytes,
    #[prost(sint64, tag = "8")]
    clock_offset_ms: i64,
    /// As [`Ticket::to_bytes`] made it.
    #[prost(bytes = "bytes", tag = "9")]
    ticket: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Position {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(uint64, tag = "2")]
    seq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Unacked {
    #[prost(uint64, tag = "1")]
    order: u64,
    #[prost(message, optional, tag = "2")]
    send: Option<packet::Send>,
}

// === impl DatagramClient ===

impl DatagramClient {
    /// What a later life goes on from: positions, unacked sends, the resume token, the ticket.
    /// Secret, and good for one life: two would spend each other's resume tokens.
    pub fn state(&self) -> Vec<u8> {
        let groups = self.saved.groups.iter().map(|(group, seq)| Position {
            group: group.to_string(),
            seq: *seq,
        });
        let outbox = self.saved.outbox.iter().map(|(order, send)| Unacked {
            order: *order,
            send: Some(send.to_wire()),
        });
        let ticket = self.saved.ticket.map(|ticket| ticket.to_bytes().to_vec());
        let kept = Kept {
            version: VERSION,
            user: self.user.to_string(),
            device: self.device.to_string(),
            inbox: self.saved.inbox,
            groups: groups.collect(),
            outbox: outbox.collect(),
            resume_token: self.saved.resume_token.clone(),
            clock_offset_ms: self.saved.clock_offset_ms,
            ticket: ticket.unwrap_or_default().into(),
        };
        kept.encode_to_vec()
    }

    /// Grows whenever [`DatagramClient::state`] has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// What [`DatagramClient::state`] gave.
pub(super) fn decode(bytes: &[u8], user: &UserId, device: &DeviceId) -> Result<Saved, StateError> {
    let kept = Kept::decode(bytes).map_err(|_| StateError::Damaged("the kept state"))?;
    if kept.version != VERSION {
        return Err(StateError::Damaged("the kept state's version"));
    }
    if kept.user != user.as_str() || kept.device != device.as_str() {
        return Err(StateError::Foreign {
            user: kept.user,
            device: kept.device,
        });
    }
    let mut saved = Saved {
        inbox: kept.inbox,
        // Copied, as the application's bytes may be larger.
        resume_token: Bytes::copy_from_slice(&kept.resume_token),
        clock_offset_ms: kept.clock_offset_ms,
        ticket: Ticket::parse(&kept.ticket),
        ..Saved::default()
    };
    for position in kept.groups {
        let group = ConversationId::parse(&position.group)
            .map_err(|_| StateError::Damaged("a group's id"))?;
        saved.groups.insert(group, position.seq);
    }
    for unacked in kept.outbox {
        let send = SavedSend::from_wire(unacked.send.unwrap_or_default())?;
        saved.outbox.insert(unacked.order, send);
    }
    Ok(saved)
}
