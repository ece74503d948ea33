//! Heads, conversation lists and members.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sluice_protocol::{
    ConversationId, Seq, UserId, UserSeq, limits::LEFT_GROUPS_MAX, packet::MemberRole,
};

use super::{
    conversation_state::{inbox_end, user_key},
    entry_row::{conversation_id, entry_columns, stored_entry, user_id},
    integer::{ConversationKey, UserKey, from_sql, to_sql},
    pulls::past_windows,
    readers::Read,
};
use crate::{Conversation, ConversationRow, Heads, ListCursor, Member, StoreError, StoredEntry};

/// A list never has more lines, whatever is asked.
const LIST_LINES_MAX: u32 = 1_000;

/// See [`Store::heads`](crate::Store::heads).
pub(super) struct HeadsOf {
    pub(super) user: UserId,
    pub(super) after: Option<ConversationId>,
    pub(super) limit: u32,
}

/// See [`Store::group_counts`](crate::Store::group_counts).
pub(super) struct GroupCounts(pub(super) Vec<UserId>);

/// See [`Store::conversations`](crate::Store::conversations).
///
/// No row is written per member per message, so the order by newest entry is
/// made here: a page costs two look-ups for every conversation of the user.
pub(super) struct Conversations {
    pub(super) user: UserId,
    pub(super) cursor: Option<ListCursor>,
    pub(super) limit: u32,
}

/// See [`Store::conversation_members`](crate::Store::conversation_members).
pub(super) struct Members(pub(super) Vec<ConversationId>);

/// A line as it is selected, before what it shows is looked up.
struct Line {
    key: ConversationKey,
    conversation: ConversationId,
    name: String,
    is_group: bool,
    first: u64,
    last: u64,
    read: u64,
    last_ms: u64,
}

impl Read for HeadsOf {
    type Answer = Heads;

    fn read(&self, connection: &Connection) -> Result<Heads, StoreError> {
        let mut heads = Heads {
            inbox_seq: UserSeq(0),
            groups: Vec::new(),
            more: false,
        };
        let Some(user) = user_key(connection, &self.user)? else {
            return Ok(heads);
        };
        heads.inbox_seq = UserSeq(inbox_end(connection, user)?);
        let after = match &self.after {
            Some(id) => conversation_key(connection, id)?.unwrap_or(ConversationKey(0)),
            None => ConversationKey(0),
        };
        let limit = self.limit.min(LIST_LINES_MAX) as usize;
        let mut statement = connection.prepare_cached(
            "SELECT c.conversation_id,
               coalesce((SELECT min(p.first_seq) FROM past_membership p
                         WHERE p.user = l.user AND p.conversation = l.conversation), l.first_seq),
               coalesce(l.last_seq,
               (SELECT max(seq) FROM message WHERE conversation = l.conversation))
             FROM user_conversation_list l CROSS JOIN conversation c ON c.id = l.conversation
             WHERE l.user = ?1 AND l.is_group = 1 AND l.conversation > ?2
               AND (?4 IS NULL OR l.last_seq IS NULL OR
                 ((SELECT send_ms FROM message
                   WHERE conversation = l.conversation AND seq = l.last_seq), l.conversation)
                 >= (?4, ?5))
             ORDER BY l.conversation LIMIT ?3",
        )?;
        let (since_ms, since) = oldest_left(connection, user)?.unzip();
        // One more than asked for tells whether others follow.
        let mut rows = statement.query(params![user, after, limit as i64 + 1, since_ms, since])?;
        while let Some(row) = rows.next()? {
            if heads.groups.len() == limit {
                heads.more = true;
                break;
            }
            heads.groups.push((
                conversation_id(row, 0)?,
                Seq(from_sql(row.get(1)?)),
                Seq(from_sql(row.get(2)?)),
            ));
        }
        Ok(heads)
    }
}

impl Read for GroupCounts {
    type Answer = Vec<usize>;

    fn read(&self, connection: &Connection) -> Result<Vec<usize>, StoreError> {
        let mut count = connection.prepare_cached(
            "SELECT count(*) FROM user_conversation_list
             WHERE user = (SELECT id FROM users WHERE user_id = ?1) AND is_group = 1
               AND last_seq IS NULL",
        )?;
        (self.0.iter())
            .map(|user| {
                let groups = count.query_row([user.as_str()], |row| row.get(0))?;
                Ok(from_sql(groups) as usize)
            })
            .collect()
    }
}

impl Read for Conversations {
    type Answer = Vec<ConversationRow>;

