//! Stretches of inboxes and logs.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{ConversationId, Seq, UserId, UserSeq};

use super::{
    conversation_state::{inbox_end, user_key},
    entry_row::{conversation_id, entry_columns, stored_entry},
    integer::{ConversationKey, UserKey, from_sql, to_sql},
    readers::Read,
};
use crate::{
    ConversationPage, InboxPage, PageLimit, Range, StoreError, StoredEntry,
    page::{Budget, window_of},
};

/// See [`Store::inbox`](crate::Store::inbox).
pub(super) struct Inbox {
    pub(super) user: UserId,
    pub(super) after: UserSeq,
    pub(super) limit: PageLimit,
}

/// See [`Store::conversation_log`](crate::Store::conversation_log).
pub(super) struct ConversationLog {
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
    pub(super) range: Range,
    pub(super) limit: PageLimit,
}

/// See [`Store::present_window`](crate::Store::present_window).
pub(super) struct PresentWindow {
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
}

/// See [`Store::entries`](crate::Store::entries).
pub(super) struct Entries(pub(super) Vec<(ConversationId, Seq)>);

/// What a user may see of a conversation's log: the window that a page lies in,
/// and where all windows together begin and end.
#[derive(Debug, Clone, Copy)]
struct View {
    conversation: ConversationKey,
    first: u64,
    last: u64,
    begin: u64,
    end: u64,
}

impl Read for Inbox {
    type Answer = InboxPage;

    fn read(&self, connection: &Connection) -> Result<InboxPage, StoreError> {
        let mut page = InboxPage {
            entries: Vec::new(),
            first_seq: UserSeq(1),
            inbox_seq: UserSeq(0),
            more: false,
        };
        let Some(user) = user_key(connection, &self.user)? else {
            return Ok(page);
        };
        page.inbox_seq = UserSeq(inbox_end(connection, user)?);
        let mut budget = Budget::new(self.limit);
        let mut statement = connection.prepare_cached(concat!(
            "SELECT l.user_seq, c.conversation_id, ",
            entry_columns!(),
            " FROM user_msg_list l
             CROSS JOIN message m ON m.conversation = l.conversation AND m.seq = l.seq
             CROSS JOIN conversation c ON c.id = l.conversation
             CROSS JOIN users u ON u.id = m.sender
             WHERE l.user = ?1 AND l.user_seq > ?2 ORDER BY l.user_seq LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![user, to_sql(self.after.0), budget.entries])?;
        while let Some(row) = rows.next()? {
            let entry = stored_entry(row, 2, conversation_id(row, 1)?)?;
            if !budget.take(&entry) {
                break;
            }
            page.entries.push((UserSeq(from_sql(row.get(0)?)), entry));
        }
        let reached = page.entries.last().map_or(self.after, |(seq, _)| *seq);
        page.more = reached < page.inbox_seq;
        Ok(page)
    }
}

impl Read for ConversationLog {
    type Answer = Option<ConversationPage>;

    fn read(&self, connection: &Connection) -> Result<Option<ConversationPage>, StoreError> {
        let Some(view) = self.view(connection)? else {
            return Ok(None);
        };
        let (entries, more) = match self.range {
            Range::After(after) => self.ascending(connection, view, after)?,
            Range::Before(before) => self.descending(connection, view, before)?,
        };
        Ok(Some(ConversationPage {
            entries,
            first_seq: Seq(view.first),
            last_seq: Seq(view.last),
            more,
        }))
    }
}

impl Read for PresentWindow {
    type Answer = Option<(Seq, Seq)>;

    fn read(&self, connection: &Connection) -> Result<Self::Answer, StoreError> {
        let window = connection
            .prepare_cached(
                "SELECT l.first_seq, (SELECT max(seq) FROM message WHERE conversation = c.id)
                 FROM users u
                 CROSS JOIN conversation c ON c.conversation_id = ?2
                 CROSS JOIN user_conversation_list l ON l.user = u.id AND l.conversation = c.id
                 WHERE u.user_id = ?1 AND l.last_seq IS NULL",
            )?
            .query_row(
                params![self.user.as_str(), self.conversation.as_str()],
                |row| Ok((Seq(from_sql(row.get(0)?)), Seq(from_sql(row.get(1)?)))),
            )
            .optional()?;
        Ok(window)
    }
}

impl Read for Entries {
    type Answer = Vec<Option<StoredEntry>>;

