//! Storing a partition's batch: the hot path.
//!
//! A private message costs four row writes (message, dedup, two inbox rows), a
//! group message three. What counts is the pages that they lie on: dedup rows
//! gather at their table's end, so a message between users picked at random
//! touches three pages of its own. All checks of an entry come before its first
//! write, so a refused entry leaves nothing behind.

use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, MessageId, Seq, UserId, UserSeq,
};

use super::{
    conversation_state::{ConversationState, LogEnd, Parties, inbox_end, user_key},
    fence,
    integer::{ConversationKey, UserKey, from_sql, to_sql},
    membership::{Effect, find_recall},
    memory::WriterMemory,
    writer::Write,
};
use crate::{
    Commit, CommitRefusal, NewEntry, Outcome, StoreError, Stored,
    content_row::{ContentRow, is_message},
};

impl Write for Commit {
    type Answer = Vec<Outcome>;

    fn weight(&self) -> usize {
        self.entries.len().max(1)
    }

    fn apply(
        &self,
        connection: &Connection,
        memory: &mut WriterMemory,
    ) -> Result<Vec<Outcome>, StoreError> {
        fence::check_epoch(connection, self.partition, self.epoch)?;
        let mut batch = Batch::open(connection, memory)?;
        let mut outcomes = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            outcomes.push(batch.store(entry)?);
        }
        batch.close()?;
        Ok(outcomes)
    }
}

/// Why an entry goes no further.
pub(super) enum Stop {
    /// It is refused; the batch goes on.
    Refused(CommitRefusal),
    /// The batch fails.
    Failed(StoreError),
}

/// A commit that runs. What it changes of the writer's memory it keeps to
/// itself until all has gone well.
struct Batch<'a> {
    connection: &'a Connection,
    memory: &'a mut WriterMemory,
    statements: Statements<'a>,
    conversations: HashMap<ConversationId, ConversationState>,
    inbox_ends: HashMap<UserKey, u64>,
    newest_message_id: u64,
}

/// The statements that run for every entry, looked up once a batch.
struct Statements<'a> {
    find_sent: CachedStatement<'a>,
    insert_message: CachedStatement<'a>,
    insert_dedup: CachedStatement<'a>,
    insert_inbox: CachedStatement<'a>,
}

// === impl Stop ===

impl From<CommitRefusal> for Stop {
    fn from(refusal: CommitRefusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Failed(error)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Failed(error.into())
    }
}

// === impl Statements ===

impl<'a> Statements<'a> {
    fn prepare(connection: &'a Connection) -> Result<Self, StoreError> {
        Ok(Self {
            find_sent: connection.prepare_cached(
                "SELECT seq FROM dedup
                 WHERE sender = ?1 AND conversation = ?2 AND client_msg_id = ?3",
            )?,
            insert_message: connection.prepare_cached(
                "INSERT INTO message (conversation, seq, msg_id, sender, client_msg_id, send_ms,
                   kind, content_type, recalled, counting, counting_first,
                   first_user_seq, second_user_seq, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12, ?13)",
            )?,
            insert_dedup: connection.prepare_cached(
                "INSERT INTO dedup (sender, conversation, client_msg_id, seq)
                 VALUES (?1, ?2, ?3, ?4)",
            )?,
            insert_inbox: connection.prepare_cached(
                "INSERT INTO user_msg_list (user, user_seq, conversation, seq)
                 VALUES (?1, ?2, ?3, ?4)",
            )?,
        })
    }
}

// === impl Batch ===

impl<'a> Batch<'a> {
    fn open(connection: &'a Connection, memory: &'a mut WriterMemory) -> Result<Self, StoreError> {
        let newest_message_id = match memory.newest_message_id {
            Some(newest) => newest,
            None => fence::number(connection, fence::NEWEST_MESSAGE_ID)?.unwrap_or(0),
        };
        Ok(Self {
            connection,
            memory,
            statements: Statements::prepare(connection)?,
            conversations: HashMap::new(),
            inbox_ends: HashMap::new(),
            newest_message_id,
        })
    }

