//! Stretches of inboxes and logs.

use std::collections::HashMap;

use sluice_protocol::{ConversationId, Seq, UserId, UserSeq};
use sqlx::{MySqlConnection, Row};

use super::{
    MysqlStore,
    failure::Failure,
    members::find_members,
    rows::{ENTRY_COLUMNS, ROWS_MAX, Second, Sql, conversation_id, push_positions, stored_entry},
    servers::{Servers, Work},
};
use crate::{
    ConversationPage, InboxPage, PageLimit, Range, StoreError, StoredEntry,
    page::{Budget, window_of},
};

/// Entries by position, all of one server.
pub(super) struct Entries(pub(super) Vec<(ConversationId, u64)>);

/// See [`Store::conversation_log`](crate::Store::conversation_log).
pub(super) struct ConversationLog<'l> {
    pub(super) user: &'l UserId,
    pub(super) conversation: &'l ConversationId,
    pub(super) range: Range,
    pub(super) limit: PageLimit,
}

/// See [`Store::present_window`](crate::Store::present_window).
pub(super) struct PresentWindow<'w> {
    pub(super) user: &'w UserId,
    pub(super) conversation: &'w ConversationId,
}

/// Positions in an inbox, and what they point to.
struct Letters<'l> {
    user: &'l UserId,
    after: u64,
    limit: u32,
}

struct LetterPage {
    first_seq: u64,
    inbox_seq: u64,
    letters: Vec<(u64, (ConversationId, u64))>,
}

/// Where an inbox ends; 0 for nobody's.
pub(super) struct InboxEnd<'u>(pub(super) &'u UserId);

/// How often a page is begun anew because a month is being dropped.
const AGAIN_MAX: u32 = 3;

/// See [`Store::inbox`](crate::Store::inbox). A page of positions from the
/// user's server, then the entries from theirs.
pub(super) async fn inbox(
    store: &MysqlStore,
    user: &UserId,
    after: UserSeq,
    limit: PageLimit,
) -> Result<InboxPage, StoreError> {
    let mut again = 0;
    loop {
        match inbox_once(store, user, after, limit).await? {
            Ok(page) => return Ok(page),
            // Dropped in between; then the inbox begins behind it by now.
            Err(_) if again < AGAIN_MAX => again += 1,
            Err((id, seq)) => {
                return Err(StoreError::Damaged(format!("an inbox without {id} {seq}")));
            }
        }
    }
}

/// A page, or the entry that the inbox has and its log has not.
async fn inbox_once(
    store: &MysqlStore,
    user: &UserId,
    after: UserSeq,
    limit: PageLimit,
) -> Result<Result<InboxPage, (ConversationId, u64)>, StoreError> {
    let mut budget = Budget::new(limit);
    let letters = Letters {
        user,
        after: after.0,
        limit: budget.entries,
    };
    let found = store
        .servers
        .read(store.servers.of_user(user), &letters)
        .await?;
    let mut page = InboxPage {
        entries: Vec::new(),
        first_seq: UserSeq(found.first_seq),
        inbox_seq: UserSeq(found.inbox_seq),
        more: false,
    };
    // In pieces: the bytes may be used up long before the entries are.
    'page: for letters in found.letters.chunks(ROWS_MAX) {
        let positions: Vec<_> = letters
            .iter()
            .map(|(_, position)| position.clone())
            .collect();
        let mut entries = entries(store, &positions).await?;
        for (user_seq, position) in letters {
            let Some(entry) = entries.remove(position) else {
                return Ok(Err(position.clone()));
            };
            if !budget.take(&entry) {
                break 'page;
            }
            page.entries.push((UserSeq(*user_seq), entry));
        }
    }
    let reached = page.entries.last().map_or(after, |(seq, _)| *seq);
    let reached = reached.0.max(page.first_seq.0.saturating_sub(1));
    page.more = reached < page.inbox_seq.0;
    Ok(Ok(page))
}

/// Entries by position, from all servers.
pub(super) async fn entries(
    store: &MysqlStore,
    positions: &[(ConversationId, u64)],
) -> Result<HashMap<(ConversationId, u64), StoredEntry>, StoreError> {
    let by_place = Servers::sort(positions.iter().cloned(), |(id, _)| {
        store.servers.of_conversation(id)
    });
    let mut found = HashMap::with_capacity(positions.len());
    for (place, positions) in by_place {
        found.extend(store.servers.read(place, &Entries(positions)).await?);
    }
    Ok(found)
}

impl Work for Entries {
    type Answer = HashMap<(ConversationId, u64), StoredEntry>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Self::Answer, Failure> {
        let mut entries = HashMap::with_capacity(self.0.len());
        for positions in self.0.chunks(ROWS_MAX) {
            let mut sql = Sql::new(ENTRY_COLUMNS);
            sql.push(" WHERE");
            let positions = positions.iter().map(|(id, seq)| (id, Second::Number(*seq)));
            push_positions(&mut sql, "conversation", "seq", positions);
            for row in sql.build().fetch_all(&mut *connection).await? {
                let entry = stored_entry(&row)?;
                entries.insert((entry.conversation.clone(), entry.seq.0), entry);
            }
        }
        Ok(entries)
    }
}

