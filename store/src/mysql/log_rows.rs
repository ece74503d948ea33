//! What a commit reads of its conversations: where their logs end, what of the
//! batch is stored or recalled already, how far senders have counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_protocol::{ClientMsgId, ConversationId, UserId};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::{
        ROWS_MAX, Second, Sql, client_msg_id, conversation_id, padded, push_list, push_positions,
        user_id,
    },
};
use crate::{Content, NewEntry};

/// (conversation, sender, the sender's name for it)
pub(super) type SentKey = (ConversationId, UserId, ClientMsgId);

/// A log's end, as of its newest entry.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogEnd {
    pub(super) seq: u64,
    pub(super) last_ms: u64,
    pub(super) counting: u64,
    pub(super) counting_first: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) end: LogEnd,
    /// Where it was before the batch; 0: there was none.
    pub(super) before: u64,
}

/// The ends of the conversations' logs, their rows locked in order.
pub(super) async fn load_logs(
    connection: &mut MySqlConnection,
    entries: &[&NewEntry],
) -> Result<BTreeMap<ConversationId, Log>, Failure> {
    let ids: BTreeSet<&ConversationId> = entries.iter().map(|e| &e.conversation).collect();
    let ids: Vec<&ConversationId> = ids.into_iter().collect();
    let mut logs = BTreeMap::new();
    for ids in ids.chunks(ROWS_MAX) {
        let mut sql = Sql::new(
            "SELECT conversation_id, max_seq, last_ms, counting, counting_first
             FROM conversation WHERE conversation_id IN (",
        );
        push_list(&mut sql, ids.iter().map(|id| id.as_str().as_bytes()));
        sql.push(") ORDER BY conversation_id FOR UPDATE");
        for row in sql.build().fetch_all(&mut *connection).await? {
            let end = LogEnd {
                seq: row.try_get(1)?,
                last_ms: row.try_get(2)?,
                counting: row.try_get(3)?,
                counting_first: row.try_get(4)?,
            };
            let before = end.seq;
            logs.insert(conversation_id(&row, 0)?, Log { end, before });
        }
    }
    Ok(logs)
}

/// Which of the entries, and of their predecessors, are stored, and where.
pub(super) async fn load_sent(
    connection: &mut MySqlConnection,
    entries: &[&NewEntry],
) -> Result<HashMap<SentKey, u64>, Failure> {
    let keys = entries.iter().flat_map(|entry| {
        let ids = std::iter::once(entry.client_msg_id).chain(entry.predecessor);
        ids.map(|id| (&entry.conversation, id))
    });
    let keys: Vec<(&ConversationId, ClientMsgId)> = keys.collect();
    find_sent(connection, &keys).await
}

/// Where what was sent under these ids is stored, whoever sent it. Only the
/// months that the ids speak of are looked at.
pub(super) async fn find_sent(
    connection: &mut MySqlConnection,
    keys: &[(&ConversationId, ClientMsgId)],
) -> Result<HashMap<SentKey, u64>, Failure> {
    let mut sent = HashMap::new();
    for keys in keys.chunks(ROWS_MAX) {
        let times = || keys.iter().map(|(_, id)| id.unix_ms());
        let mut sql = Sql::new(
            "SELECT conversation, sender, client_msg_id, seq FROM dedup WHERE client_ms BETWEEN ",
        );
        sql.push_bind(times().min().unwrap_or(0));
        sql.push(" AND ").push_bind(times().max().unwrap_or(0));
        sql.push(" AND (");
        let named = keys.iter().map(|(id, name)| (*id, Second::Sent(*name)));
        push_positions(&mut sql, "conversation", "client_msg_id", named);
        sql.push(")");
        for row in sql.build().fetch_all(&mut *connection).await? {
            let key = (
                conversation_id(&row, 0)?,
                user_id(&row, 1)?,
                client_msg_id(&row, 2)?,
            );
            sent.insert(key, row.try_get(3)?);
        }
    }
    Ok(sent)
}

/// Which entries recalled the messages that the batch recalls.
pub(super) async fn load_recalls(
    connection: &mut MySqlConnection,
    entries: &[&NewEntry],
) -> Result<HashMap<(ConversationId, u64), u64>, Failure> {
    let targets = entries.iter().filter_map(|entry| match entry.content {
        Content::Recall { seq } => Some((&entry.conversation, seq.0)),
        _ => None,
    });
    let targets: BTreeSet<_> = targets.collect();
    let targets: Vec<_> = targets.into_iter().collect();
    let mut recalls = HashMap::new();
    for targets in targets.chunks(ROWS_MAX) {
        let mut sql = Sql::new("SELECT conversation, target, seq FROM recall WHERE");
        let targets = targets.iter().map(|(id, seq)| (*id, Second::Number(*seq)));
        push_positions(&mut sql, "conversation", "target", targets);
        for row in sql.build().fetch_all(&mut *connection).await? {
            let key = (conversation_id(&row, 0)?, row.try_get(1)?);
            recalls.insert(key, row.try_get(2)?);
        }
    }
    Ok(recalls)
}

/// How many counting entries senders have in groups, up to and with a seq, as
/// (group, sender, that seq, count); those without any are left out.
pub(super) async fn find_own(
    connection: &mut MySqlConnection,
    wanted: &[(&ConversationId, &UserId, u64)],
) -> Result<Vec<(ConversationId, UserId, u64, u64)>, Failure> {
    let mut found = Vec::new();
    for wanted in wanted.chunks(ROWS_MAX) {
        let mut sql = Sql::new("");
        for (at, (id, user, seq)) in padded(wanted).into_iter().enumerate() {
            sql.push(if at == 0 { "" } else { " UNION ALL " });
            sql.push("(SELECT conversation, sender, CAST(")
                .push_bind(*seq);
            sql.push(" AS UNSIGNED), own FROM group_own_list WHERE conversation = ");
            sql.push_bind(id.as_str().as_bytes());
            sql.push(" AND sender = ")
                .push_bind(user.as_str().as_bytes());
            sql.push(" AND seq <= ").push_bind(*seq);
            sql.push(" ORDER BY seq DESC LIMIT 1)");
        }
        for row in sql.build().fetch_all(&mut *connection).await? {
            found.push((
                conversation_id(&row, 0)?,
                user_id(&row, 1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ));
        }
    }
    Ok(found)
}
