//! What a client keeps over a restart: positions, unacked sends, the resume token,
//! a ticket for the next datagram session.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use sluice_protocol::{ClientMsgId, ConversationId, packet};

use crate::{Event, StateError, ticket::Ticket};

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Saved {
    /// Last user seq that the application is done with.
    pub(crate) inbox: u64,
    /// Last seq of each group that the application is done with.
    pub(crate) groups: HashMap<ConversationId, u64>,
    /// Unacked sends by the order of the calls.
    pub(crate) outbox: BTreeMap<u64, SavedSend>,
    /// Of the last login.
    pub(crate) resume_token: Bytes,
    /// Server's clock minus the local one, in milliseconds.
    pub(crate) clock_offset_ms: i64,
    /// For the next datagram session.
    pub(crate) ticket: Option<Ticket>,
}

/// An unacked send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SavedSend {
    pub(crate) client_msg_id: ClientMsgId,
    pub(crate) conversation: ConversationId,
    /// As on the wire.
    pub(crate) content_type: i32,
    pub(crate) body: Bytes,
}

/// One change to what is kept. Those of one batch are written as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Inbox(u64),
    Group(ConversationId, u64),
    ForgetGroup(ConversationId),
    PutSend(u64, SavedSend),
    RemoveSend(u64),
    ResumeToken(Bytes),
    ClockOffset(i64),
    #[cfg(feature = "runtime")]
    Ticket(Ticket),
}

// === impl Change ===

impl Change {
    /// What is to be saved once the application is done with this event.
    pub(crate) fn after(event: &Event) -> Option<Self> {
        let entry = match event {
            Event::Entry { entry, .. } => entry,
            Event::ServerBehind { group, server, .. } => {
                return Some(match group {
                    Some(group) => Self::Group(group.clone(), *server),
                    None => Self::Inbox(*server),
                });
            }
            Event::Archived { first, .. } => return Some(Self::Inbox(first.saturating_sub(1))),
            _ => return None,
        };
        Some(if entry.conversation.is_group() {
            Self::Group(entry.conversation.clone(), entry.seq.0)
        } else {
            Self::Inbox(entry.user_seq.0)
        })
    }
}

// === impl Saved ===

impl Saved {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Inbox(position) => self.inbox = position,
            Change::Group(conversation, position) => {
                self.groups.insert(conversation, position);
            }
            Change::ForgetGroup(conversation) => {
                self.groups.remove(&conversation);
            }
            Change::PutSend(order, send) => {
                self.outbox.insert(order, send);
            }
            Change::RemoveSend(order) => {
                self.outbox.remove(&order);
            }
            Change::ResumeToken(token) => self.resume_token = token,
            Change::ClockOffset(offset) => self.clock_offset_ms = offset,
            #[cfg(feature = "runtime")]
            Change::Ticket(ticket) => self.ticket = Some(ticket),
        }
    }
}

// === impl SavedSend ===

impl SavedSend {
    /// The packet without what depends on the moment (the predecessor).
    pub(crate) fn to_wire(&self) -> packet::Send {
        packet::Send {
            delivery_class: packet::DeliveryClass::Durable.into(),
            target: Some(packet::send::Target::ConversationId(
                self.conversation.to_string(),
            )),
            client_msg_id: Bytes::copy_from_slice(self.client_msg_id.as_bytes()),
            predecessor: Bytes::new(),
            content_type: self.content_type,
            body: self.body.clone(),
        }
    }

    /// Takes what [`SavedSend::to_wire`] made.
    pub(crate) fn from_wire(send: packet::Send) -> Result<Self, StateError> {
        const DAMAGED: StateError = StateError::Damaged("an unacked send");
        let Some(packet::send::Target::ConversationId(conversation)) = send.target else {
            return Err(DAMAGED);
        };
        Ok(Self {
            client_msg_id: ClientMsgId::parse(&send.client_msg_id).map_err(|_| DAMAGED)?,
            conversation: ConversationId::parse(&conversation).map_err(|_| DAMAGED)?,
            content_type: send.content_type,
            body: send.body,
        })
    }
}
