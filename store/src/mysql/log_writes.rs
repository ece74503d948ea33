//! What a commit writes of its conversations' logs: their ends, the entries, what
//! was sent, how far senders have counted.

use std::collections::BTreeMap;

use sluice_protocol::ConversationId;
use sqlx::MySqlConnection;

use super::{
    failure::Failure,
    log_rows::{Log, LogEnd},
    rows::{ROWS_MAX, Sql, insert_len, inserts, padded},
};
use crate::{NewEntry, content_row::ContentRow};

/// Bodies of one INSERT. Servers take 16 MiB by default.
const BODIES_MAX_BYTES: usize = 4 * 1024 * 1024;

/// An entry to be written.
pub(super) struct Added<'c> {
    pub(super) entry: &'c NewEntry,
    pub(super) content: ContentRow<'c>,
    pub(super) end: LogEnd,
}

/// An entry whose id is to be remembered, with the seq that it names.
pub(super) type Named<'c> = (&'c NewEntry, u64);

/// A counting entry of a group, its seq and its number among its sender's.
pub(super) type Own<'c> = (&'c NewEntry, u64, u64);

/// Moves the ends. A conversation that another commit made in the meantime
/// fails the INSERT, and the batch is decided anew.
pub(super) async fn write_logs(
    connection: &mut MySqlConnection,
    logs: &BTreeMap<ConversationId, Log>,
) -> Result<(), Failure> {
    let moved = logs.iter().filter(|(_, log)| log.end.seq > log.before);
    let (new, known): (Vec<_>, Vec<_>) = moved.partition(|(_, log)| log.before == 0);
    for logs in inserts(&new) {
        let mut sql = ends(logs);
        sql.build().execute(&mut *connection).await?;
    }
    for logs in known.chunks(ROWS_MAX) {
        let mut sql = ends(&padded(logs.iter().copied()));
        sql.push(
            " ON DUPLICATE KEY UPDATE max_seq = VALUES(max_seq), last_ms = VALUES(last_ms),
              counting = VALUES(counting), counting_first = VALUES(counting_first)",
        );
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn ends(logs: &[(&ConversationId, &Log)]) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO conversation
         (conversation_id, name, max_seq, last_ms, counting, counting_first) ",
    );
    sql.push_values(logs, |mut row, (id, log)| {
        row.push_bind(id.as_str().as_bytes()).push("''");
        row.push_bind(log.end.seq).push_bind(log.end.last_ms);
        row.push_bind(log.end.counting);
        row.push_bind(log.end.counting_first);
    });
    sql
}

pub(super) async fn write_messages(
    connection: &mut MySqlConnection,
    added: &mut [Added<'_>],
) -> Result<(), Failure> {
    // By key: rows that lie together are written together.
    added.sort_by(|a, b| {
        (&a.entry.conversation, a.end.seq).cmp(&(&b.entry.conversation, b.end.seq))
    });
    let mut rest = &added[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(ROWS_MAX).take_while(|added| {
            bytes += added.content.body.len();
            bytes <= BODIES_MAX_BYTES
        });
        let (now, later) = rest.split_at(insert_len(fit.count().max(1)));
        insert_messages(connection, now).await?;
        rest = later;
    }
    Ok(())
}

async fn insert_messages(
    connection: &mut MySqlConnection,
    added: &[Added<'_>],
) -> Result<(), Failure> {
    let mut sql = Sql::new(
        "INSERT INTO message (conversation, seq, send_ms, msg_id, sender, client_msg_id,
           kind, content_type, recalled, counting, counting_first, body) ",
    );
    sql.push_values(added, |mut row, added| {
        let Added {
            entry,
            content,
            end,
        } = added;
        row.push_bind(entry.conversation.as_str().as_bytes());
        row.push_bind(end.seq).push_bind(end.last_ms);
        row.push_bind(entry.message_id.0);
        row.push_bind(entry.sender.as_str().as_bytes());
        row.push_bind(&entry.client_msg_id.as_bytes()[..]);
        row.push_bind(content.kind).push_bind(content.content_type);
        row.push("0");
        row.push_bind(end.counting).push_bind(end.counting_first);
        row.push_bind(&content.body[..]);
    });
    sql.build().execute(connection).await?;
    Ok(())
}

pub(super) async fn write_sent(
    connection: &mut MySqlConnection,
    named: &mut [Named<'_>],
) -> Result<(), Failure> {
    named.sort_by_key(|(entry, _)| entry.client_msg_id);
    for named in inserts(named) {
        let mut sql =
            Sql::new("INSERT INTO dedup (client_msg_id, conversation, sender, client_ms, seq) ");
        sql.push_values(named, |mut row, (entry, seq)| {
            row.push_bind(&entry.client_msg_id.as_bytes()[..]);
            row.push_bind(entry.conversation.as_str().as_bytes());
            row.push_bind(entry.sender.as_str().as_bytes());
            row.push_bind(entry.client_msg_id.unix_ms());
            row.push_bind(*seq);
        });
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn write_own(
    connection: &mut MySqlConnection,
    own: &[Own<'_>],
) -> Result<(), Failure> {
    for own in inserts(own) {
        let mut sql = Sql::new("INSERT INTO group_own_list (conversation, sender, seq, own) ");
        sql.push_values(own, |mut row, (entry, seq, own)| {
            row.push_bind(entry.conversation.as_str().as_bytes());
            row.push_bind(entry.sender.as_str().as_bytes());
            row.push_bind(*seq).push_bind(*own);
        });
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}
