//! The second step of a commit: a user server's part. Inbox rows with their
//! numbers, and new lines of conversation lists.
//!
//! Repeatable: what is there already keeps its number, so a redelivered batch,
//! or one that another owner drives as well, gets the same answers.

use std::collections::{BTreeMap, HashMap};

use sluice_protocol::{ConversationId, UserId};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Sql, damaged, push_list, user_id},
    servers::Work,
};

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
impl Work for InboxStep {
    type Answer = Vec<u64>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> Result<Vec<u64>, Failure> {
        let mut ends = self.lock_inboxes(connection).await?;
        let mut there = self.find_letters(connection, attempt > 1).await?;
        let mut seqs = Vec::with_capacity(self.letters.len());
        let mut added = BTreeMap::new();
        for letter in &self.letters {
            if let Some(seq) = there.get(&(&letter.user, letter.message_id)) {
                seqs.push(*seq);
                continue;
            }
            let end =
                (ends.get_mut(&letter.user)).ok_or_else(|| damaged("a user without an inbox"))?;
            *end += 1;
            seqs.push(*end);
            // A repeat may follow in the same batch.
            there.insert((&letter.user, letter.message_id), *end);
            added.insert((&letter.user, *end), letter);
        }
        write_letters(connection, &added).await?;
        ends.retain(|user, end| added.contains_key(&(user, *end)));
        write_ends(connection, &ends).await?;
        self.write_listings(connection).await?;
        Ok(seqs)
    }
}

// === impl InboxStep ===

impl InboxStep {
    /// Where the inboxes end; locked in the order of the users, as everybody does.
    async fn lock_inboxes(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<BTreeMap<UserId, u64>, Failure> {
        let users: BTreeMap<&UserId, ()> = self.letters.iter().map(|l| (&l.user, ())).collect();
        let users: Vec<&UserId> = users.into_keys().collect();
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

    /// The numbers of the letters that are there already.
    async fn find_letters(
        &self,
        connection: &mut MySqlConnection,
        any: bool,
    ) -> Result<HashMap<(&UserId, u64), u64>, Failure> {
        let repeated = self.letters.iter().filter(|letter| any || letter.repeated);
        let repeated: Vec<&Letter> = repeated.collect();
        let mut there = HashMap::new();
        for letters in repeated.chunks(ROWS_MAX) {
            let mut sql = Sql::new("SELECT user, msg_id, user_seq FROM user_msg_list WHERE");
            for (at, letter) in letters.iter().enumerate() {
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

    async fn write_listings(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let mut listings: Vec<_> = self.listings.iter().collect();
        listings.sort();
        for listings in listings.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "INSERT IGNORE INTO user_conversation_list (user, is_group, conversation) ",
            );
            sql.push_values(listings, |mut row, (user, conversation)| {
                row.push_bind(user.as_str().as_bytes());
                row.push_bind(conversation.is_group());
                row.push_bind(conversation.as_str().as_bytes());
            });
            sql.build().execute(&mut *connection).await?;
        }
        Ok(())
    }
}

async fn write_letters(
    connection: &mut MySqlConnection,
    added: &BTreeMap<(&UserId, u64), &Letter>,
) -> Result<(), Failure> {
    let added: Vec<_> = added.iter().collect();
    for letters in added.chunks(ROWS_MAX) {
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
        sql.push_values(ends, |mut row, (user, end)| {
            row.push_bind(user.as_str().as_bytes()).push_bind(**end);
        });
        sql.push(" ON DUPLICATE KEY UPDATE max_seq = VALUES(max_seq)");
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}