    fn read(&self, connection: &Connection) -> Result<Vec<ConversationRow>, StoreError> {
        let Some(user) = user_key(connection, &self.user)? else {
            return Ok(Vec::new());
        };
        (self.lines(connection, user)?.into_iter())
            .map(|line| line.fill(connection, user))
            .collect()
    }
}

impl Read for Members {
    type Answer = Vec<Option<Conversation>>;

    fn read(&self, connection: &Connection) -> Result<Self::Answer, StoreError> {
        (self.0.iter())
            .map(|id| conversation(connection, id))
            .collect()
    }
}

// === impl Conversations ===

impl Conversations {
    fn lines(&self, connection: &Connection, user: UserKey) -> Result<Vec<Line>, StoreError> {
        // A conversation that was left stands where its last visible entry stands.
        let mut statement = connection.prepare_cached(
            "SELECT v.id, c.conversation_id,
                    coalesce((SELECT p.name FROM past_name p
                              WHERE p.conversation = v.id AND p.until_seq > v.left_seq
                              ORDER BY p.until_seq LIMIT 1), c.name),
                    v.is_group, v.first_seq, v.last, v.read_seq, m.send_ms
             FROM (
               SELECT l.conversation AS id, l.is_group, l.first_seq, l.read_seq,
                      l.last_seq AS left_seq,
                      coalesce(l.last_seq,
                        (SELECT max(seq) FROM message WHERE conversation = l.conversation)) AS last
               FROM user_conversation_list l WHERE l.user = ?1) v
             CROSS JOIN message m ON m.conversation = v.id AND m.seq = v.last
             CROSS JOIN conversation c ON c.id = v.id
             WHERE (m.send_ms, v.id) < (?2, ?3)
             ORDER BY m.send_ms DESC, v.id DESC LIMIT ?4",
        )?;
        let (last_ms, key) = match self.cursor {
            Some(cursor) => (to_sql(cursor.last_ms), to_sql(cursor.key)),
            None => (i64::MAX, i64::MAX),
        };
        let limit = self.limit.min(LIST_LINES_MAX);
        let mut rows = statement.query(params![user, last_ms, key, limit])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            lines.push(Line::of(row)?);
        }
        Ok(lines)
    }
}

// === impl Line ===

impl Line {
    fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            key: row.get(0)?,
            conversation: conversation_id(row, 1)?,
            name: row.get(2)?,
            is_group: row.get(3)?,
            first: from_sql(row.get(4)?),
            last: from_sql(row.get(5)?),
            read: from_sql(row.get(6)?),
            last_ms: from_sql(row.get(7)?),
        })
    }

    fn fill(self, connection: &Connection, user: UserKey) -> Result<ConversationRow, StoreError> {
        let (peer_delivered_seq, peer_read_seq) = if self.is_group {
            (Seq(0), Seq(0))
        } else {
            peer_cursors(connection, self.key, user)?
        };
        let past = if self.is_group {
            past_windows(connection, user, self.key)?
        } else {
            Vec::new()
        };
        Ok(ConversationRow {
            unread: self.unread(connection, user, &past)?,
            last_entry: self.last_entry(connection)?,
            name: self.name,
            first_seq: Seq(past.first().map_or(self.first, |(first, _)| *first)),
            last_seq: Seq(self.last),
            read_seq: Seq(self.read),
            peer_delivered_seq,
            peer_read_seq,
            cursor: ListCursor {
                last_ms: self.last_ms,
                key: from_sql(self.key.0),
            },
            conversation: self.conversation,
        })
    }

    /// Messages of others above the read cursor, within what the user may see.
    /// A recalled message still counts: its place in the log is to be seen.
    fn unread(
        &self,
        connection: &Connection,
        user: UserKey,
        past: &[(u64, u64)],
    ) -> Result<u64, StoreError> {
        let counting = |seq| others_counting(connection, self.key, self.is_group, user, seq);
        let mut unread = 0_u64;
        for (first, last) in past.iter().copied().chain([(self.first, self.last)]) {
            let above = self.read.max(first.saturating_sub(1));
            if above < last {
                let in_window = counting(last)?.saturating_sub(counting(above)?);
                unread = unread.saturating_add(in_window);
            }
        }
        Ok(unread)
    }

    fn last_entry(&self, connection: &Connection) -> Result<Option<StoredEntry>, StoreError> {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            " FROM message m CROSS JOIN users u ON u.id = m.sender
             WHERE m.conversation = ?1 AND m.seq = ?2"
        ))?;
        let mut rows = statement.query(params![self.key, to_sql(self.last)])?;
        (rows.next()?)
            .map(|row| stored_entry(row, 0, self.conversation.clone()))
            .transpose()
    }
}

