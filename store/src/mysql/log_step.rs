//! The first step of a commit: a conversation server's part of the batch, as
//! one transaction. Log entries, what was sent, the log's end, membership.
//!
//! All is read in a few statements, decided in memory, one entry after the
//! other, and written in a few statements: the cost of a batch is in its rows,
//! not in round trips. The rows of the conversations stay locked from the
//! reading of `max_seq` to its writing, under the lock of the partition's epoch.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, MessageId, Partition, PartitionEpoch, Seq,
    UserId,
};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    fence::HoldPartition,
    log_rows::{Log, LogEnd, SentKey, find_own, load_logs, load_recalls, load_sent},
    membership::Effect,
    rows::{ENTRY_COLUMNS, ROWS_MAX, Second, Sql, push_positions, stored_entry},
    servers::Work,
};
use crate::{
    CommitRefusal, Content, NewEntry, Outcome, Stored,
    content_row::{ContentRow, is_message},
};

/// Bodies of one INSERT. Servers take 16 MiB by default.
const BODIES_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What one server's part of a commit is.
pub(super) struct LogStep<'c> {
    pub(super) partition: Partition,
    pub(super) epoch: PartitionEpoch,
    pub(super) entries: Vec<&'c NewEntry>,
    /// Those named in the entries who don't exist.
    pub(super) unknown: &'c HashSet<UserId>,
}

/// The answers, without inbox places.
impl Work for LogStep<'_> {
    type Answer = Vec<Outcome>;
    // The owner throws away what it believed, and finds out by reading.
    const REPEATABLE: bool = false;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> Result<Vec<Outcome>, Failure> {
        let ids = self.entries.iter().map(|entry| entry.message_id.0);
        let hold = HoldPartition {
            partition: self.partition,
            epoch: self.epoch,
            newest_message_id: ids.max().unwrap_or(0),
        };
        hold.run(connection, attempt).await?;
        let mut batch = Batch {
            unknown: self.unknown,
            logs: load_logs(connection, &self.entries).await?,
            sent: load_sent(connection, &self.entries).await?,
            recalls: load_recalls(connection, &self.entries).await?,
            kept: HashMap::new(),
            named: Vec::new(),
            own: HashMap::new(),
            added: Vec::new(),
            added_own: Vec::new(),
            effects: Vec::new(),
        };
        batch.load_kept(connection, &self.entries).await?;
        batch.load_own(connection, &self.entries).await?;
        let outcomes = (self.entries.iter())
            .map(|entry| batch.store(entry).unwrap_or_else(Outcome::Refused))
            .collect();
        batch.write(connection).await?;
        Ok(outcomes)
    }
}

/// An entry that is there, or will be with the batch.
struct Kept<'c> {
    message_id: MessageId,
    server_time_ms: u64,
    content: ContentRow<'c>,
    recalled: bool,
}

/// An entry to be written.
struct Added<'c> {
    entry: &'c NewEntry,
    content: ContentRow<'c>,
    end: LogEnd,
}

