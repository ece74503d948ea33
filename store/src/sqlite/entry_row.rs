//! A log entry as a row that a reader selects.

use std::borrow::Cow;

use rusqlite::Row;
use sluice_protocol::{ClientMsgId, ConversationId, MessageId, Seq, UserId};

use super::content_row::ContentRow;
use crate::{StoreError, StoredEntry};

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
        client_msg_id: ClientMsgId::parse(row.get_ref(at + 3)?.as_blob().unwrap_or_default())
            .map_err(|error| StoreError::Damaged(error.to_string()))?,
        server_time_ms: row.get::<_, i64>(at + 4)? as u64,
        content: content.into_content()?,
        recalled: row.get(at + 7)?,
    })
}

/// Bytes of an entry on a page, roughly as encoded.
pub(super) fn page_bytes(entry: &StoredEntry) -> usize {
    /// Seq, ids, times and field tags.
    const FIXED_BYTES: usize = 64;
    let body = match &entry.content {
        crate::Content::Message { body, .. } => body.len(),
        crate::Content::GroupCreated { name, members } => {
            name.len()
                + members
                    .iter()
                    .map(|user| user.as_str().len() + 2)
                    .sum::<usize>()
        }
        crate::Content::GroupRenamed { name } => name.len(),
        crate::Content::Joined { users } => users
            .iter()
            .map(|user| user.as_str().len() + 2)
            .sum::<usize>(),
        crate::Content::Removed { user } | crate::Content::RoleChanged { user, .. } => {
            user.as_str().len()
        }
        crate::Content::Recall { .. } | crate::Content::Left => 0,
    };
    FIXED_BYTES + entry.conversation.as_str().len() + entry.sender.as_str().len() + body
}

pub(super) fn user_id(row: &Row<'_>, at: usize) -> Result<UserId, StoreError> {
    UserId::parse(row.get_ref(at)?.as_str().unwrap_or_default())
        .map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(super) fn conversation_id(row: &Row<'_>, at: usize) -> Result<ConversationId, StoreError> {
    ConversationId::parse(row.get_ref(at)?.as_str().unwrap_or_default())
        .map_err(|error| StoreError::Damaged(error.to_string()))
}