    fn store(&mut self, entry: &NewEntry) -> Result<Outcome, StoreError> {
        // Taken out and put back, so that the rest of the batch's state stays at hand.
        let mut state = match self.conversations.remove(&entry.conversation) {
            Some(state) => Some(state),
            None => match self.memory.conversations.take(&entry.conversation) {
                Some(state) => Some(state),
                None => ConversationState::load(self.connection, &entry.conversation)?,
            },
        };
        let outcome = self.store_in(&mut state, entry);
        if let Some(state) = state {
            self.conversations.insert(entry.conversation.clone(), state);
        }
        match outcome {
            Ok(outcome) => Ok(outcome),
            Err(Stop::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn store_in(
        &mut self,
        state: &mut Option<ConversationState>,
        entry: &NewEntry,
    ) -> Result<Outcome, Stop> {
        let sender = self.user(&entry.sender)?;
        let content = ContentRow::of(&entry.content);
        if let Some(state) = state
            && let Some(seq) = self.find_sent(sender, state.key, &entry.client_msg_id)?
        {
            return self.first_answer(state, seq, &content);
        }
        if let Some(predecessor) = &entry.predecessor {
            let stored = match state {
                Some(state) => self.find_sent(sender, state.key, predecessor)?,
                None => None,
            };
            stored.ok_or(CommitRefusal::OutOfOrder)?;
        }
        let effect = Effect::check(
            self.connection,
            state.as_ref(),
            entry,
            sender,
            &mut |user| find_user(self.connection, self.memory, user),
        )?;
        if let (Effect::Recall(target), Some(state)) = (&effect, state.as_ref())
            && let Some(seq) = find_recall(self.connection, state.key, *target)?
        {
            return self.answer_as_first(state, seq, entry, sender, &content);
        }
        let state = match state {
            Some(state) => state,
            None => {
                let parties = self.parties(entry)?;
                state.insert(ConversationState::create(
                    self.connection,
                    &entry.conversation,
                    parties,
                )?)
            }
        };
        let stored = self.append(state, entry, sender, &content)?;
        effect.apply(self.connection, state, stored.seq)?;
        Ok(Outcome::Stored(stored))
    }

    /// The parties of a private conversation that comes into being.
    fn parties(&mut self, entry: &NewEntry) -> Result<Option<Parties>, Stop> {
        match entry.conversation.kind() {
            ConversationKind::Group(_) => Ok(None),
            ConversationKind::Private(first, second) => {
                let keys = [self.user(&first)?, self.user(&second)?];
                let ids = [first, second];
                Ok(Some(Parties { ids, keys }))
            }
        }
    }

    fn user(&mut self, user: &UserId) -> Result<UserKey, Stop> {
        find_user(self.connection, self.memory, user)
    }

    fn find_sent(
        &mut self,
        sender: UserKey,
        conversation: ConversationKey,
        id: &ClientMsgId,
    ) -> Result<Option<i64>, StoreError> {
        let found = self
            .statements
            .find_sent
            .query_row(params![sender, conversation, id.as_bytes()], |row| {
                row.get(0)
            });
        Ok(found.optional()?)
    }

    /// What a repeat is told: the answer that the first one got.
    fn first_answer(
        &self,
        state: &ConversationState,
        seq: i64,
        content: &ContentRow<'_>,
    ) -> Result<Outcome, Stop> {
        let mut statement = self.connection.prepare_cached(
            "SELECT msg_id, send_ms, first_user_seq, second_user_seq,
                    kind, content_type, recalled, body
             FROM message WHERE conversation = ?1 AND seq = ?2",
        )?;
        let mut rows = statement.query(params![state.key, seq])?;
        let row = rows
            .next()?
            .ok_or_else(|| StoreError::Damaged("a dedup row without its message".to_owned()))?;
        // A recalled body is gone: nothing is left that could differ.
        let same = row.get::<_, i32>(4)? == content.kind
            && (row.get(6)?
                || row.get::<_, i32>(5)? == content.content_type
                    && row
                        .get_ref(7)?
                        .as_blob()
                        .is_ok_and(|body| *body == *content.body));
        if !same {
            return Err(CommitRefusal::ClientMsgIdReused.into());
        }
        let user_seqs = [row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?];
        let inbox = match &state.parties {
            None => Vec::new(),
            Some(parties) => (parties.ids.iter().cloned())
                .zip(user_seqs.map(|seq| UserSeq(from_sql(seq.unwrap_or(0)))))
                .collect(),
        };
        Ok(Outcome::Duplicate(Stored {
            message_id: MessageId(row.get::<_, i64>(0)? as u64),
            seq: Seq(from_sql(seq)),
            server_time_ms: from_sql(row.get(1)?),
            inbox,
        }))
    }

    /// A recall of what is recalled already: its id is one more name of the entry
    /// that did it, so that a retry is known whatever comes in between.
    fn answer_as_first(
        &mut self,
        state: &ConversationState,
        seq: i64,
        entry: &NewEntry,
        sender: UserKey,
        content: &ContentRow<'_>,
    ) -> Result<Outcome, Stop> {
        let answer = self.first_answer(state, seq, content)?;
        let id = entry.client_msg_id;
        (self.statements.insert_dedup).execute(params![sender, state.key, id.as_bytes(), seq])?;
        Ok(answer)
    }

    fn append(
        &mut self,
        state: &mut ConversationState,
        entry: &NewEntry,
        sender: UserKey,
        content: &ContentRow<'_>,
    ) -> Result<Stored, StoreError> {
        let counts = u64::from(is_message(content.kind));
        let by_first = u64::from(state.parties.as_ref().is_some_and(|p| p.keys[0] == sender));
        let end = LogEnd {
            seq: state.end.seq + 1,
            counting: state.end.counting + counts,
            counting_first: state.end.counting_first + counts * by_first,
        };
        let mut inbox = Vec::new();
        let mut user_seqs = [None, None];
        if let Some(parties) = &state.parties {
            inbox.reserve_exact(2);
            for (side, (id, key)) in parties.ids.iter().zip(parties.keys).enumerate() {
                let user_seq = self.append_to_inbox(key, state.key, end.seq)?;
                user_seqs[side] = Some(to_sql(user_seq));
                inbox.push((id.clone(), UserSeq(user_seq)));
            }
        } else if counts == 1 {
            self.number_own(sender, state.key, end.seq)?;
        }
        self.statements.insert_message.execute(params![
            state.key,
            to_sql(end.seq),
            entry.message_id.0 as i64,
            sender,
            entry.client_msg_id.as_bytes(),
            to_sql(entry.server_time_ms),
            content.kind,
            content.content_type,
            to_sql(end.counting),
            to_sql(end.counting_first),
            user_seqs[0],
            user_seqs[1],
            content.body,
        ])?;
        self.statements.insert_dedup.execute(params![
            sender,
            state.key,
            entry.client_msg_id.as_bytes(),
            to_sql(end.seq)
        ])?;
        state.end = end;
        self.newest_message_id = self.newest_message_id.max(entry.message_id.0);
        Ok(Stored {
            message_id: entry.message_id,
            seq: Seq(end.seq),
            server_time_ms: entry.server_time_ms,
            inbox,
        })
    }

    fn append_to_inbox(
        &mut self,
        user: UserKey,
        conversation: ConversationKey,
        seq: u64,
    ) -> Result<u64, StoreError> {
        let end = match self.inbox_ends.get_mut(&user) {
            Some(end) => end,
            None => {
                let end = match self.memory.inbox_ends.take(&user) {
                    Some(end) => end,
                    None => inbox_end(self.connection, user)?,
                };
                self.inbox_ends.entry(user).or_insert(end)
            }
        };
        *end += 1;
        self.statements.insert_inbox.execute(params![
            user,
            to_sql(*end),
            conversation,
            to_sql(seq)
        ])?;
        Ok(*end)
    }

    /// Group messages only: see the table `group_own_list`.
    fn number_own(
        &self,
        sender: UserKey,
        conversation: ConversationKey,
        seq: u64,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO group_own_list (sender, conversation, seq, own)
                 SELECT ?1, ?2, ?3, 1 + coalesce((
                   SELECT own FROM group_own_list WHERE sender = ?1 AND conversation = ?2
                   ORDER BY seq DESC LIMIT 1), 0)",
            )?
            .execute(params![sender, conversation, to_sql(seq)])?;
        Ok(())
    }

    /// Gives back to the writer's memory what is true now.
    fn close(mut self) -> Result<(), StoreError> {
        if self.memory.newest_message_id != Some(self.newest_message_id) {
            let newest = self.newest_message_id;
            fence::set_number(self.connection, fence::NEWEST_MESSAGE_ID, newest)?;
        }
        self.memory.newest_message_id = Some(self.newest_message_id);
        for (id, state) in self.conversations.drain() {
            self.memory.conversations.put(id, state);
        }
        for (user, end) in self.inbox_ends.drain() {
            self.memory.inbox_ends.put(user, end);
        }
        Ok(())
    }
}

fn find_user(
    connection: &Connection,
    memory: &mut WriterMemory,
    user: &UserId,
) -> Result<UserKey, Stop> {
    if let Some(key) = memory.users.copied(user) {
        return Ok(key);
    }
    let key =
        user_key(connection, user)?.ok_or_else(|| CommitRefusal::UnknownUser(user.clone()))?;
    memory.users.put(user.clone(), key);
    Ok(key)
}
