//! The first step of a commit: a conversation server's part of the batch, in one
//! transaction with those of other partitions ([`gather`](super::gather)). Log
//! entries, what was sent, the log's end, membership.
//!
//! All is read in a few statements, decided in memory, one entry after the
//! other, and written in a few statements ([`log_writes`](super::log_writes)): the
//! cost is in the rows, not in round trips. The rows of the conversations stay
//! locked from the reading of `max_seq` to its writing, under the locks of the
//! partitions' epochs. A partition that was overtaken is left out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, MessageId, Partition, PartitionEpoch, Seq,
    UserId,
};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    fence::hold_partitions,
    gather::{Answers, Part, Weight},
    log_rows::{Log, LogEnd, SentKey, find_own, load_logs, load_recalls, load_sent},
    log_writes::{Added, Named, Own, write_logs, write_messages, write_own, write_sent},
    membership::{Effect, pair_up},
    rows::{ENTRY_COLUMNS, ROWS_MAX, Second, Sql, push_positions, stored_entry},
};
use crate::{
    Commit, CommitRefusal, Content, NewEntry, Outcome, StoreError, Stored,
    content_row::{ContentRow, is_message},
};

/// What one server's part of a commit is.
pub(super) struct LogStep {
    pub(super) commit: Arc<Commit>,
    /// The places of this server's entries.
    pub(super) places: Vec<usize>,
    /// Those named in the entries who don't exist.
    pub(super) unknown: Arc<HashSet<UserId>>,
}

/// The answers, without inbox places.
impl Part for LogStep {
    type Answer = Vec<Outcome>;
    // The owner throws away what it believed, and finds out by reading.
    const REPEATABLE: bool = false;
    const STEP: &'static str = "log";

    fn weight(&self) -> Weight {
        Weight {
            rows: self.places.len().max(1),
            bytes: self.entries().map(body_len).sum(),
        }
    }

    /// None: conversations belong to one partition, whose commits go one by one.
    fn shared_rows(&self) -> Vec<u64> {
        Vec::new()
    }

    async fn run_all(
        steps: &[&Self],
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Answers<Self>, Failure> {
        let overtaken = hold(connection, steps).await?;
        let entries: Vec<&NewEntry> = (steps.iter().zip(&overtaken))
            .filter(|(_, overtaken)| overtaken.is_none())
            .flat_map(|(step, _)| step.entries())
            .collect();
        let mut batch = Batch {
            logs: load_logs(connection, &entries).await?,
            sent: load_sent(connection, &entries).await?,
            recalls: load_recalls(connection, &entries).await?,
            kept: HashMap::new(),
            named: Vec::new(),
            own: HashMap::new(),
            added: Vec::new(),
            added_own: Vec::new(),
            effects: Vec::new(),
        };
        batch.load_kept(connection, &entries).await?;
        batch.load_own(connection, &entries).await?;
        let answers = (steps.iter().zip(overtaken))
            .map(|(step, overtaken)| match overtaken {
                Some(fenced) => Err(fenced),
                None => Ok(batch.store_all(step)),
            })
            .collect();
        batch.write(connection).await?;
        Ok(answers)
    }
}

// === impl LogStep ===

impl LogStep {
    fn entries(&self) -> impl Iterator<Item = &NewEntry> {
        let entries = &self.commit.entries;
        self.places.iter().filter_map(|at| entries.get(*at))
    }

    fn held(&self) -> (Partition, PartitionEpoch) {
        (self.commit.partition, self.commit.epoch)
    }
}

fn body_len(entry: &NewEntry) -> usize {
    match &entry.content {
        Content::Message { body, .. } => body.len(),
        _ => 0,
    }
}

/// Holds the steps' partitions; for each step, whether it comes too late.
async fn hold(
    connection: &mut MySqlConnection,
    steps: &[&LogStep],
) -> Result<Vec<Option<StoreError>>, Failure> {
    let held: BTreeSet<_> = steps.iter().map(|step| step.held()).collect();
    let ids = steps.iter().flat_map(|step| step.entries());
    // Of all of them: what counts is the newest of the store.
    let newest = ids.map(|entry| entry.message_id.0).max().unwrap_or(0);
    let Some(in_force) = hold_partitions(connection, &held, newest).await? else {
        return Ok(vec![None; steps.len()]);
    };
    let overtaken = steps.iter().map(|step| {
        let (partition, epoch) = step.held();
        let newest = in_force.get(&partition);
        (newest != Some(&epoch)).then_some(StoreError::Fenced {
            partition: partition.0,
            held: epoch.0,
            newest: newest.map_or(0, |newest| newest.0),
        })
    });
    Ok(overtaken.collect())
}

/// An entry that is there, or will be with the batch.
struct Kept<'c> {
    message_id: MessageId,
    server_time_ms: u64,
    content: ContentRow<'c>,
    recalled: bool,
}

