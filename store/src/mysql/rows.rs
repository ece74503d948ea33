//! What rows hold and statements are made of, as this program's types.

use std::borrow::Cow;

use sluice_protocol::{ClientMsgId, ConversationId, MessageId, Seq, UserId};
use sqlx::{MySql, QueryBuilder, Row, mysql::MySqlRow};

use crate::{StoreError, StoredEntry, content_row::ContentRow};

/// Rows of one INSERT, terms of one condition: what is more goes into the next
/// statement.
pub(super) const ROWS_MAX: usize = 256;

pub(super) type Sql = QueryBuilder<MySql>;

/// The columns of [`stored_entry`].
pub(super) const ENTRY_COLUMNS: &str = "SELECT conversation, seq, send_ms, msg_id, sender, \
     client_msg_id, kind, content_type, recalled, body FROM message";

/// Text that is kept as bytes, so that no collation has a say.
pub(super) fn text(row: &MySqlRow, at: usize) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(at)?;
    String::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn user_id(row: &MySqlRow, at: usize) -> Result<UserId, sqlx::Error> {
    UserId::parse(&text(row, at)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn conversation_id(row: &MySqlRow, at: usize) -> Result<ConversationId, sqlx::Error> {
    ConversationId::parse(&text(row, at)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn client_msg_id(row: &MySqlRow, at: usize) -> Result<ClientMsgId, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(at)?;
    ClientMsgId::parse_stored(&bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Reads a row of [`ENTRY_COLUMNS`].
pub(super) fn stored_entry(row: &MySqlRow) -> Result<StoredEntry, super::failure::Failure> {
    let content = ContentRow {
        kind: i32::from(row.try_get::<u8, _>(6)?),
        content_type: i32::from(row.try_get::<u8, _>(7)?),
        body: Cow::Owned(row.try_get(9)?),
    };
    Ok(StoredEntry {
        conversation: conversation_id(row, 0)?,
        seq: Seq(row.try_get(1)?),
        server_time_ms: row.try_get(2)?,
        message_id: MessageId(row.try_get(3)?),
        sender: user_id(row, 4)?,
        client_msg_id: client_msg_id(row, 5)?,
        content: content.into_content()?,
        recalled: row.try_get::<u8, _>(8)? != 0,
    })
}

/// `(conversation = … AND seq = …) OR …`: a form that the planners of all
/// engines turn into look-ups, unlike rows in an IN list.
pub(super) fn push_positions<'p>(
    sql: &mut Sql,
    conversation: &str,
    second: &str,
    positions: impl IntoIterator<Item = (&'p ConversationId, Second<'p>)>,
) {
    for (at, (id, value)) in positions.into_iter().enumerate() {
        sql.push(if at == 0 { " (" } else { " OR (" });
        sql.push(conversation).push(" = ");
        sql.push_bind(id.as_str().as_bytes());
        sql.push(" AND ").push(second).push(" = ");
        match value {
            Second::Seq(seq) => sql.push_bind(seq),
            Second::User(user) => sql.push_bind(user.as_str().as_bytes()),
        };
        sql.push(")");
    }
}

/// The other half of a key that begins with a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Second<'u> {
    Seq(u64),
    User(&'u UserId),
}

/// `?, ?, …` for an IN list.
pub(super) fn push_list<'l>(sql: &mut Sql, items: impl IntoIterator<Item = &'l [u8]>) {
    let mut list = sql.separated(", ");
    for item in items {
        list.push_bind(item);
    }
}

/// A status or kind that this program does not know.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}