/// How many entries up to and with `seq` count as unread for this user.
fn others_counting(
    connection: &Connection,
    conversation: ConversationKey,
    is_group: bool,
    user: UserKey,
    seq: u64,
) -> Result<u64, StoreError> {
    let sums = connection
        .prepare_cached(
            "SELECT counting, counting_first FROM message WHERE conversation = ?1 AND seq = ?2",
        )?
        .query_row(params![conversation, to_sql(seq)], |row| {
            Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))
        })
        .optional()?;
    let Some((counting, by_first)) = sums else {
        return Ok(0);
    };
    let own = if is_group {
        from_sql(
            connection
                .prepare_cached(
                    "SELECT own FROM group_own_list
                     WHERE sender = ?1 AND conversation = ?2 AND seq <= ?3
                     ORDER BY seq DESC LIMIT 1",
                )?
                .query_row(params![user, conversation, to_sql(seq)], |row| row.get(0))
                .optional()?
                .unwrap_or(0),
        )
    } else if is_first_party(connection, conversation, user)? {
        by_first
    } else {
        counting.saturating_sub(by_first)
    };
    Ok(counting.saturating_sub(own))
}

/// Whether the user has the smaller name of a private conversation's two.
fn is_first_party(
    connection: &Connection,
    conversation: ConversationKey,
    user: UserKey,
) -> Result<bool, StoreError> {
    let first: Option<UserKey> = connection
        .prepare_cached(
            "SELECT u.id FROM user_conversation_list l CROSS JOIN users u ON u.id = l.user
             WHERE l.conversation = ?1 ORDER BY u.user_id LIMIT 1",
        )?
        .query_row([conversation], |row| row.get(0))
        .optional()?;
    Ok(first == Some(user))
}

fn peer_cursors(
    connection: &Connection,
    conversation: ConversationKey,
    user: UserKey,
) -> Result<(Seq, Seq), StoreError> {
    let cursors = connection
        .prepare_cached(
            "SELECT delivered_seq, read_seq FROM user_conversation_list
             WHERE conversation = ?1 AND user <> ?2",
        )?
        .query_row(params![conversation, user], |row| {
            Ok((Seq(from_sql(row.get(0)?)), Seq(from_sql(row.get(1)?))))
        })
        .optional()?;
    Ok(cursors.unwrap_or_default())
}

/// The oldest of the groups that were left last, with the time of the leaving;
/// `None` while all that were left are few enough. Costs a look at every group
/// of who has more than that.
fn oldest_left(
    connection: &Connection,
    user: UserKey,
) -> Result<Option<(i64, ConversationKey)>, StoreError> {
    let groups: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM user_conversation_list WHERE user = ?1 AND is_group = 1",
        )?
        .query_row([user], |row| row.get(0))?;
    if from_sql(groups) <= LEFT_GROUPS_MAX as u64 {
        return Ok(None);
    }
    let oldest = connection
        .prepare_cached(
            "SELECT m.send_ms, l.conversation
             FROM user_conversation_list l
             CROSS JOIN message m ON m.conversation = l.conversation AND m.seq = l.last_seq
             WHERE l.user = ?1 AND l.is_group = 1
             ORDER BY m.send_ms DESC, l.conversation DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![user, LEFT_GROUPS_MAX as i64 - 1], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(oldest)
}

fn conversation_key(
    connection: &Connection,
    id: &ConversationId,
) -> Result<Option<ConversationKey>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT id FROM conversation WHERE conversation_id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?)
}

fn conversation(
    connection: &Connection,
    id: &ConversationId,
) -> Result<Option<Conversation>, StoreError> {
    let row = connection
        .prepare_cached(
            "SELECT id, name, (SELECT max(seq) FROM message WHERE conversation = id)
             FROM conversation WHERE conversation_id = ?1",
        )?
        .query_row([id.as_str()], |row| {
            Ok((
                row.get::<_, ConversationKey>(0)?,
                row.get::<_, String>(1)?,
                Seq(from_sql(row.get(2)?)),
            ))
        })
        .optional()?;
    let Some((key, name, max_seq)) = row else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(
        "SELECT u.user_id, l.role, l.first_seq
         FROM user_conversation_list l CROSS JOIN users u ON u.id = l.user
         WHERE l.conversation = ?1 AND l.last_seq IS NULL ORDER BY l.user",
    )?;
    let mut rows = statement.query([key])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(Member {
            user: user_id(row, 0)?,
            role: MemberRole::try_from(row.get::<_, i32>(1)?)
                .map_err(|_| StoreError::Damaged("an unknown role".to_owned()))?,
            first_seq: Seq(from_sql(row.get(2)?)),
        });
    }
    Ok(Some(Conversation {
        id: id.clone(),
        name,
        max_seq,
        members,
    }))
}
