//! Delivered and read cursors, with the conversations.

use std::collections::{BTreeMap, BTreeSet};

use sluice_protocol::{ConversationId, Seq, UserId};
use sqlx::MySqlConnection;

use super::{
    failure::Failure,
    members::{Membership, find_members},
    rows::{ROWS_MAX, Sql},
    servers::Work,
};
use crate::{CursorAdvance, CursorKind};

/// See [`Store::advance_cursors`](crate::Store::advance_cursors); all of one server.
pub(super) struct AdvanceCursors<'a>(pub(super) Vec<&'a CursorAdvance>);

impl Work for AdvanceCursors<'_> {
    type Answer = Vec<Option<Seq>>;
    // Once more it would say that nothing rose.
    const REPEATABLE: bool = false;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<Option<Seq>>, Failure> {
        let keys: BTreeSet<_> = (self.0.iter())
            .map(|wish| (&wish.cursor.conversation, &wish.cursor.user))
            .collect();
        let keys: Vec<_> = keys.into_iter().collect();
        // In order of the key, which is the order of the locks.
        let mut members: BTreeMap<(ConversationId, UserId), Membership> = BTreeMap::new();
        for member in find_members(connection, &keys).await? {
            members.insert((member.conversation.clone(), member.user.clone()), member);
        }
        let mut risen = BTreeSet::new();
        let mut answers = Vec::with_capacity(self.0.len());
        for wish in &self.0 {
            let key = (wish.cursor.conversation.clone(), wish.cursor.user.clone());
            let Some(member) = members.get_mut(&key) else {
                answers.push(None);
                continue;
            };
            let target = wish.seq.0.min(member.last);
            let cursor = match wish.cursor.kind {
                CursorKind::Delivered => &mut member.delivered,
                CursorKind::Read => &mut member.read,
            };
            if target <= *cursor {
                answers.push(None);
                continue;
            }
            *cursor = target;
            risen.insert(key);
            answers.push(Some(Seq(target)));
        }
        let risen: Vec<&Membership> = risen.iter().filter_map(|key| members.get(key)).collect();
        for members in risen.chunks(ROWS_MAX) {
            write(connection, members).await?;
        }
        Ok(answers)
    }
}

/// Raises them; what somebody else has raised higher in the meantime stays.
async fn write(connection: &mut MySqlConnection, members: &[&Membership]) -> Result<(), Failure> {
    let mut sql = Sql::new(
        "INSERT INTO member (conversation, user, first_seq, role, delivered_seq, read_seq) ",
    );
    sql.push_values(members, |mut row, member| {
        row.push_bind(member.conversation.as_str().as_bytes());
        row.push_bind(member.user.as_str().as_bytes());
        row.push_bind(member.first).push_bind(member.role);
        row.push_bind(member.delivered).push_bind(member.read);
    });
    sql.push(
        " ON DUPLICATE KEY UPDATE
            delivered_seq = GREATEST(delivered_seq, VALUES(delivered_seq)),
            read_seq = GREATEST(read_seq, VALUES(read_seq))",
    );
    sql.build().execute(connection).await?;
    Ok(())
}
