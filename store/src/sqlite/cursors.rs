//! Delivered and read cursors.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::Seq;

use super::{
    integer::{ConversationKey, UserKey, from_sql, to_sql},
    memory::WriterMemory,
    writer::Write,
};
use crate::{CursorAdvance, CursorKind, StoreError};

/// See [`Store::advance_cursors`](crate::Store::advance_cursors).
pub(super) struct AdvanceCursors(pub(super) Vec<CursorAdvance>);

impl Write for AdvanceCursors {
    type Answer = Vec<Option<Seq>>;

    fn weight(&self) -> usize {
        self.0.len().max(1)
    }

    fn apply(
        &self,
        connection: &Connection,
        _: &mut WriterMemory,
    ) -> Result<Vec<Option<Seq>>, StoreError> {
        (self.0.iter())
            .map(|wish| advance(connection, wish))
            .collect()
    }
}

fn advance(connection: &Connection, wish: &CursorAdvance) -> Result<Option<Seq>, StoreError> {
    // Where the cursor is, and how far the user may see.
    let row = connection
        .prepare_cached(
            "SELECT l.user, l.conversation, l.delivered_seq, l.read_seq,
                    coalesce(l.last_seq, (SELECT max(seq) FROM message WHERE conversation = l.conversation))
             FROM users u
             CROSS JOIN conversation c ON c.conversation_id = ?2
             CROSS JOIN user_conversation_list l ON l.user = u.id AND l.conversation = c.id
             WHERE u.user_id = ?1",
        )?
        .query_row(
            params![wish.cursor.user.as_str(), wish.cursor.conversation.as_str()],
            |row| {
                Ok((
                    row.get::<_, UserKey>(0)?,
                    row.get::<_, ConversationKey>(1)?,
                    [from_sql(row.get(2)?), from_sql(row.get(3)?)],
                    from_sql(row.get(4)?),
                ))
            },
        )
        .optional()?;
    let Some((user, conversation, [delivered, read], last)) = row else {
        return Ok(None);
    };
    let target = wish.seq.0.min(last);
    let (sql, at) = match wish.cursor.kind {
        CursorKind::Delivered => (
            "UPDATE user_conversation_list SET delivered_seq = ?3
             WHERE user = ?1 AND conversation = ?2",
            delivered,
        ),
        CursorKind::Read => (
            "UPDATE user_conversation_list SET read_seq = ?3
             WHERE user = ?1 AND conversation = ?2",
            read,
        ),
    };
    if target <= at {
        return Ok(None);
    }
    connection
        .prepare_cached(sql)?
        .execute(params![user, conversation, to_sql(target)])?;
    Ok(Some(Seq(target)))
}
