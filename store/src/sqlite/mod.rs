//! The embedded store: SQLite in one folder.
//!
//! The road of a batch: [`writer`] (group commit) → [`commit`] (one entry after
//! the other) → [`membership`] (what an entry does beside lengthening its log).
//! Reads go by [`readers`] to [`pulls`] and [`lists`]. The tables are in
//! `migrations/`.

mod commit;
mod config;
mod conversation_state;
mod cursors;
mod entry_row;
mod fence;
mod folder;
mod integer;
mod lists;
mod membership;
mod memory;
mod pulls;
mod readers;
mod schema;
mod sent;
mod sessions;
mod users;
mod writer;

#[cfg(test)]
mod lane_tests;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, Incarnation, LayoutEpoch, Partition, PartitionEpoch,
    Seq, UserId, UserSeq, WorkerId,
};

pub use config::SqliteConfig;

use self::{
    folder::DataFolder,
    readers::{Read, Readers},
    writer::{Write, Writer},
};
use crate::{
    Commit, Conversation, ConversationPage, ConversationRow, CursorAdvance, Heads, InboxPage,
    ListCursor, Migrated, NewUser, Outcome, PageLimit, Range, SessionOpening, SessionOutcome,
    Store, StoreError, Stored, StoredEntry, User, UserStatus,
};

/// A [`Store`] in a folder of this machine, for one process at a time.
///
/// Dropping the last handle of it waits until what was queued is written, then
/// lets go of the folder.
#[derive(Debug)]
pub struct SqliteStore {
    lane: Lane,
    threads: Arc<Threads>,
}

/// Whose reads a handle takes.
#[derive(Debug, Clone, Copy)]
enum Lane {
    Outside,
    Owners,
}

/// What all handles of a store share.
#[derive(Debug)]
struct Threads {
    // In this order they are dropped: the last connection to close cleans the
    // log up, then another process may come.
    readers: Readers,
    account_readers: Readers,
    owner_readers: Readers,
    writer: Writer,
    _folder: DataFolder,
}

// === impl SqliteStore ===

impl SqliteStore {
    /// Id of the process that has this folder open, or had it last.
    pub fn holder(path: &Path) -> Option<u32> {
        folder::holder_of(path)
    }

