//! A log entry as a row that a reader selects.

use std::borrow::Cow;

use rusqlite::Row;
use sluice_protocol::{ClientMsgId, ConversationId, MessageId, Seq, UserId};

use crate::{StoreError, StoredEntry, content_row::ContentRow};

/// The columns of [`stored_entry`], for a statement that calls `message` m and
/// its sender's row in `users` u.
macro_rules! entry_columns {
    () => {
        "m.seq, m.msg_id, u.user_id, m.client_msg_id, m.send_ms, \
         m.kind, m.content_type, m.recalled, m.body"
    };
}
pub(super) use entry_columns;

/// Reads [`entry_columns`] that begin at column `at`.
pub(super) fn stored_entry(
    row: &Row<'_>,
    at: usize,
    conversation: ConversationId,
) -> Result<StoredEntry, StoreError> {
    let content = ContentRow {
        kind: row.get(at + 5)?,
        content_type: row.get(at + 6)?,
        body: Cow::Owned(row.get(at + 8)?),
    };
    Ok(StoredEntry {
        conversation,
        seq: Seq(row.get::<_, i64>(at)? as u64),
        message_id: MessageId(row.get::<_, i64>(at + 1)? as u64),
        sender: user_id(row, at + 2)?,
        client_msg_id: ClientMsgId::parse_stored(
            row.get_ref(at + 3)?.as_blob().unwrap_or_default(),
        )
        .map_err(|error| StoreError::Damaged(error.to_string()))?,
        server_time_ms: row.get::<_, i64>(at + 4)? as u64,
        content: content.into_content()?,
        recalled: row.get(at + 7)?,
    })
}

pub(super) fn user_id(row: &Row<'_>, at: usize) -> Result<UserId, StoreError> {
    UserId::parse(row.get_ref(at)?.as_str().unwrap_or_default())
        .map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(super) fn conversation_id(row: &Row<'_>, at: usize) -> Result<ConversationId, StoreError> {
    ConversationId::parse(row.get_ref(at)?.as_str().unwrap_or_default())
        .map_err(|error| StoreError::Damaged(error.to_string()))
}
