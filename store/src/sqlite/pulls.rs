//! Stretches of inboxes and logs.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{ConversationId, Seq, UserId, UserSeq};

use super::{
    conversation_state::{inbox_end, user_key},
    entry_row::{conversation_id, entry_columns, stored_entry},
    integer::{ConversationKey, from_sql, to_sql},
    readers::Read,
};
use crate::{ConversationPage, InboxPage, PageLimit, Range, StoreError, StoredEntry, page::Budget};

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

/// See [`Store::entries`](crate::Store::entries).
pub(super) struct Entries(pub(super) Vec<(ConversationId, Seq)>);

/// What a user may see of a conversation's log.
#[derive(Debug, Clone, Copy)]
struct View {
    conversation: ConversationKey,
    first: u64,
    last: u64,
}

impl Read for Inbox {
    type Answer = InboxPage;

    fn read(&self, connection: &Connection) -> Result<InboxPage, StoreError> {
        let mut page = InboxPage {
            entries: Vec::new(),
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
        Ok(connection
            .prepare_cached(
                "SELECT c.id, l.first_seq, coalesce(l.last_seq,
                        (SELECT max(seq) FROM message WHERE conversation = l.conversation))
                 FROM users u
                 CROSS JOIN conversation c ON c.conversation_id = ?2
                 CROSS JOIN user_conversation_list l ON l.user = u.id AND l.conversation = c.id
                 WHERE u.user_id = ?1",
            )?
            .query_row(
                params![self.user.as_str(), self.conversation.as_str()],
                |row| {
                    Ok(View {
                        conversation: row.get(0)?,
                        first: from_sql(row.get(1)?),
                        last: from_sql(row.get(2)?),
                    })
                },
            )
            .optional()?)
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
        Ok((entries, reached < view.last))
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
        Ok((entries, reached > view.first))
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