    /// Opens the store in a folder, making both if need be. Blocks while the
    /// log of a crashed process is read.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when it is open already, [`StoreError::NewerSchema`]
    /// when a newer version wrote it, [`StoreError::Unavailable`] when the folder
    /// cannot be written, [`StoreError::Damaged`] when the file is no database.
    pub fn open(folder: &Path, config: &SqliteConfig) -> Result<Self, StoreError> {
        let folder = DataFolder::open(folder)?;
        let database = folder.database();
        let writing = schema::open_writer(&database, config)?;
        let readers = |name: &'static str, threads: usize| {
            let connections = (0..threads.max(1))
                .map(|_| schema::open_reader(&database, config))
                .collect::<Result<Vec<_>, _>>()?;
            Readers::start(name, connections, config.read_queue_max_requests)
        };
        let threads = Threads {
            readers: readers("outside", config.reader_threads)?,
            account_readers: readers("accounts", config.account_reader_threads)?,
            owner_readers: readers("owners", config.owner_reader_threads)?,
            writer: Writer::start(writing, config)?,
            _folder: folder,
        };
        Ok(Self {
            lane: Lane::Outside,
            threads: Arc::new(threads),
        })
    }

    /// Brings the database in a folder to this program's schema, making both if
    /// need be. [`SqliteStore::open`] does so too.
    ///
    /// # Errors
    /// As of [`SqliteStore::open`].
    pub fn migrate(folder: &Path, config: &SqliteConfig) -> Result<Migrated, StoreError> {
        let folder = DataFolder::open(folder)?;
        let database = folder.database();
        let from = schema::version(&database)?;
        drop(schema::open_writer(&database, config)?);
        Ok(Migrated {
            database: database.display().to_string(),
            from,
            to: schema::known_version(),
            is_stopped: false,
            months: Vec::new(),
        })
    }

    async fn read<R: Read>(&self, read: R) -> Result<R::Answer, StoreError> {
        let readers = match self.lane {
            Lane::Outside => &self.threads.readers,
            Lane::Owners => &self.threads.owner_readers,
        };
        readers.read(read).await
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        self.threads.writer.write(write).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn for_owners(&self) -> Arc<dyn Store> {
        Arc::new(Self {
            lane: Lane::Owners,
            threads: Arc::clone(&self.threads),
        })
    }

    async fn open_layout(&self, partitions: u16) -> Result<LayoutEpoch, StoreError> {
        self.write(fence::OpenLayout { partitions }).await
    }

    async fn issue_incarnation(&self) -> Result<Incarnation, StoreError> {
        self.write(fence::IssueIncarnation).await
    }

    async fn issue_worker_id(&self) -> Result<WorkerId, StoreError> {
        self.write(fence::IssueWorkerId).await
    }

    async fn newest_message_id(&self) -> Result<u64, StoreError> {
        self.read(fence::NewestMessageId).await
    }

    async fn take_partition(&self, partition: Partition) -> Result<PartitionEpoch, StoreError> {
        self.write(fence::TakePartition(partition)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Outcome>, StoreError> {
        self.write(commit).await
    }

    async fn advance_cursors(
        &self,
        advances: Vec<CursorAdvance>,
    ) -> Result<Vec<Option<Seq>>, StoreError> {
        let advances = Arc::new(advances);
        let mut risen = vec![None; advances.len()];
        // What is in vain never comes before the one thread that writes.
        let rising = cursors::Rising(advances.clone());
        let rising = self.read(rising).await?;
        // In pieces, so that commits need not wait for all of them.
        for piece in rising.chunks(cursors::PIECE_MAX_CURSORS) {
            let wishes = piece.iter().filter_map(|at| advances.get(*at)).cloned();
            let write = cursors::AdvanceCursors(wishes.collect());
            let answers = self.write(write).await?;
            for (at, answer) in piece.iter().zip(answers) {
                if let Some(place) = risen.get_mut(*at) {
                    *place = answer;
                }
            }
        }
        Ok(risen)
    }

    async fn first_answers(
        &self,
        sent: &[(ConversationId, UserId, ClientMsgId)],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        self.read(sent::FirstAnswers(sent.to_vec())).await
    }

    async fn entries(
        &self,
        positions: &[(ConversationId, Seq)],
    ) -> Result<Vec<Option<StoredEntry>>, StoreError> {
        self.read(pulls::Entries(positions.to_vec())).await
    }

    async fn inbox(
        &self,
        user: &UserId,
        after: UserSeq,
        limit: PageLimit,
    ) -> Result<InboxPage, StoreError> {
        let user = user.clone();
        self.read(pulls::Inbox { user, after, limit }).await
    }

    async fn conversation_log(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        range: Range,
        limit: PageLimit,
    ) -> Result<Option<ConversationPage>, StoreError> {
        let read = pulls::ConversationLog {
            user: user.clone(),
            conversation: conversation.clone(),
            range,
            limit,
        };
        self.read(read).await
    }

    async fn present_window(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<(Seq, Seq)>, StoreError> {
        let read = pulls::PresentWindow {
            user: user.clone(),
            conversation: conversation.clone(),
        };
        self.read(read).await
    }

    async fn heads(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Heads, StoreError> {
        let read = lists::HeadsOf {
            user: user.clone(),
            after: after.cloned(),
            limit,
        };
        self.read(read).await
    }

    async fn group_counts(&self, users: &[UserId]) -> Result<Vec<usize>, StoreError> {
        self.read(lists::GroupCounts(users.to_vec())).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        cursor: Option<ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationRow>, StoreError> {
        let read = lists::Conversations {
            user: user.clone(),
            cursor,
            limit,
        };
        self.read(read).await
    }

    async fn conversation_members(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError> {
        let read = lists::Members(conversations.to_vec());
        self.read(read).await
    }

    async fn create_user(&self, user: NewUser) -> Result<(), StoreError> {
        self.write(users::CreateUser(user)).await
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        // Logins and bearer checks never wait behind pages.
        let readers = match self.lane {
            Lane::Outside => &self.threads.account_readers,
            Lane::Owners => &self.threads.owner_readers,
        };
        readers.read(users::Users(ids.to_vec())).await
    }

    async fn set_status(&self, user: &UserId, status: UserStatus) -> Result<bool, StoreError> {
        let user = user.clone();
        self.write(users::SetStatus { user, status }).await
    }

    async fn revoke_tokens(
        &self,
        user: &UserId,
        new_password_hash: Option<String>,
    ) -> Result<u64, StoreError> {
        let write = users::RevokeTokens {
            user: user.clone(),
            new_password_hash,
        };
        self.write(write).await
    }

    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
    ) -> Result<(), StoreError> {
        let write = users::SetBlock {
            blocker: blocker.clone(),
            blocked: blocked.clone(),
            on,
        };
        self.write(write).await
    }

    async fn blocks(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<bool>, StoreError> {
        self.read(users::Blocks(pairs.to_vec())).await
    }

    async fn open_sessions(
        &self,
        openings: Vec<SessionOpening>,
    ) -> Result<Vec<SessionOutcome>, StoreError> {
        self.write(sessions::OpenSessions(openings)).await
    }

    async fn forget_device(&self, user: &UserId, device: &DeviceId) -> Result<(), StoreError> {
        let write = sessions::ForgetDevice {
            user: user.clone(),
            device: device.clone(),
        };
        self.write(write).await
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        match &error {
            Error::SqliteFailure(failure, _)
                if !matches!(
                    failure.code,
                    ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::ConstraintViolation
                ) =>
            {
                StoreError::Unavailable(error.to_string())
            }
            _ => StoreError::Damaged(error.to_string()),
        }
    }
}
