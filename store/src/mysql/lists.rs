//! Heads and conversation lists: which conversations from the user's server,
//! how they stand from theirs.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use sluice_protocol::{
    ConversationId, ConversationKind, Seq, UserId, UserSeq, limits::LEFT_GROUPS_MAX,
};
use sqlx::{MySqlConnection, Row};

use super::{
    MysqlStore,
    failure::Failure,
    log_rows::find_own,
    members::{FindMembers, Membership},
    pulls::{InboxEnd, entries},
    rows::{ROWS_MAX, Second, Sql, conversation_id, push_list, push_positions},
    servers::{Servers, Work},
};
use crate::{ConversationRow, Heads, ListCursor, StoreError};

/// A list never has more lines, whatever is asked.
const LIST_LINES_MAX: u32 = 1_000;

/// A user's groups after one, by id.
struct Groups<'g> {
    user: &'g UserId,
    after: Option<&'g ConversationId>,
    limit: u32,
}

/// How many groups a user is, or was, in.
struct CountGroups<'u>(&'u UserId);

/// Which of these groups, all of one server, a user has left, and when.
struct FindLeft<'c> {
    user: &'c UserId,
    groups: Vec<ConversationId>,
}

/// All conversations of a user.
struct Listed<'l>(&'l UserId);

/// How many entries of conversations count, up to and with a seq; and how many
/// of them are the user's own.
struct CountOthers<'c> {
    user: &'c UserId,
    positions: Vec<(ConversationId, u64)>,
}

