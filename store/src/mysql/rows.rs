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

/// Up to here INSERTs take any number of rows, above it multiples of it.
const ROWS_STEP: usize = 16;

/// Rows in stretches of few sizes, for one INSERT each: a statement is prepared
/// once a text, and there shall be no more texts than a connection keeps. At most
/// one statement more than there would be without.
pub(super) fn inserts<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let (now, later) = rest.split_at(insert_len(rest.len()));
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// How many of so many rows the next INSERT takes.
pub(super) fn insert_len(rows: usize) -> usize {
    match rows {
        ..ROWS_STEP => rows,
        ROWS_MAX.. => ROWS_MAX,
        _ => rows - rows % ROWS_STEP,
    }
}

/// Items with the last one repeated up to a power of two, for a list or for rows
/// that may be written twice: so there are few texts (see [`inserts`]).
pub(super) fn padded<T: Clone>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    if let Some(last) = items.last().cloned() {
        items.resize(items.len().next_power_of_two(), last);
    }
    items
}

/// Pairs of a conversation and something in it; see [`push_pairs`].
pub(super) fn push_positions<'p>(
    sql: &mut Sql,
    conversation: &str,
    second: &str,
    positions: impl IntoIterator<Item = (&'p ConversationId, Second<'p>)>,
) {
    let pairs = positions
        .into_iter()
        .map(|(id, value)| (id.as_str(), value));
    push_pairs(sql, conversation, second, pairs);
}

/// `(conversation = … AND seq = …) OR …`: a form that the planners of all
/// engines turn into look-ups, unlike rows in an IN list.
pub(super) fn push_pairs<'p>(
    sql: &mut Sql,
    first: &str,
    second: &str,
    pairs: impl IntoIterator<Item = (&'p str, Second<'p>)>,
) {
    for (at, (id, value)) in padded(pairs).into_iter().enumerate() {
        sql.push(if at == 0 { " (" } else { " OR (" });
        sql.push(first).push(" = ");
        sql.push_bind(id.as_bytes());
        sql.push(" AND ").push(second).push(" = ");
        match value {
            Second::Number(number) => sql.push_bind(number),
            Second::User(user) => sql.push_bind(user.as_str().as_bytes()),
            Second::Sent(id) => sql.push_bind(&id.as_bytes()[..]),
        };
        sql.push(")");
    }
}

/// The other half of a key that begins with a conversation or a user.
#[derive(Debug, Clone, Copy)]
pub(super) enum Second<'u> {
    Number(u64),
    User(&'u UserId),
    Sent(ClientMsgId),
}

/// `?, ?, …` for an IN list.
pub(super) fn push_list<'l>(sql: &mut Sql, items: impl IntoIterator<Item = &'l [u8]>) {
    let mut list = sql.separated(", ");
    for item in padded(items) {
        list.push_bind(item);
    }
}

/// A status or kind that this program does not know.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_stretches_of_few_sizes() {
        let rows = [(); 700];
        let mut sizes = std::collections::BTreeSet::new();
        for len in 0..rows.len() {
            let stretches: Vec<usize> = inserts(&rows[..len]).map(<[()]>::len).collect();
            assert_eq!(stretches.iter().sum::<usize>(), len);
            assert!(stretches.len() <= len.div_ceil(ROWS_MAX) + 1);
            sizes.extend(stretches);
        }
        assert!(sizes.len() <= 31, "{sizes:?}");
        assert_eq!(padded([1, 2, 3]), [1, 2, 3, 3]);
        assert_eq!(padded([0; 0]), [0; 0]);
    }
}
