//! What an entry does to its conversation beside lengthening the log: who is in
//! it, as what, under which name, and which message is recalled.

use sluice_protocol::{ConversationId, Seq, UserId, packet::MemberRole};
use sqlx::MySqlConnection;

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Sql, inserts, push_list},
};
use crate::NewEntry;

/// A checked effect; applying it cannot be refused any more.
pub(super) enum Effect<'e> {
    None,
    Found {
        name: &'e str,
        members: &'e [UserId],
    },
    /// A private conversation's first entry.
    Pair([UserId; 2]),
    Rename(&'e str),
    Join(&'e [UserId]),
    Leave(&'e UserId),
    SetRole(&'e UserId, MemberRole),
    Recall(Seq),
}

// === impl Effect ===

impl Effect<'_> {
    /// Applies it as of the entry at `seq`.
    pub(super) async fn apply(
        &self,
        connection: &mut MySqlConnection,
        entry: &NewEntry,
        seq: u64,
    ) -> Result<(), Failure> {
        let conversation = entry.conversation.as_str().as_bytes();
        match self {
            Effect::None => {}
            Effect::Found { name, members } => {
                rename(connection, conversation, name).await?;
                // The owner first: named again among the members, it stays the owner.
                let owner = std::slice::from_ref(&entry.sender);
                add(connection, conversation, owner, MemberRole::Owner, seq).await?;
                add(connection, conversation, members, MemberRole::Member, seq).await?;
            }
            Effect::Pair(parties) => {
                pair_up(connection, &[(&entry.conversation, parties, seq)]).await?;
            }
            Effect::Rename(name) => {
                keep_name(connection, conversation, name, seq).await?;
                rename(connection, conversation, name).await?;
            }
            Effect::Join(users) => {
                keep_windows(connection, conversation, users).await?;
                add(connection, conversation, users, MemberRole::Member, seq).await?;
            }
            Effect::Leave(user) => {
                sqlx::query(
                    "UPDATE member SET last_seq = ?, last_ms = ?
                     WHERE conversation = ? AND user = ? AND last_seq IS NULL",
                )
                .bind(seq)
                .bind(entry.server_time_ms)
                .bind(conversation)
                .bind(user.as_str().as_bytes())
                .execute(connection)
                .await?;
            }
            Effect::SetRole(user, role) => {
                sqlx::query(
                    "UPDATE member SET role = ?
                     WHERE conversation = ? AND user = ? AND last_seq IS NULL",
                )
                .bind(*role as i32)
                .bind(conversation)
                .bind(user.as_str().as_bytes())
                .execute(connection)
                .await?;
            }
            Effect::Recall(target) => {
                sqlx::query(
                    "UPDATE message SET recalled = 1, body = ''
                     WHERE conversation = ? AND seq = ?",
                )
                .bind(conversation)
                .bind(target.0)
                .execute(&mut *connection)
                .await?;
                sqlx::query("INSERT INTO recall (conversation, target, seq) VALUES (?, ?, ?)")
                    .bind(conversation)
                    .bind(target.0)
                    .bind(seq)
                    .execute(connection)
                    .await?;
            }
        }
        Ok(())
    }
}

async fn rename(
    connection: &mut MySqlConnection,
    conversation: &[u8],
    name: &str,
) -> Result<(), Failure> {
    sqlx::query("UPDATE conversation SET name = ? WHERE conversation_id = ?")
        .bind(name.as_bytes())
        .bind(conversation)
        .execute(connection)
        .await?;
    Ok(())
}

/// Those who left before a renaming go on seeing the name that was.
async fn keep_name(
    connection: &mut MySqlConnection,
    conversation: &[u8],
    new: &str,
    until: u64,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO past_name (conversation, until_seq, name)
         SELECT conversation_id, ?, name FROM conversation
         WHERE conversation_id = ? AND name <> ?",
    )
    .bind(until)
    .bind(conversation)
    .bind(new.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the parties of private conversations, which come into being, members.
pub(super) async fn pair_up(
    connection: &mut MySqlConnection,
    pairs: &[(&ConversationId, &[UserId; 2], u64)],
) -> Result<(), Failure> {
    let mut rows: Vec<_> = (pairs.iter())
        .flat_map(|(id, parties, seq)| parties.iter().map(move |user| (*id, user, *seq)))
        .collect();
    rows.sort_unstable();
    for rows in inserts(&rows) {
        let mut sql = Sql::new("INSERT INTO member (conversation, user, first_seq, role) ");
        sql.push_values(rows, |mut row, (conversation, user, seq)| {
            row.push_bind(conversation.as_str().as_bytes());
            row.push_bind(user.as_str().as_bytes());
            row.push_bind(*seq).push_bind(MemberRole::Member as i32);
        });
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Who left before and joins again keeps the window that they had.
async fn keep_windows(
    connection: &mut MySqlConnection,
    conversation: &[u8],
    users: &[UserId],
) -> Result<(), Failure> {
    for users in users.chunks(ROWS_MAX) {
        let mut sql = Sql::new(
            "INSERT INTO past_membership (conversation, user, first_seq, last_seq)
             SELECT conversation, user, first_seq, last_seq FROM member
             WHERE last_seq IS NOT NULL AND conversation = ",
        );
        sql.push_bind(conversation).push(" AND user IN (");
        push_list(&mut sql, users.iter().map(|user| user.as_str().as_bytes()));
        sql.push(")").build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Who is in already stays as they are; who left before begins anew.
async fn add(
    connection: &mut MySqlConnection,
    conversation: &[u8],
    users: &[UserId],
    role: MemberRole,
    seq: u64,
) -> Result<(), Failure> {
    for users in inserts(users) {
        let mut sql = Sql::new("INSERT INTO member (conversation, user, first_seq, role) ");
        sql.push_values(users, |mut row, user| {
            row.push_bind(conversation);
            row.push_bind(user.as_str().as_bytes());
            row.push_bind(seq).push_bind(role as i32);
        });
        // Assigned from left to right, so what is asked about goes last.
        sql.push(
            " ON DUPLICATE KEY UPDATE
                first_seq = IF(last_seq IS NULL, first_seq, VALUES(first_seq)),
                role = IF(last_seq IS NULL, role, VALUES(role)),
                last_ms = NULL, last_seq = NULL",
        );
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}
