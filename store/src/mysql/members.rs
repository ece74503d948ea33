//! Who is in a conversation, as reads see it.

use std::collections::{BTreeMap, HashMap};

use sluice_protocol::{ConversationId, Seq, UserId, packet::MemberRole};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::{
        ROWS_MAX, Second, Sql, conversation_id, damaged, push_list, push_positions, text, user_id,
    },
    servers::Work,
};
use crate::{Conversation, Member};

/// A user's place in a conversation.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    /// The closed windows of earlier memberships, ascending.
    pub(super) past: Vec<(u64, u64)>,
    /// The latest window: from here …
    pub(super) first: u64,
    /// … to here.
    pub(super) last: u64,
    /// The time of the last entry to be seen.
    pub(super) last_ms: u64,
    pub(super) role: u8,
    pub(super) delivered: u64,
    pub(super) read: u64,
    /// The conversation's, as of the last entry to be seen.
    pub(super) name: String,
    /// What is before is archived.
    pub(super) kept_from: u64,
}

// === impl Membership ===

impl Membership {
    /// Takes out of the windows what is archived.
    fn cut(&mut self) {
        self.past.retain(|(_, last)| *last >= self.kept_from);
        if let Some((first, _)) = self.past.first_mut() {
            *first = (*first).max(self.kept_from);
        }
        let empty = self.last.saturating_add(1);
        self.first = self.first.max(self.kept_from.min(empty));
    }

    /// The first entry that the user may see.
    pub(super) fn begin(&self) -> u64 {
        self.past.first().map_or(self.first, |(first, _)| *first)
    }

    /// All windows, ascending.
    pub(super) fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        let latest = (self.first, self.last);
        self.past.iter().copied().chain([latest])
    }
}

/// The places of users in conversations, in any order; who never was in one has none.
pub(super) struct FindMembers(pub(super) Vec<(ConversationId, UserId)>);

/// Conversations of one server with their members, in any order.
pub(super) struct FindConversations(pub(super) Vec<ConversationId>);

impl Work for FindMembers {
    type Answer = Vec<Membership>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<Membership>, Failure> {
        let keys: Vec<_> = self.0.iter().map(|(id, user)| (id, user)).collect();
        find_members(connection, &keys).await
    }
}

pub(super) async fn find_members(
    connection: &mut MySqlConnection,
    keys: &[(&ConversationId, &UserId)],
) -> Result<Vec<Membership>, Failure> {
    let mut members = Vec::with_capacity(keys.len());
    for keys in keys.chunks(ROWS_MAX) {
        let mut sql = Sql::new(
            "SELECT m.conversation, m.user, m.first_seq, COALESCE(m.last_seq, c.max_seq),
                    COALESCE(m.last_ms, c.last_ms), m.role, m.delivered_seq, m.read_seq,
                    COALESCE((SELECT p.name FROM past_name p
                              WHERE p.conversation = m.conversation AND p.until_seq > m.last_seq
                              ORDER BY p.until_seq LIMIT 1), c.name),
                    CAST(COALESCE(a.first_seq, 1) AS UNSIGNED)
             FROM member m JOIN conversation c ON c.conversation_id = m.conversation
             LEFT JOIN archived_log a ON a.conversation = m.conversation WHERE",
        );
        let keys = keys.iter().map(|(id, user)| (*id, Second::User(user)));
        push_positions(&mut sql, "m.conversation", "m.user", keys);
        for row in sql.build().fetch_all(&mut *connection).await? {
            let (conversation, user) = (conversation_id(&row, 0)?, user_id(&row, 1)?);
            members.push(Membership {
                conversation,
                user,
                past: Vec::new(),
                first: row.try_get(2)?,
                last: row.try_get(3)?,
                last_ms: row.try_get(4)?,
                role: row.try_get(5)?,
                delivered: row.try_get(6)?,
                read: row.try_get(7)?,
                name: text(&row, 8)?,
                kept_from: row.try_get(9)?,
            });
        }
    }
    // After the latest windows: who joined again between the two reads has the
    // window twice, not in neither place.
    let mut past = find_past(connection, keys).await?;
    for member in &mut members {
        let key = (member.conversation.clone(), member.user.clone());
        member.past = past.remove(&key).unwrap_or_default();
        member.past.retain(|(first, _)| *first < member.first);
        member.cut();
    }
    Ok(members)
}

/// The closed windows of those of the keys that have some; only groups do.
async fn find_past(
    connection: &mut MySqlConnection,
    keys: &[(&ConversationId, &UserId)],
) -> Result<HashMap<(ConversationId, UserId), Vec<(u64, u64)>>, Failure> {
    let mut past: HashMap<_, Vec<(u64, u64)>> = HashMap::new();
    let groups: Vec<_> = keys.iter().filter(|(id, _)| id.is_group()).collect();
    for keys in groups.chunks(ROWS_MAX) {
        let mut sql =
            Sql::new("SELECT conversation, user, first_seq, last_seq FROM past_membership WHERE");
        let keys = keys.iter().map(|(id, user)| (*id, Second::User(user)));
        push_positions(&mut sql, "conversation", "user", keys);
        sql.push(" ORDER BY first_seq");
        for row in sql.build().fetch_all(&mut *connection).await? {
            let key = (conversation_id(&row, 0)?, user_id(&row, 1)?);
            let window = (row.try_get(2)?, row.try_get(3)?);
            past.entry(key).or_default().push(window);
        }
    }
    Ok(past)
}

impl Work for FindConversations {
    type Answer = Vec<Conversation>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<Conversation>, Failure> {
        let mut found = BTreeMap::new();
        for ids in self.0.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "SELECT c.conversation_id, c.name, c.max_seq, m.user, m.role, m.first_seq
                 FROM conversation c LEFT JOIN member m
                   ON m.conversation = c.conversation_id AND m.last_seq IS NULL
                 WHERE c.conversation_id IN (",
            );
            push_list(&mut sql, ids.iter().map(|id| id.as_str().as_bytes()));
            sql.push(") ORDER BY c.conversation_id, m.first_seq, m.role DESC, m.user");
            for row in sql.build().fetch_all(&mut *connection).await? {
                let id = conversation_id(&row, 0)?;
                let (name, max_seq) = (text(&row, 1)?, Seq(row.try_get(2)?));
                let conversation = found.entry(id.clone()).or_insert_with(|| Conversation {
                    id,
                    name,
                    max_seq,
                    members: Vec::new(),
                });
                if row.try_get::<Option<Vec<u8>>, _>(3)?.is_none() {
                    continue;
                }
                conversation.members.push(Member {
                    user: user_id(&row, 3)?,
                    role: MemberRole::try_from(i32::from(row.try_get::<u8, _>(4)?))
                        .map_err(|_| damaged("an unknown role"))?,
                    first_seq: Seq(row.try_get(5)?),
                });
            }
        }
        Ok(found.into_values().collect())
    }
}
