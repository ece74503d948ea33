//! Where a conversation's log ends, as the writer knows it.

use rusqlite::{Connection, OptionalExtension};
use sluice_protocol::{ConversationId, ConversationKind, UserId};

use super::integer::{ConversationKey, UserKey, from_sql};
use crate::StoreError;

/// What an append needs to know of the log that it appends to.
#[derive(Debug, Clone)]
pub(super) struct ConversationState {
    pub(super) key: ConversationKey,
    pub(super) parties: Option<Parties>,
    /// The newest entry.
    pub(super) end: LogEnd,
}

/// The newest entry's running numbers (see the table `message`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogEnd {
    pub(super) seq: u64,
    pub(super) counting: u64,
    pub(super) counting_first: u64,
}

/// Both sides of a private conversation, the smaller name first.
#[derive(Debug, Clone)]
pub(super) struct Parties {
    pub(super) ids: [UserId; 2],
    pub(super) keys: [UserKey; 2],
}

// === impl ConversationState ===

impl ConversationState {
    /// Reads it from the tables; `None` if there is no such conversation.
    pub(super) fn load(
        connection: &Connection,
        id: &ConversationId,
    ) -> Result<Option<Self>, StoreError> {
        let row = connection
            .prepare_cached(
                "SELECT c.id, m.seq, m.counting, m.counting_first
                 FROM conversation c CROSS JOIN message m ON m.conversation = c.id
                 WHERE c.conversation_id = ?1 ORDER BY m.seq DESC LIMIT 1",
            )?
            .query_row([id.as_str()], |row| {
                Ok((
                    row.get::<_, ConversationKey>(0)?,
                    LogEnd {
                        seq: from_sql(row.get(1)?),
                        counting: from_sql(row.get(2)?),
                        counting_first: from_sql(row.get(3)?),
                    },
                ))
            })
            .optional()?;
        let Some((key, end)) = row else {
            return Ok(None);
        };
        let parties = match id.kind() {
            ConversationKind::Group(_) => None,
            ConversationKind::Private(first, second) => {
                let key_of = |user: &UserId| {
                    user_key(connection, user)?.ok_or_else(|| {
                        StoreError::Damaged(format!("conversation {id} has an unknown party"))
                    })
                };
                let keys = [key_of(&first)?, key_of(&second)?];
                Some(Parties {
                    ids: [first, second],
                    keys,
                })
            }
        };
        Ok(Some(Self { key, parties, end }))
    }

    /// Makes the row of a conversation that has no entries yet. Its first entry
    /// must follow in the same savepoint.
    pub(super) fn create(
        connection: &Connection,
        id: &ConversationId,
        parties: Option<Parties>,
    ) -> Result<Self, StoreError> {
        connection
            .prepare_cached("INSERT INTO conversation (conversation_id, name) VALUES (?1, '')")?
            .execute([id.as_str()])?;
        Ok(Self {
            key: ConversationKey(connection.last_insert_rowid()),
            parties,
            end: LogEnd::default(),
        })
    }
}

/// A user's key; `None` if there is no such user.
pub(super) fn user_key(
    connection: &Connection,
    user: &UserId,
) -> Result<Option<UserKey>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT id FROM users WHERE user_id = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?)
}

/// The user seq of the newest entry of an inbox.
pub(super) fn inbox_end(connection: &Connection, user: UserKey) -> Result<u64, StoreError> {
    let end = connection
        .prepare_cached(
            "SELECT user_seq FROM user_msg_list WHERE user = ?1 ORDER BY user_seq DESC LIMIT 1",
        )?
        .query_row([user], |row| row.get(0))
        .optional()?;
    Ok(from_sql(end.unwrap_or(0)))
}