/// Commits that run.
struct Batch<'c> {
    logs: BTreeMap<ConversationId, Log>,
    sent: HashMap<SentKey, u64>,
    /// The entry that recalled a message.
    recalls: HashMap<(ConversationId, u64), u64>,
    kept: HashMap<(ConversationId, u64), Kept<'c>>,
    /// The ids to be remembered, with the seqs that they name.
    named: Vec<Named<'c>>,
    /// How many counting entries a sender has in a group.
    own: HashMap<(ConversationId, UserId), u64>,
    added: Vec<Added<'c>>,
    added_own: Vec<Own<'c>>,
    effects: Vec<(&'c NewEntry, u64, Effect<'c>)>,
}

// === impl Batch: deciding ===

impl<'c> Batch<'c> {
    fn store_all(&mut self, step: &'c LogStep) -> Vec<Outcome> {
        (step.entries())
            .map(|entry| self.store(entry, &step.unknown))
            .map(|outcome| outcome.unwrap_or_else(Outcome::Refused))
            .collect()
    }

    fn store(
        &mut self,
        entry: &'c NewEntry,
        unknown: &HashSet<UserId>,
    ) -> Result<Outcome, CommitRefusal> {
        check_user(&entry.sender, unknown)?;
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
        let effect = self.check(entry, unknown)?;
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
    fn check(
        &self,
        entry: &'c NewEntry,
        unknown: &HashSet<UserId>,
    ) -> Result<Effect<'c>, CommitRefusal> {
        let check_user = |user: &UserId| check_user(user, unknown);
        let nowhere = Err(CommitRefusal::UnknownConversation);
        let exists = self.end_of(entry).seq > 0;
        if let ConversationKind::Private(first, second) = entry.conversation.kind() {
            if entry.sender != first && entry.sender != second {
                return nowhere;
            }
            return match (&entry.content, exists) {
                (Content::Message { .. }, true) => Ok(Effect::None),
                (Content::Message { .. }, false) => {
                    check_user(&first)?;
                    check_user(&second)?;
                    Ok(Effect::Pair([first, second]))
                }
                (Content::Recall { seq }, _) => self.check_recall(entry, *seq),
                _ => nowhere,
            };
        }
        match (&entry.content, exists) {
            (Content::GroupCreated { name, members }, false) => {
                members.iter().try_for_each(check_user)?;
                Ok(Effect::Found { name, members })
            }
            (_, false) | (Content::GroupCreated { .. }, true) => nowhere,
            (Content::Message { .. }, true) => Ok(Effect::None),
            (Content::Recall { seq }, true) => self.check_recall(entry, *seq),
            (Content::GroupRenamed { name }, true) => Ok(Effect::Rename(name)),
            (Content::Joined { users }, true) => {
                users.iter().try_for_each(check_user)?;
                Ok(Effect::Join(users))
            }
            (Content::Left, true) => Ok(Effect::Leave(&entry.sender)),
            (Content::Removed { user }, true) => {
                check_user(user)?;
                Ok(Effect::Leave(user))
            }
            (Content::RoleChanged { user, role }, true) => {
                check_user(user)?;
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

// === impl Batch: reading and writing ===

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
            let positions = positions
                .iter()
                .map(|(id, seq)| (*id, Second::Number(*seq)));
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

    async fn write(mut self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        write_logs(connection, &self.logs).await?;
        write_messages(connection, &mut self.added).await?;
        write_sent(connection, &mut self.named).await?;
        write_own(connection, &self.added_own).await?;
        let mut pairs = Vec::new();
        for (entry, seq, effect) in &self.effects {
            match effect {
                Effect::Pair(parties) => pairs.push((&entry.conversation, parties, *seq)),
                effect => effect.apply(connection, entry, *seq).await?,
            }
        }
        pair_up(connection, &pairs).await
    }
}

fn check_user(user: &UserId, unknown: &HashSet<UserId>) -> Result<(), CommitRefusal> {
    match unknown.contains(user) {
        true => Err(CommitRefusal::UnknownUser(user.clone())),
        false => Ok(()),
    }
}
