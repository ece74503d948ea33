//! What a client keeps over a restart: positions, unacked sends, the resume token,
//! a ticket for the next datagram session.

mod file;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use prost::Message;
use sluice_protocol::{ClientMsgId, ConversationId, DeviceId, UserId, packet};

use crate::{StateError, link::Ticket};
use file::StateFile;

/// Where a client keeps its positions, its unacked sends and its resume token.
///
/// Clones are the same state. One client at a time may run on it: two would
/// spend each other's resume tokens and tell the same entries twice.
#[derive(Debug, Clone)]
pub struct LocalState(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Memory(Arc<Mutex<MemoryState>>),
    File(Arc<StateFile>),
}

#[derive(Debug, Default)]
struct MemoryState {
    owner: Option<(UserId, DeviceId)>,
    saved: Saved,
}

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
    Ticket(Ticket),
}

// === impl LocalState ===

impl LocalState {
    /// Kept as long as the process lives (and a clone of this).
    pub fn memory() -> Self {
        Self(Kind::Memory(Arc::default()))
    }

    /// Kept in a file, made when it isn't there. Blocks for a few disk accesses.
    /// A file can be open once only.
    ///
    /// # Errors
    /// The file can't be opened, or is none of this crate's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        Ok(Self(Kind::File(Arc::new(StateFile::open(path.as_ref())?))))
    }

    /// All that is kept; takes the state for this user and device if it is new.
    pub(crate) fn load(&self, user: &UserId, device: &DeviceId) -> Result<Saved, StateError> {
        match &self.0 {
            Kind::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let (of_user, of_device) = memory
                    .owner
                    .get_or_insert_with(|| (user.clone(), device.clone()));
                if of_user != user || of_device != device {
                    return Err(StateError::Foreign {
                        user: of_user.to_string(),
                        device: of_device.to_string(),
                    });
                }
                Ok(memory.saved.clone())
            }
            Kind::File(file) => file.load(user, device),
        }
    }

    /// Whether [`LocalState::write`] goes to the disk, so must not run on a reactor.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.0, Kind::File(_))
    }

    /// Writes a batch, whole or not at all; on return it is safe.
    pub(crate) fn write(&self, batch: Vec<Change>) -> Result<(), StateError> {
        match &self.0 {
            Kind::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                batch
                    .into_iter()
                    .for_each(|change| memory.saved.apply(change));
                Ok(())
            }
            Kind::File(file) => file.write(&batch),
        }
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

    /// Reads what [`SavedSend::to_wire`] made.
    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let send = packet::Send::decode(bytes);
        Self::from_wire(send.map_err(|_| StateError::Damaged("an unacked send"))?)
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