/// A commit that runs.
struct Batch<'c> {
    unknown: &'c HashSet<UserId>,
    logs: BTreeMap<ConversationId, Log>,
    sent: HashMap<SentKey, u64>,
    /// The entry that recalled a message.
    recalls: HashMap<(ConversationId, u64), u64>,
    kept: HashMap<(ConversationId, u64), Kept<'c>>,
    /// The ids to be remembered, with the seqs that they name.
    named: Vec<(&'c NewEntry, u64)>,
    /// How many counting entries a sender has in a group.
    own: HashMap<(ConversationId, UserId), u64>,
    added: Vec<Added<'c>>,
    added_own: Vec<(&'c NewEntry, u64, u64)>,
    effects: Vec<(&'c NewEntry, u64, Effect<'c>)>,
}

// === impl Batch: deciding ===

impl<'c> Batch<'c> {
    fn store(&mut self, entry: &'c NewEntry) -> Result<Outcome, CommitRefusal> {
        self.check_user(&entry.sender)?;
        let content = ContentRow::of(&entry.content);
        let key = |id: ClientMsgId| (entry.conversation.clone(), entry.sender.clone(), id);
        if let Some(seq) = self.sent.get(&key(entry.client_msg_id)) {
            return self.first_answer(entry, *seq, &content);
        }
        if let Some(predecessor) = entry.predecessor
            && !self.sent.contains_key(&key(predecessor))
        {
            return Err(CommitRefusal::OutOfOrder);
        }
        let effect = self.check(entry)?;
        // A recall of what is recalled already: its id is one more name of the
        // entry that did it, so that a retry is known whatever comes in between.
        let first = match &effect {
            Effect::Recall(target) => (self.recalls)
                .get(&(entry.conversation.clone(), target.0))
                .copied(),
            _ => None,
        };
        let seq = first.unwrap_or_else(|| self.end_of(entry).seq + 1);
        let outcome = match first {
            Some(first) => self.first_answer(entry, first, &content)?,
            None => Outcome::Stored(self.append(entry, content, effect)),
        };
        self.sent.insert(key(entry.client_msg_id), seq);
        self.named.push((entry, seq));
        Ok(outcome)
    }

    fn end_of(&self, entry: &NewEntry) -> LogEnd {
        let log = self.logs.get(&entry.conversation);
        log.map(|log| log.end).unwrap_or_default()
    }

    /// What a repeat is told: the answer that the first one got.
    fn first_answer(
        &self,
        entry: &NewEntry,
        seq: u64,
        content: &ContentRow<'_>,
    ) -> Result<Outcome, CommitRefusal> {
        let kept = self.kept.get(&(entry.conversation.clone(), seq));
        // Archived since, or recalled: nothing is left that could differ.
        let Some(kept) = kept else {
            return Err(CommitRefusal::ClientMsgIdReused);
        };
        let same = kept.content.kind == content.kind
            && (kept.recalled
                || kept.content.content_type == content.content_type
                    && kept.content.body == content.body);
        if !same {
            return Err(CommitRefusal::ClientMsgIdReused);
        }
        Ok(Outcome::Duplicate(Stored {
            message_id: kept.message_id,
            seq: Seq(seq),
            server_time_ms: kept.server_time_ms,
            inbox: Vec::new(),
        }))
    }

    /// Checks that the entry fits the conversation as it stands.
    fn check(&self, entry: &'c NewEntry) -> Result<Effect<'c>, CommitRefusal> {
        let unknown = Err(CommitRefusal::UnknownConversation);
        let exists = self.end_of(entry).seq > 0;
        if let ConversationKind::Private(first, second) = entry.conversation.kind() {
            if entry.sender != first && entry.sender != second {
                return unknown;
            }
            return match (&entry.content, exists) {
                (Content::Message { .. }, true) => Ok(Effect::None),
                (Content::Message { .. }, false) => {
                    self.check_user(&first)?;
                    self.check_user(&second)?;
                    Ok(Effect::Pair([first, second]))
                }
                (Content::Recall { seq }, _) => self.check_recall(entry, *seq),
                _ => unknown,
            };
        }
        match (&entry.content, exists) {
            (Content::GroupCreated { name, members }, false) => {
                members.iter().try_for_each(|user| self.check_user(user))?;
                Ok(Effect::Found { name, members })
            }
            (_, false) | (Content::GroupCreated { .. }, true) => unknown,
            (Content::Message { .. }, true) => Ok(Effect::None),
            (Content::Recall { seq }, true) => self.check_recall(entry, *seq),
            (Content::GroupRenamed { name }, true) => Ok(Effect::Rename(name)),
            (Content::Joined { users }, true) => {
                users.iter().try_for_each(|user| self.check_user(user))?;
                Ok(Effect::Join(users))
            }
            (Content::Left, true) => Ok(Effect::Leave(&entry.sender)),
            (Content::Removed { user }, true) => {
                self.check_user(user)?;
                Ok(Effect::Leave(user))
            }
            (Content::RoleChanged { user, role }, true) => {
                self.check_user(user)?;
                Ok(Effect::SetRole(user, *role))
            }
        }
    }

    fn check_recall(&self, entry: &NewEntry, seq: Seq) -> Result<Effect<'c>, CommitRefusal> {
        match self.kept.get(&(entry.conversation.clone(), seq.0)) {
            Some(kept) if is_message(kept.content.kind) => Ok(Effect::Recall(seq)),
            _ => Err(CommitRefusal::UnknownMessage),
        }
    }

    fn check_user(&self, user: &UserId) -> Result<(), CommitRefusal> {
        if self.unknown.contains(user) {
            return Err(CommitRefusal::UnknownUser(user.clone()));
        }
        Ok(())
    }

    fn append(
        &mut self,
        entry: &'c NewEntry,
        content: ContentRow<'c>,
        effect: Effect<'c>,
    ) -> Stored {
        let counts = u64::from(is_message(content.kind));
        let by_first = match entry.conversation.kind() {
            ConversationKind::Private(first, _) => u64::from(entry.sender == first),
            ConversationKind::Group(_) => 0,
        };
        let log = self.logs.entry(entry.conversation.clone()).or_default();
        log.end = LogEnd {
            seq: log.end.seq + 1,
            last_ms: entry.server_time_ms,
            counting: log.end.counting + counts,
            counting_first: log.end.counting_first + counts * by_first,
        };
        let end = log.end;
        if counts == 1 && entry.conversation.is_group() {
            let key = (entry.conversation.clone(), entry.sender.clone());
            let own = self.own.entry(key).or_default();
            *own += 1;
            self.added_own.push((entry, end.seq, *own));
        }
        if let Effect::Recall(target) = &effect
            && let Some(kept) = self.kept.get_mut(&(entry.conversation.clone(), target.0))
        {
            kept.recalled = true;
            self.recalls
                .insert((entry.conversation.clone(), target.0), end.seq);
        }
        let kept = Kept {
            message_id: entry.message_id,
            server_time_ms: entry.server_time_ms,
            content: content.clone(),
            recalled: false,
        };
        self.kept
            .insert((entry.conversation.clone(), end.seq), kept);
        self.added.push(Added {
            entry,
            content,
            end,
        });
        if !matches!(effect, Effect::None) {
            self.effects.push((entry, end.seq, effect));
        }
        Stored {
            message_id: entry.message_id,
            seq: Seq(end.seq),
            server_time_ms: entry.server_time_ms,
            inbox: Vec::new(),
        }
    }
}

// === impl Batch: reading ===

impl<'c> Batch<'c> {
    /// The entries that repeats and recalls speak of. Rare, so they may cost
    /// a look at every month.
    async fn load_kept(
        &mut self,
        connection: &mut MySqlConnection,
        entries: &[&'c NewEntry],
    ) -> Result<(), Failure> {
        let mut wanted: BTreeSet<(&ConversationId, u64)> = BTreeSet::new();
        for entry in entries {
            let key = (
                entry.conversation.clone(),
                entry.sender.clone(),
                entry.client_msg_id,
            );
            wanted.extend(self.sent.get(&key).map(|seq| (&entry.conversation, *seq)));
            if let Content::Recall { seq } = entry.content {
                wanted.insert((&entry.conversation, seq.0));
                let first = self.recalls.get(&(entry.conversation.clone(), seq.0));
                wanted.extend(first.map(|first| (&entry.conversation, *first)));
            }
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        for positions in wanted.chunks(ROWS_MAX) {
            let mut sql = Sql::new(ENTRY_COLUMNS);
            sql.push(" WHERE");
            let positions = positions.iter().map(|(id, seq)| (*id, Second::Seq(*seq)));
            push_positions(&mut sql, "conversation", "seq", positions);
            for row in sql.build().fetch_all(&mut *connection).await? {
                let entry = stored_entry(&row)?;
                let content = ContentRow {
                    kind: i32::from(row.try_get::<u8, _>(6)?),
                    content_type: i32::from(row.try_get::<u8, _>(7)?),
                    body: row.try_get::<Vec<u8>, _>(9)?.into(),
                };
                let kept = Kept {
                    message_id: entry.message_id,
                    server_time_ms: entry.server_time_ms,
                    content,
                    recalled: entry.recalled,
                };
                self.kept.insert((entry.conversation, entry.seq.0), kept);
            }
        }
        Ok(())
    }

    /// How far the senders of group messages have counted.
    async fn load_own(
        &mut self,
        connection: &mut MySqlConnection,
        entries: &[&NewEntry],
    ) -> Result<(), Failure> {
        let counting = entries.iter().filter(|entry| {
            entry.conversation.is_group() && matches!(entry.content, Content::Message { .. })
        });
        let pairs: BTreeSet<_> = counting.map(|e| (&e.conversation, &e.sender)).collect();
        let wanted: Vec<_> = (pairs.into_iter())
            .map(|(id, user)| (id, user, u64::MAX))
            .collect();
        for (id, user, _, own) in find_own(connection, &wanted).await? {
            self.own.insert((id, user), own);
        }
        Ok(())
    }
}

// === impl Batch: writing ===

impl Batch<'_> {
    async fn write(&mut self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        self.write_logs(connection).await?;
        // By key: rows that lie together are written together.
        self.added.sort_by(|a, b| {
            (&a.entry.conversation, a.end.seq).cmp(&(&b.entry.conversation, b.end.seq))
        });
        let mut rest = &self.added[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take(ROWS_MAX).take_while(|added| {
                bytes += added.content.body.len();
                bytes <= BODIES_MAX_BYTES
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            write_messages(connection, now).await?;
            rest = later;
        }
        self.write_sent(connection).await?;
        for own in self.added_own.chunks(ROWS_MAX) {
            let mut sql = Sql::new("INSERT INTO group_own_list (conversation, sender, seq, own) ");
            sql.push_values(own, |mut row, (entry, seq, own)| {
                row.push_bind(entry.conversation.as_str().as_bytes());
                row.push_bind(entry.sender.as_str().as_bytes());
                row.push_bind(*seq).push_bind(*own);
            });
            sql.build().execute(&mut *connection).await?;
        }
        for (entry, seq, effect) in &self.effects {
            effect.apply(connection, entry, *seq).await?;
        }
        Ok(())
    }

    /// Moves the ends. A conversation that another commit made in the meantime
    /// fails the INSERT, and the batch is decided anew.
    async fn write_logs(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let columns = "INSERT INTO conversation
             (conversation_id, name, max_seq, last_ms, counting, counting_first) ";
        let moved = || self.logs.iter().filter(|(_, log)| log.end.seq > log.before);
        let (new, known): (Vec<_>, Vec<_>) = moved().partition(|(_, log)| log.before == 0);
        for (logs, known) in [(new, false), (known, true)] {
            for logs in logs.chunks(ROWS_MAX) {
                let mut sql = Sql::new(columns);
                sql.push_values(logs, |mut row, (id, log)| {
                    row.push_bind(id.as_str().as_bytes()).push("''");
                    row.push_bind(log.end.seq).push_bind(log.end.last_ms);
                    row.push_bind(log.end.counting);
                    row.push_bind(log.end.counting_first);
                });
                if known {
                    sql.push(
                        " ON DUPLICATE KEY UPDATE max_seq = VALUES(max_seq),
                          last_ms = VALUES(last_ms), counting = VALUES(counting),
                          counting_first = VALUES(counting_first)",
                    );
                }
                sql.build().execute(&mut *connection).await?;
            }
        }
        Ok(())
    }

    async fn write_sent(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let mut named = self.named.clone();
        named.sort_by_key(|(entry, _)| entry.client_msg_id);
        for named in named.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "INSERT INTO dedup (client_msg_id, conversation, sender, client_ms, seq) ",
            );
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
}

async fn write_messages(
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