/// See [`Store::heads`](crate::Store::heads).
pub(super) async fn heads(
    store: &MysqlStore,
    user: &UserId,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<Heads, StoreError> {
    let place = store.servers.of_user(user);
    let limit = limit.min(LIST_LINES_MAX);
    // The inbox first: a message that comes in between shows in the next pull.
    let inbox_seq = UserSeq(store.servers.read(place, &InboxEnd(user)).await?);
    let hidden = long_left(store, user).await?;
    // One more than asked for tells whether others follow.
    let groups = Groups {
        user,
        after,
        limit: (limit + 1).saturating_add(u32::try_from(hidden.len()).unwrap_or(u32::MAX)),
    };
    let mut ids = store.servers.read(place, &groups).await?;
    ids.retain(|id| !hidden.contains(id));
    let more = ids.len() > limit as usize;
    ids.truncate(limit as usize);
    let members = memberships(store, user, &ids).await?;
    let groups = ids.into_iter().filter_map(|id| {
        let member = members.get(&id)?;
        Some((id, Seq(member.begin()), Seq(member.last)))
    });
    Ok(Heads {
        inbox_seq,
        groups: groups.collect(),
        more,
    })
}

/// See [`Store::group_counts`](crate::Store::group_counts).
pub(super) async fn group_counts(
    store: &MysqlStore,
    users: &[UserId],
) -> Result<Vec<usize>, StoreError> {
    let mut counts = Vec::with_capacity(users.len());
    for user in users {
        let ids = all_groups(store, user).await?;
        let groups = ids.len();
        let left = left_groups(store, user, ids).await?;
        counts.push(groups.saturating_sub(left.len()));
    }
    Ok(counts)
}

/// Groups that the user left before those left last, which alone are among the
/// heads. Costs a look at every group of who has more than these.
async fn long_left(
    store: &MysqlStore,
    user: &UserId,
) -> Result<HashSet<ConversationId>, StoreError> {
    let place = store.servers.of_user(user);
    if store.servers.read(place, &CountGroups(user)).await? <= LEFT_GROUPS_MAX as u64 {
        return Ok(HashSet::new());
    }
    let ids = all_groups(store, user).await?;
    let mut left = left_groups(store, user, ids).await?;
    left.sort_unstable_by(|a, b| b.cmp(a));
    let older = left.into_iter().skip(LEFT_GROUPS_MAX);
    Ok(older.map(|(_, id)| id).collect())
}

async fn all_groups(store: &MysqlStore, user: &UserId) -> Result<Vec<ConversationId>, StoreError> {
    let groups = Groups {
        user,
        after: None,
        limit: u32::MAX,
    };
    (store.servers)
        .read(store.servers.of_user(user), &groups)
        .await
}

/// Which of these groups a user has left, and when.
async fn left_groups(
    store: &MysqlStore,
    user: &UserId,
    ids: Vec<ConversationId>,
) -> Result<Vec<(u64, ConversationId)>, StoreError> {
    let mut left = Vec::new();
    for (place, groups) in Servers::sort(ids, |id| store.servers.of_conversation(id)) {
        let find = FindLeft { user, groups };
        left.extend(store.servers.read(place, &find).await?);
    }
    Ok(left)
}

/// See [`Store::conversations`](crate::Store::conversations).
///
/// No row is written per member per message, so the order by newest entry is
/// made here: a page costs a look at every conversation of the user.
pub(super) async fn conversations(
    store: &MysqlStore,
    user: &UserId,
    cursor: Option<ListCursor>,
    limit: u32,
) -> Result<Vec<ConversationRow>, StoreError> {
    let ids = (store.servers)
        .read(store.servers.of_user(user), &Listed(user))
        .await?;
    let members = memberships(store, user, &ids).await?;
    let mut lines: Vec<(ListCursor, Membership)> = (members.into_values())
        .map(|member| (place_in_list(&member), member))
        .filter(|(place, _)| cursor.is_none_or(|cursor| *place < cursor))
        .collect();
    lines.sort_by_key(|(place, _)| Reverse(*place));
    lines.truncate(limit.min(LIST_LINES_MAX) as usize);
    fill(store, user, lines).await
}

fn place_in_list(member: &Membership) -> ListCursor {
    // FNV-1a; two conversations of one user whose last entries are of the same
    // millisecond have the same hash in one of 2^64 cases.
    let key = (member.conversation.as_str().bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| {
            (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    ListCursor {
        last_ms: member.last_ms,
        key,
    }
}

async fn fill(
    store: &MysqlStore,
    user: &UserId,
    lines: Vec<(ListCursor, Membership)>,
) -> Result<Vec<ConversationRow>, StoreError> {
    let last = |member: &Membership| (member.conversation.clone(), member.last);
    let positions: Vec<_> = lines.iter().map(|(_, member)| last(member)).collect();
    let mut newest = entries(store, &positions).await?;
    let mut ends = Vec::new();
    for (_, member) in &lines {
        ends.extend(unread_ends(member).into_iter().flatten());
    }
    let others = count_others(store, user, ends.into_iter()).await?;
    let peers = peers(store, user, &lines).await?;
    let rows = lines.into_iter().map(|(cursor, member)| {
        let counted = |position| others.get(&position).copied().unwrap_or(0);
        let peer = peers.get(&member.conversation);
        ConversationRow {
            first_seq: Seq(member.begin()),
            last_seq: Seq(member.last),
            read_seq: Seq(member.read),
            unread: (unread_ends(&member).into_iter())
                .map(|[last, above]| counted(last).saturating_sub(counted(above)))
                .fold(0, u64::saturating_add),
            peer_delivered_seq: Seq(peer.map_or(0, |peer| peer.delivered)),
            peer_read_seq: Seq(peer.map_or(0, |peer| peer.read)),
            last_entry: newest.remove(&last(&member)),
            cursor,
            conversation: member.conversation,
            name: member.name,
        }
    });
    Ok(rows.collect())
}

/// Both ends of what is unread, window by window.
fn unread_ends(member: &Membership) -> Vec<[(ConversationId, u64); 2]> {
    let ends = member.windows().map(|(first, last)| {
        let above = member.read.max(first.saturating_sub(1)).min(last);
        [last, above].map(|seq| (member.conversation.clone(), seq))
    });
    ends.collect()
}

/// The other parties of private conversations.
async fn peers(
    store: &MysqlStore,
    user: &UserId,
    lines: &[(ListCursor, Membership)],
) -> Result<HashMap<ConversationId, Membership>, StoreError> {
    let keys = lines.iter().filter_map(|(_, member)| {
        let peer = match member.conversation.kind() {
            ConversationKind::Group(_) => return None,
            ConversationKind::Private(first, second) if first == *user => second,
            ConversationKind::Private(first, _) => first,
        };
        Some((member.conversation.clone(), peer))
    });
    find_members(store, keys).await
}

async fn memberships(
    store: &MysqlStore,
    user: &UserId,
    ids: &[ConversationId],
) -> Result<HashMap<ConversationId, Membership>, StoreError> {
    find_members(store, ids.iter().map(|id| (id.clone(), user.clone()))).await
}

async fn find_members(
    store: &MysqlStore,
    keys: impl Iterator<Item = (ConversationId, UserId)>,
) -> Result<HashMap<ConversationId, Membership>, StoreError> {
    let mut members = HashMap::new();
    for (place, keys) in Servers::sort(keys, |(id, _)| store.servers.of_conversation(id)) {
        let found = store.servers.read(place, &FindMembers(keys)).await?;
        members.extend(found.into_iter().map(|m| (m.conversation.clone(), m)));
    }
    Ok(members)
}

async fn count_others(
    store: &MysqlStore,
    user: &UserId,
    positions: impl Iterator<Item = (ConversationId, u64)>,
) -> Result<HashMap<(ConversationId, u64), u64>, StoreError> {
    let mut counted = HashMap::new();
    let by_place = Servers::sort(positions, |(id, _)| store.servers.of_conversation(id));
    for (place, positions) in by_place {
        let count = CountOthers { user, positions };
        counted.extend(store.servers.read(place, &count).await?);
    }
    Ok(counted)
}

impl Work for Groups<'_> {
    type Answer = Vec<ConversationId>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<ConversationId>, Failure> {
        let after = self.after.map_or("", ConversationId::as_str);
        let rows = sqlx::query(
            "SELECT conversation FROM user_conversation_list
             WHERE user = ? AND is_group = 1 AND conversation > ? ORDER BY conversation LIMIT ?",
        )
        .bind(self.user.as_str().as_bytes())
        .bind(after.as_bytes())
        .bind(self.limit)
        .fetch_all(connection)
        .await?;
        let ids = rows.iter().map(|row| conversation_id(row, 0));
        Ok(ids.collect::<Result<_, _>>()?)
    }
}

impl Work for CountGroups<'_> {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<u64, Failure> {
        let row = sqlx::query(
            "SELECT CAST(COUNT(*) AS UNSIGNED) FROM user_conversation_list
             WHERE user = ? AND is_group = 1",
        )
        .bind(self.0.as_str().as_bytes())
        .fetch_one(connection)
        .await?;
        Ok(row.try_get(0)?)
    }
}

impl Work for FindLeft<'_> {
    type Answer = Vec<(u64, ConversationId)>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Self::Answer, Failure> {
        let mut left = Vec::new();
        for groups in self.groups.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "SELECT conversation, last_ms FROM member
                 WHERE last_seq IS NOT NULL AND last_ms IS NOT NULL AND user = ",
            );
            sql.push_bind(self.user.as_str().as_bytes());
            sql.push(" AND conversation IN (");
            push_list(&mut sql, groups.iter().map(|id| id.as_str().as_bytes()));
            sql.push(")");
            for row in sql.build().fetch_all(&mut *connection).await? {
                left.push((row.try_get(1)?, conversation_id(&row, 0)?));
            }
        }
        Ok(left)
    }
}

