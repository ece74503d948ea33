//! What goes with a dropped month: where logs and inboxes begin afterwards.

use std::collections::BTreeMap;

use sluice_protocol::{ConversationId, ConversationKind, UserId};
use sqlx::{MySqlConnection, Row, mysql::MySqlRow};

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Second, Sql, conversation_id, push_pairs, user_id},
};

/// What a piece of a month takes along.
#[derive(Default)]
pub(super) struct Leaving {
    /// Of each log its newest: seq, and the running sums there.
    logs: BTreeMap<ConversationId, (u64, u64, u64)>,
    /// Inbox places, by the message.
    pub(super) letters: Vec<(UserId, u64)>,
}

// === impl Leaving ===

impl Leaving {
    /// Of rows of a month, as they are read to drop it.
    pub(super) fn of(rows: &[MySqlRow]) -> Result<Self, Failure> {
        let mut leaving = Self::default();
        for row in rows {
            let id = conversation_id(row, 0)?;
            let message_id = row.try_get(2)?;
            if let ConversationKind::Private(first, second) = id.kind() {
                leaving
                    .letters
                    .extend([(first, message_id), (second, message_id)]);
            }
            // Ascending, so the last one stays.
            let newest = (row.try_get(1)?, row.try_get(3)?, row.try_get(4)?);
            leaving.logs.insert(id, newest);
        }
        leaving.letters.sort();
        Ok(leaving)
    }

    /// The logs begin behind these entries.
    pub(super) async fn raise_logs(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let logs: Vec<_> = self.logs.iter().collect();
        for logs in logs.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "INSERT INTO archived_log (conversation, first_seq, counting, counting_first) ",
            );
            sql.push_values(logs, |mut row, (id, (seq, counting, counting_first))| {
                row.push_bind(id.as_str().as_bytes());
                row.push_bind(seq + 1);
                row.push_bind(*counting).push_bind(*counting_first);
            });
            // All three only rise. From left to right, so the condition comes last.
            sql.push(
                " ON DUPLICATE KEY UPDATE counting = GREATEST(counting, VALUES(counting)),
                    counting_first = GREATEST(counting_first, VALUES(counting_first)),
                    first_seq = GREATEST(first_seq, VALUES(first_seq))",
            );
            sql.build().execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Inboxes begin behind these letters, and then they are no longer there.
pub(super) async fn leave_inboxes(
    connection: &mut MySqlConnection,
    letters: &[(UserId, u64)],
) -> Result<(), Failure> {
    let push_letters = |sql: &mut Sql| {
        let letters = letters.iter();
        let letters = letters.map(|(user, id)| (user.as_str(), Second::Number(*id)));
        push_pairs(sql, "user", "msg_id", letters);
    };
    let mut sql = Sql::new("SELECT user, MAX(user_seq) FROM user_msg_list WHERE");
    push_letters(&mut sql);
    sql.push(" GROUP BY user ORDER BY user");
    let mut ends: Vec<(UserId, u64)> = Vec::new();
    for row in sql.build().fetch_all(&mut *connection).await? {
        ends.push((user_id(&row, 0)?, row.try_get(1)?));
    }
    if ends.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO archived_inbox (user, first_seq) ");
    sql.push_values(&ends, |mut row, (user, seq)| {
        row.push_bind(user.as_str().as_bytes()).push_bind(seq + 1);
    });
    sql.push(" ON DUPLICATE KEY UPDATE first_seq = GREATEST(first_seq, VALUES(first_seq))");
    sql.build().execute(&mut *connection).await?;
    let mut sql = Sql::new("DELETE FROM user_msg_list WHERE");
    push_letters(&mut sql);
    sql.build().execute(&mut *connection).await?;
    Ok(())
}
