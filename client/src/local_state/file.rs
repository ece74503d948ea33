//! The local state in a redb file.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use sluice_protocol::{ConversationId, DeviceId, UserId, packet};

use crate::{
    StateError,
    state::{Change, Saved, SavedSend},
    ticket::Ticket,
};

/// Conversation id of a group, or [`INBOX`], to the last seq that was committed.
const POSITIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("positions");
/// Order of the call to an encoded `sluice.v1.Send`.
const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
/// User, device, resume token, clock offset (big-endian), ticket (pin, ticket).
const SESSION: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("session");

const INBOX: &str = "inbox";
const USER: &str = "user";
const DEVICE: &str = "device";
const RESUME_TOKEN: &str = "resume_token";
const CLOCK_OFFSET: &str = "clock_offset_ms";
const TICKET: &str = "datagram_ticket";

/// The cache of one file: a state is small, and a process may hold many.
const CACHE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct StateFile(Database);

// === impl StateFile ===

impl StateFile {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StateError::InUse,
                error => file_error(error),
            })?;
        let transaction = database.begin_write().map_err(file_error)?;
        // Opening a table makes it, so that reads find all three.
        transaction.open_table(POSITIONS).map_err(file_error)?;
        transaction.open_table(OUTBOX).map_err(file_error)?;
        transaction.open_table(SESSION).map_err(file_error)?;
        transaction.commit().map_err(file_error)?;
        Ok(Self(database))
    }

    pub(super) fn load(&self, user: &UserId, device: &DeviceId) -> Result<Saved, StateError> {
        self.claim(user, device)?;
        let transaction = self.0.begin_read().map_err(file_error)?;
        let mut saved = Saved::default();
        let positions = transaction.open_table(POSITIONS).map_err(file_error)?;
        for row in positions.iter().map_err(file_error)? {
            let (key, position) = row.map_err(file_error)?;
            if key.value() == INBOX {
                saved.inbox = position.value();
            } else {
                let group = ConversationId::parse(key.value())
                    .map_err(|_| StateError::Damaged("a group's id"))?;
                saved.groups.insert(group, position.value());
            }
        }
        let outbox = transaction.open_table(OUTBOX).map_err(file_error)?;
        for row in outbox.iter().map_err(file_error)? {
            let (order, send) = row.map_err(file_error)?;
            let send = packet::Send::decode(send.value());
            let send = send.map_err(|_| StateError::Damaged("an unacked send"))?;
            let send = SavedSend::from_wire(send)?;
            saved.outbox.insert(order.value(), send);
        }
        let session = transaction.open_table(SESSION).map_err(file_error)?;
        if let Some(token) = session.get(RESUME_TOKEN).map_err(file_error)? {
            saved.resume_token = Bytes::copy_from_slice(token.value());
        }
        if let Some(offset) = session.get(CLOCK_OFFSET).map_err(file_error)? {
            let bytes = offset.value().try_into();
            saved.clock_offset_ms =
                i64::from_be_bytes(bytes.map_err(|_| StateError::Damaged("the clock offset"))?);
        }
        if let Some(ticket) = session.get(TICKET).map_err(file_error)? {
            saved.ticket = Ticket::parse(ticket.value());
        }
        Ok(saved)
    }

    /// One transaction; its commit syncs the file (redb's default durability).
    pub(super) fn write(&self, batch: &[Change]) -> Result<(), StateError> {
        let transaction = self.0.begin_write().map_err(file_error)?;
        for change in batch {
            apply(&transaction, change).map_err(|error| StateError::File(Box::new(error)))?;
        }
        transaction.commit().map_err(file_error)
    }

    /// Writes the owner into a new file, or holds it against the one that is there.
    fn claim(&self, user: &UserId, device: &DeviceId) -> Result<(), StateError> {
        let transaction = self.0.begin_write().map_err(file_error)?;
        {
            let mut session = transaction.open_table(SESSION).map_err(file_error)?;
            let owner = (stored_text(&session, USER)?, stored_text(&session, DEVICE)?);
            if let (Some(of_user), Some(of_device)) = owner {
                if of_user == user.as_str() && of_device == device.as_str() {
                    return Ok(());
                }
                return Err(StateError::Foreign {
                    user: of_user,
                    device: of_device,
                });
            }
            for (key, name) in [(USER, user.as_str()), (DEVICE, device.as_str())] {
                session.insert(key, name.as_bytes()).map_err(file_error)?;
            }
        }
        transaction.commit().map_err(file_error)
    }
}

fn apply(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Inbox(position) => {
            transaction.open_table(POSITIONS)?.insert(INBOX, position)?;
        }
        Change::Group(group, position) => {
            let mut positions = transaction.open_table(POSITIONS)?;
            positions.insert(group.as_str(), position)?;
        }
        Change::ForgetGroup(group) => {
            transaction.open_table(POSITIONS)?.remove(group.as_str())?;
        }
        Change::PutSend(order, send) => {
            let bytes = send.to_wire().encode_to_vec();
            transaction.open_table(OUTBOX)?.insert(order, &*bytes)?;
        }
        Change::RemoveSend(order) => {
            transaction.open_table(OUTBOX)?.remove(order)?;
        }
        Change::ResumeToken(token) => {
            let mut session = transaction.open_table(SESSION)?;
            session.insert(RESUME_TOKEN, &**token)?;
        }
        Change::ClockOffset(offset) => {
            let mut session = transaction.open_table(SESSION)?;
            session.insert(CLOCK_OFFSET, &offset.to_be_bytes()[..])?;
        }
        Change::Ticket(ticket) => {
            let mut session = transaction.open_table(SESSION)?;
            session.insert(TICKET, &ticket.to_bytes()[..])?;
        }
    }
    Ok(())
}

fn stored_text(
    session: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<String>, StateError> {
    match session.get(key).map_err(file_error)? {
        None => Ok(None),
        Some(bytes) => String::from_utf8(bytes.value().to_vec())
            .map(Some)
            .map_err(|_| StateError::Damaged("the owner")),
    }
}

fn file_error(error: impl Into<redb::Error>) -> StateError {
    StateError::File(Box::new(error.into()))
}