impl Work for Listed<'_> {
    type Answer = Vec<ConversationId>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<ConversationId>, Failure> {
        let rows = sqlx::query("SELECT conversation FROM user_conversation_list WHERE user = ?")
            .bind(self.0.as_str().as_bytes())
            .fetch_all(connection)
            .await?;
        let ids = rows.iter().map(|row| conversation_id(row, 0));
        Ok(ids.collect::<Result<_, _>>()?)
    }
}

impl Work for CountOthers<'_> {
    type Answer = Vec<((ConversationId, u64), u64)>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Self::Answer, Failure> {
        let groups = self.positions.iter().filter(|(id, _)| id.is_group());
        let groups: Vec<_> = groups.map(|(id, seq)| (id, self.user, *seq)).collect();
        let own: HashMap<_, _> = (find_own(connection, &groups).await?.into_iter())
            .map(|(id, _, seq, own)| ((id, seq), own))
            .collect();
        let mut counted = Vec::with_capacity(self.positions.len());
        for positions in self.positions.chunks(ROWS_MAX) {
            let mut sql =
                Sql::new("SELECT conversation, seq, counting, counting_first FROM message WHERE");
            let positions = positions.iter().map(|(id, seq)| (id, Second::Number(*seq)));
            push_positions(&mut sql, "conversation", "seq", positions);
            for row in sql.build().fetch_all(&mut *connection).await? {
                let position = (conversation_id(&row, 0)?, row.try_get(1)?);
                let others = self.others(&own, &position, (row.try_get(2)?, row.try_get(3)?));
                counted.push((position, others));
            }
        }
        self.count_archived(connection, &own, &mut counted).await?;
        Ok(counted)
    }
}

// === impl CountOthers ===

impl CountOthers<'_> {
    /// Of the running sums at a position: all, and those of the smaller name.
    fn others(
        &self,
        own: &HashMap<(ConversationId, u64), u64>,
        position: &(ConversationId, u64),
        (all, by_first): (u64, u64),
    ) -> u64 {
        let own = match position.0.kind() {
            ConversationKind::Group(_) => own.get(position).copied().unwrap_or(0),
            ConversationKind::Private(first, _) if first == *self.user => by_first,
            ConversationKind::Private(..) => all.saturating_sub(by_first),
        };
        all.saturating_sub(own)
    }

    /// Where the entry at a position is archived, the sums of the last one that
    /// is: what is archived is no longer unread.
    async fn count_archived(
        &self,
        connection: &mut MySqlConnection,
        own: &HashMap<(ConversationId, u64), u64>,
        counted: &mut Vec<((ConversationId, u64), u64)>,
    ) -> Result<(), Failure> {
        let there: HashSet<_> = counted
            .iter()
            .map(|(position, _)| position.clone())
            .collect();
        let gone: Vec<_> = (self.positions.iter())
            .filter(|position| position.1 > 0 && !there.contains(*position))
            .collect();
        for gone in gone.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "SELECT conversation, counting, counting_first FROM archived_log
                 WHERE conversation IN (",
            );
            push_list(&mut sql, gone.iter().map(|(id, _)| id.as_str().as_bytes()));
            sql.push(")");
            let mut sums = HashMap::new();
            for row in sql.build().fetch_all(&mut *connection).await? {
                let both: (u64, u64) = (row.try_get(1)?, row.try_get(2)?);
                sums.insert(conversation_id(&row, 0)?, both);
            }
            for position in gone {
                if let Some(sums) = sums.get(&position.0) {
                    let others = self.others(own, position, *sums);
                    counted.push(((*position).clone(), others));
                }
            }
        }
        Ok(())
    }
}
