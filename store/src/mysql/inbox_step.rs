//! The second step of a commit: a user server's part, in one transaction with
//! those of other partitions ([`gather`](super::gather)). Inbox rows with their
//! numbers, and new lines of conversation lists.
//!
//! Repeatable: what is there already keeps its number, so a redelivered batch,
//! or one that another owner drives as well, gets the same answers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use sluice_protocol::{ConversationId, UserId};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    gather::{Answers, Part, Weight},
    rows::{ROWS_MAX, Sql, damaged, inserts, padded, push_list, user_id},
};
use crate::StoreError;

/// A message for one inbox.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) user: UserId,
    pub(super) message_id: u64,
    pub(super) conversation: ConversationId,
    pub(super) seq: u64,
    /// It may be there already.
    pub(super) repeated: bool,
}

/// What one server's users get by a commit.
#[derive(Debug, Default)]
pub(super) struct InboxStep {
    /// In order of their numbers to be.
    pub(super) letters: Vec<Letter>,
    /// Conversations that users are in from now on.
    pub(super) listings: Vec<(UserId, ConversationId)>,
}

/// The user seq of each letter.
impl Part for InboxStep {
    type Answer = Vec<u64>;
    const REPEATABLE: bool = true;
    const STEP: &'static str = "inbox";

    fn weight(&self) -> Weight {
        Weight {
            rows: self.letters.len() + self.listings.len(),
            bytes: 0,
        }
    }

    fn shared_rows(&self) -> Vec<u64> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let users: BTreeSet<&UserId> = self.letters.iter().map(|letter| &letter.user).collect();
        users
            .into_iter()
            .map(|user| hasher.hash_one(user))
            .collect()
    }

    async fn run_all(
        steps: &[&Self],
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> Result<Answers<Self>, Failure> {
        let all = || steps.iter().flat_map(|step| &step.letters);
        let mut ends = lock_inboxes(connection, all()).await?;
        let repeated = all().filter(|letter| attempt > 1 || letter.repeated);
        let mut there = find_letters(connection, &repeated.collect::<Vec<_>>()).await?;
        let mut added = BTreeMap::new();
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            answers.push(step.number(&mut ends, &mut there, &mut added));
        }
        write_letters(connection, &added).await?;
        ends.retain(|user, end| added.contains_key(&(user, *end)));
        write_ends(connection, &ends).await?;
        let listings = (steps.iter().zip(&answers))
            .filter(|(_, answer)| answer.is_ok())
            .flat_map(|(step, _)| &step.listings);
        write_listings(connection, listings).await?;
        Ok(answers)
    }
}

// === impl InboxStep ===