    fn read(&self, connection: &Connection) -> Result<Self::Answer, StoreError> {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            " FROM conversation c
             CROSS JOIN message m ON m.conversation = c.id AND m.seq = ?2
             CROSS JOIN users u ON u.id = m.sender
             WHERE c.conversation_id = ?1"
        ))?;
        let mut entries = Vec::with_capacity(self.0.len());
        for (conversation, seq) in &self.0 {
            let mut rows = statement.query(params![conversation.as_str(), to_sql(seq.0)])?;
            let entry = rows
                .next()?
                .map(|row| stored_entry(row, 0, conversation.clone()));
            entries.push(entry.transpose()?);
        }
        Ok(entries)
    }
}

// === impl ConversationLog ===

impl ConversationLog {
    fn view(&self, connection: &Connection) -> Result<Option<View>, StoreError> {
        let latest = connection
            .prepare_cached(
                "SELECT u.id, c.id, l.first_seq, coalesce(l.last_seq,
                        (SELECT max(seq) FROM message WHERE conversation = l.conversation))
                 FROM users u
                 CROSS JOIN conversation c ON c.conversation_id = ?2
                 CROSS JOIN user_conversation_list l ON l.user = u.id AND l.conversation = c.id
                 WHERE u.user_id = ?1",
            )?
            .query_row(
                params![self.user.as_str(), self.conversation.as_str()],
                |row| {
                    let (first, last) = (from_sql(row.get(2)?), from_sql(row.get(3)?));
                    let view = View {
                        conversation: row.get(1)?,
                        first,
                        last,
                        begin: first,
                        end: last,
                    };
                    Ok((row.get(0)?, view))
                },
            )
            .optional()?;
        (latest.map(|(user, view)| self.narrow(connection, user, view))).transpose()
    }

    /// Chooses the window that the page lies in: the one with the next entry in
    /// the direction asked for. Who goes on at the log's end needs no look at
    /// earlier ones.
    fn narrow(
        &self,
        connection: &Connection,
        user: UserKey,
        latest: View,
    ) -> Result<View, StoreError> {
        match self.range {
            Range::After(after) if after.0.saturating_add(1) >= latest.first => return Ok(latest),
            _ => {}
        }
        let windows = past_windows(connection, user, latest.conversation)?;
        let begin = windows.first().map_or(latest.first, |(first, _)| *first);
        let (first, last) = window_of(self.range, &windows, (latest.first, latest.last));
        Ok(View {
            first,
            last,
            begin,
            ..latest
        })
    }

    fn ascending(
        &self,
        connection: &Connection,
        view: View,
        after: Seq,
    ) -> Result<(Vec<StoredEntry>, bool), StoreError> {
        let after = after.0.max(view.first.saturating_sub(1));
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM message m CROSS JOIN users u ON u.id = m.sender
             WHERE m.conversation = ?1 AND m.seq > ?2 AND m.seq <= ?3
             ORDER BY m.seq LIMIT ?4"
        );
        let entries = self.page(connection, sql, view.conversation, after, view.last)?;
        let reached = entries.last().map_or(after, |entry| entry.seq.0);
        Ok((entries, reached < view.end))
    }

    fn descending(
        &self,
        connection: &Connection,
        view: View,
        before: Seq,
    ) -> Result<(Vec<StoredEntry>, bool), StoreError> {
        let end = view.last.saturating_add(1);
        let before = if before.0 == 0 {
            end
        } else {
            before.0.min(end)
        };
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM message m CROSS JOIN users u ON u.id = m.sender
             WHERE m.conversation = ?1 AND m.seq >= ?2 AND m.seq < ?3
             ORDER BY m.seq DESC LIMIT ?4"
        );
        let mut entries = self.page(connection, sql, view.conversation, view.first, before)?;
        entries.reverse();
        let reached = entries.first().map_or(before, |entry| entry.seq.0);
        Ok((entries, reached > view.begin))
    }

    fn page(
        &self,
        connection: &Connection,
        sql: &str,
        conversation: ConversationKey,
        from: u64,
        to: u64,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let mut budget = Budget::new(self.limit);
        let mut entries = Vec::new();
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![
            conversation,
            to_sql(from),
            to_sql(to),
            budget.entries
        ])?;
        while let Some(row) = rows.next()? {
            let entry = stored_entry(row, 0, self.conversation.clone())?;
            if !budget.take(&entry) {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// The windows of a user's earlier memberships, ascending. They are as many as
/// the times that somebody took the user in again.
pub(super) fn past_windows(
    connection: &Connection,
    user: UserKey,
    conversation: ConversationKey,
) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT first_seq, last_seq FROM past_membership
         WHERE user = ?1 AND conversation = ?2 ORDER BY first_seq",
    )?;
    let rows = statement.query_map(params![user, conversation], |row| {
        Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
