//! Delivered and read cursors.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::Seq;

use super::{
    integer::{ConversationKey, UserKey, from_sql, to_sql},
    memory::WriterMemory,
    readers::Read,
    writer::Write,
};
use crate::{CursorAdvance, CursorKind, StoreError};

/// See [`Store::advance_cursors`](crate::Store::advance_cursors).
pub(super) struct AdvanceCursors(pub(super) Vec<CursorAdvance>);

/// Cursors in one write: about what a batch of messages costs.
pub(super) const PIECE_MAX_CURSORS: usize = 512;

/// The places of those wishes that would raise a cursor. What the user isn't
/// in, or has passed, stays so: a membership that was told is in the snapshot.
pub(super) struct Rising(pub(super) Arc<Vec<CursorAdvance>>);

/// A cursor that a wish would raise.
struct Rise {
    user: UserKey,
    conversation: ConversationKey,
    target: u64,
}

impl Read for Rising {
    type Answer = Vec<usize>;

    fn read(&self, connection: &Connection) -> Result<Vec<usize>, StoreError> {
        let mut places = Vec::new();
        for (place, wish) in self.0.iter().enumerate() {
            if rise(connection, wish)?.is_some() {
                places.push(place);
            }
        }
        Ok(places)
    }
}

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
    let Some(rise) = rise(connection, wish)? else {
        return Ok(None);
    };
    let sql = match wish.cursor.kind {
        CursorKind::Delivered => {
            "UPDATE user_conversation_list SET delivered_seq = ?3
             WHERE user = ?1 AND conversation = ?2"
        }
        CursorKind::Read => {
            "UPDATE user_conversation_list SET read_seq = ?3
             WHERE user = ?1 AND conversation = ?2"
        }
    };
    let target = to_sql(rise.target);
    connection
        .prepare_cached(sql)?
        .execute(params![rise.user, rise.conversation, target])?;
    Ok(Some(Seq(rise.target)))
}

/// `None`: the cursor is there already, or the user isn't.
fn rise(connection: &Connection, wish: &CursorAdvance) -> Result<Option<Rise>, StoreError> {
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
    let at = match wish.cursor.kind {
        CursorKind::Delivered => delivered,
        CursorKind::Read => read,
    };
    Ok((target > at).then_some(Rise {
        user,
        conversation,
        target,
    }))
}