impl InboxStep {
    /// Gives its letters the next numbers of their inboxes.
    fn number<'s>(
        &'s self,
        ends: &mut BTreeMap<UserId, u64>,
        there: &mut HashMap<(&'s UserId, u64), u64>,
        added: &mut BTreeMap<(&'s UserId, u64), &'s Letter>,
    ) -> Result<Vec<u64>, StoreError> {
        // Before anything is numbered: the others go on without this one.
        if !(self.letters.iter()).all(|letter| ends.contains_key(&letter.user)) {
            return Err(damaged("a user without an inbox"));
        }
        let mut seqs = Vec::with_capacity(self.letters.len());
        for letter in &self.letters {
            if let Some(seq) = there.get(&(&letter.user, letter.message_id)) {
                seqs.push(*seq);
                continue;
            }
            let end = ends.entry(letter.user.clone()).or_default();
            *end += 1;
            seqs.push(*end);
            // A repeat may follow in the same transaction.
            there.insert((&letter.user, letter.message_id), *end);
            added.insert((&letter.user, *end), letter);
        }
        Ok(seqs)
    }
}

/// Where the inboxes end; locked in the order of the users, as everybody does.
async fn lock_inboxes(
    connection: &mut MySqlConnection,
    letters: impl Iterator<Item = &Letter>,
) -> Result<BTreeMap<UserId, u64>, Failure> {
    let users: BTreeSet<&UserId> = letters.map(|letter| &letter.user).collect();
    let users: Vec<&UserId> = users.into_iter().collect();
    let mut ends = BTreeMap::new();
    for users in users.chunks(ROWS_MAX) {
        let mut sql = Sql::new("SELECT user, max_seq FROM inbox WHERE user IN (");
        push_list(&mut sql, users.iter().map(|user| user.as_str().as_bytes()));
        sql.push(") ORDER BY user FOR UPDATE");
        for row in sql.build().fetch_all(&mut *connection).await? {
            ends.insert(user_id(&row, 0)?, row.try_get(1)?);
        }
    }
    Ok(ends)
}

/// The numbers of those of the letters that are there already.
async fn find_letters<'s>(
    connection: &mut MySqlConnection,
    letters: &[&'s Letter],
) -> Result<HashMap<(&'s UserId, u64), u64>, Failure> {
    let mut there = HashMap::new();
    for letters in letters.chunks(ROWS_MAX) {
        let mut sql = Sql::new("SELECT user, msg_id, user_seq FROM user_msg_list WHERE");
        for (at, letter) in padded(letters).into_iter().enumerate() {
            sql.push(if at == 0 { " (user = " } else { " OR (user = " });
            sql.push_bind(letter.user.as_str().as_bytes());
            sql.push(" AND msg_id = ").push_bind(letter.message_id);
            sql.push(")");
        }
        let by_key: HashMap<_, _> = (letters.iter())
            .map(|letter| ((letter.user.as_str(), letter.message_id), &letter.user))
            .collect();
        for row in sql.build().fetch_all(&mut *connection).await? {
            let (user, id): (UserId, u64) = (user_id(&row, 0)?, row.try_get(1)?);
            if let Some(user) = by_key.get(&(user.as_str(), id)) {
                there.insert((*user, id), row.try_get(2)?);
            }
        }
    }
    Ok(there)
}

async fn write_listings(
    connection: &mut MySqlConnection,
    listings: impl Iterator<Item = &(UserId, ConversationId)>,
) -> Result<(), Failure> {
    let mut listings: Vec<_> = listings.collect();
    listings.sort();
    for listings in listings.chunks(ROWS_MAX) {
        let mut sql =
            Sql::new("INSERT IGNORE INTO user_conversation_list (user, is_group, conversation) ");
        sql.push_values(
            padded(listings.iter().copied()),
            |mut row, (user, conversation)| {
                row.push_bind(user.as_str().as_bytes());
                row.push_bind(conversation.is_group());
                row.push_bind(conversation.as_str().as_bytes());
            },
        );
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_letters(
    connection: &mut MySqlConnection,
    added: &BTreeMap<(&UserId, u64), &Letter>,
) -> Result<(), Failure> {
    let added: Vec<_> = added.iter().collect();
    for letters in inserts(&added) {
        let mut sql =
            Sql::new("INSERT INTO user_msg_list (user, user_seq, msg_id, conversation, seq) ");
        sql.push_values(letters, |mut row, ((user, user_seq), letter)| {
            row.push_bind(user.as_str().as_bytes());
            row.push_bind(*user_seq).push_bind(letter.message_id);
            row.push_bind(letter.conversation.as_str().as_bytes());
            row.push_bind(letter.seq);
        });
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_ends(
    connection: &mut MySqlConnection,
    ends: &BTreeMap<UserId, u64>,
) -> Result<(), Failure> {
    let ends: Vec<_> = ends.iter().collect();
    for ends in ends.chunks(ROWS_MAX) {
        let mut sql = Sql::new("INSERT INTO inbox (user, max_seq) ");
        sql.push_values(padded(ends), |mut row, (user, end)| {
            row.push_bind(user.as_str().as_bytes()).push_bind(**end);
        });
        sql.push(" ON DUPLICATE KEY UPDATE max_seq = VALUES(max_seq)");
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}