impl Work for PresentWindow<'_> {
    type Answer = Option<(Seq, Seq)>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Self::Answer, Failure> {
        let window: Option<(u64, u64)> = sqlx::query_as(
            "SELECT m.first_seq, c.max_seq
             FROM member m JOIN conversation c ON c.conversation_id = m.conversation
             WHERE m.conversation = ? AND m.user = ? AND m.last_seq IS NULL",
        )
        .bind(self.conversation.as_str().as_bytes())
        .bind(self.user.as_str().as_bytes())
        .fetch_optional(connection)
        .await?;
        Ok(window.map(|(first, end)| (Seq(first), Seq(end))))
    }
}

impl Work for Letters<'_> {
    type Answer = LetterPage;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> Result<LetterPage, Failure> {
        let inbox_seq = InboxEnd(self.user).run(connection, attempt).await?;
        let rows = sqlx::query(
            "SELECT user_seq, conversation, seq FROM user_msg_list
             WHERE user = ? AND user_seq > ? AND user_seq <= ? ORDER BY user_seq LIMIT ?",
        )
        .bind(self.user.as_str().as_bytes())
        .bind(self.after)
        .bind(inbox_seq)
        .bind(self.limit)
        .fetch_all(&mut *connection)
        .await?;
        // After the letters: what was dropped in between is before the first.
        let first_seq: Option<u64> =
            sqlx::query_scalar("SELECT first_seq FROM archived_inbox WHERE user = ?")
                .bind(self.user.as_str().as_bytes())
                .fetch_optional(&mut *connection)
                .await?;
        let first_seq = first_seq.unwrap_or(1);
        let mut letters = Vec::with_capacity(rows.len());
        for row in &rows {
            let user_seq = row.try_get(0)?;
            // The clocks of services differ: one of a later month may be before it.
            if user_seq >= first_seq {
                letters.push((user_seq, (conversation_id(row, 1)?, row.try_get(2)?)));
            }
        }
        Ok(LetterPage {
            first_seq,
            inbox_seq,
            letters,
        })
    }
}

impl Work for InboxEnd<'_> {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<u64, Failure> {
        let end: Option<u64> = sqlx::query_scalar("SELECT max_seq FROM inbox WHERE user = ?")
            .bind(self.0.as_str().as_bytes())
            .fetch_optional(connection)
            .await?;
        Ok(end.unwrap_or(0))
    }
}

impl Work for ConversationLog<'_> {
    type Answer = Option<ConversationPage>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Option<ConversationPage>, Failure> {
        let mut page = self.once(connection).await?;
        for _ in 0..AGAIN_MAX {
            match &page {
                // Its beginning was dropped in between.
                Some((page, from)) if page.entries.first().is_some_and(|it| it.seq.0 > *from) => {}
                _ => break,
            }
            page = self.once(connection).await?;
        }
        Ok(page.map(|(page, _)| page))
    }
}

// === impl ConversationLog ===

impl ConversationLog<'_> {
    /// A page, and where it was to begin at the latest.
    async fn once(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Option<(ConversationPage, u64)>, Failure> {
        let key = [(self.conversation, self.user)];
        let Some(view) = find_members(connection, &key).await?.pop() else {
            return Ok(None);
        };
        let (first, last) = window_of(self.range, &view.past, (view.first, view.last));
        let mut begin = u64::MAX;
        let (entries, more) = match self.range {
            Range::After(after) => {
                let after = after.0.max(first.saturating_sub(1));
                let (from, to) = (after.saturating_add(1), last);
                begin = from;
                let entries = self.page(connection, from, to, "").await?;
                let reached = entries.last().map_or(after, |entry| entry.seq.0);
                (entries, reached < view.last)
            }
            Range::Before(before) => {
                let end = last.saturating_add(1);
                let before = match before.0 {
                    0 => end,
                    before => before.min(end),
                };
                let to = before.saturating_sub(1);
                let mut entries = self.page(connection, first, to, " DESC").await?;
                entries.reverse();
                let reached = entries.first().map_or(before, |entry| entry.seq.0);
                (entries, reached > view.begin())
            }
        };
        let page = ConversationPage {
            entries,
            first_seq: Seq(first),
            last_seq: Seq(last),
            more,
        };
        Ok(Some((page, begin)))
    }

    async fn page(
        &self,
        connection: &mut MySqlConnection,
        from: u64,
        to: u64,
        direction: &str,
    ) -> Result<Vec<StoredEntry>, Failure> {
        let mut budget = Budget::new(self.limit);
        let mut sql = Sql::new(ENTRY_COLUMNS);
        sql.push(" WHERE conversation = ");
        sql.push_bind(self.conversation.as_str().as_bytes());
        sql.push(" AND seq >= ").push_bind(from);
        sql.push(" AND seq <= ").push_bind(to);
        sql.push(" ORDER BY seq").push(direction);
        sql.push(" LIMIT ").push_bind(budget.entries);
        let mut entries = Vec::new();
        for row in sql.build().fetch_all(connection).await? {
            let entry = stored_entry(&row)?;
            if !budget.take(&entry) {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
