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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use rusqlite::Connection;
    use sluice_protocol::{MessageId, packet::ContentType};

    use super::*;
    use crate::{Content, NewEntry, SessionProof};

    /// A read that says when it has begun and ends when its test does.
    struct Endless {
        begun: mpsc::SyncSender<()>,
        end: parking_lot::Mutex<mpsc::Receiver<()>>,
    }

    impl Read for Endless {
        type Answer = ();

        fn read(&self, _: &Connection) -> Result<(), StoreError> {
            let _ = self.begun.send(());
            let _ = self.end.lock().recv();
            Ok(())
        }
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    async fn add_user(store: &SqliteStore, name: &str) {
        let new = NewUser {
            id: user(name),
            username: name.to_owned(),
            password_hash: String::new(),
            created_ms: 1,
        };
        store.create_user(new).await.unwrap();
    }

    fn hello(conversation: &ConversationId) -> NewEntry {
        NewEntry {
            conversation: conversation.clone(),
            sender: user("ann"),
            client_msg_id: ClientMsgId::new(1, [7; 10]),
            predecessor: None,
            message_id: MessageId(1),
            server_time_ms: 1,
            content: Content::Message {
                content_type: ContentType::Text,
                body: "hello".into(),
            },
        }
    }

    /// Makes every outside reader busy until what is returned is dropped.
    fn hold_outside_readers(
        store: &Arc<SqliteStore>,
        config: &SqliteConfig,
    ) -> Vec<mpsc::SyncSender<()>> {
        let (begun, begins) = mpsc::sync_channel(config.reader_threads);
        let mut ends = Vec::new();
        for _ in 0..config.reader_threads {
            let (end, ended) = mpsc::sync_channel(1);
            ends.push(end);
            let endless = Endless {
                begun: begun.clone(),
                end: parking_lot::Mutex::new(ended),
            };
            let store = Arc::clone(store);
            tokio::spawn(async move { store.read(endless).await });
        }
        for _ in 0..config.reader_threads {
            begins.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        ends
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn outside_reads_stand_in_no_owners_way() {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::default();
        let store = Arc::new(SqliteStore::open(folder.path(), &config).unwrap());
        add_user(&store, "ann").await;
        add_user(&store, "ben").await;

        let ends = hold_outside_readers(&store, &config);
        let outside = Arc::clone(&store);
        let outside = tokio::spawn(async move { outside.heads(&user("ann"), None, 1).await });

        let owners = store.for_owners();
        let all_an_owner_does = async {
            let partition = Partition(0);
            let epoch = owners.take_partition(partition).await?;
            let (ann, ben) = (user("ann"), user("ben"));
            let id = ConversationId::private(&ann, &ben).unwrap();
            assert_eq!(owners.users(std::slice::from_ref(&ann)).await?.len(), 1);
            assert_eq!(owners.blocks(&[(ben, ann.clone())]).await?, [false]);
            let entry = hello(&id);
            let key = (id.clone(), ann.clone(), entry.client_msg_id);
            let commit = Commit {
                partition,
                epoch,
                entries: vec![entry],
            };
            owners.commit(commit).await?;
            assert!(owners.first_answers(&[key]).await?[0].is_some());
            assert!(owners.entries(&[(id.clone(), Seq(1))]).await?[0].is_some());
            assert!(owners.conversation_members(&[id]).await?[0].is_some());
            assert_eq!(owners.group_counts(&[ann]).await?, [0]);
            Ok::<_, StoreError>(())
        };
        let done = tokio::time::timeout(Duration::from_secs(60), all_an_owner_does).await;
        done.expect("the outside readers hold the owner up")
            .unwrap();

        assert!(!outside.is_finished(), "the outside readers are busy");
        drop(ends);
        assert!(outside.await.unwrap().unwrap().groups.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn outside_reads_stand_in_no_logins_way() {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::default();
        let store = Arc::new(SqliteStore::open(folder.path(), &config).unwrap());
        add_user(&store, "ann").await;

        let ends = hold_outside_readers(&store, &config);
        let outside = Arc::clone(&store);
        let outside = tokio::spawn(async move { outside.heads(&user("ann"), None, 1).await });

        let all_a_login_does = async {
            let found = store.users(&[user("ann")]).await?;
            let opening = SessionOpening {
                user: user("ann"),
                device: DeviceId::parse("phone").unwrap(),
                platform: 1,
                proof: SessionProof::Token {
                    token_epoch: found[0].as_ref().unwrap().token_epoch,
                    expires_ms: 2,
                },
                new_resume_hash: [7; 32],
                has_place: true,
                now_ms: 1,
            };
            let outcomes = store.open_sessions(vec![opening]).await?;
            assert!(matches!(outcomes[0], SessionOutcome::Opened { .. }));
            Ok::<_, StoreError>(())
        };
        let done = tokio::time::timeout(Duration::from_secs(60), all_a_login_does).await;
        done.expect("the outside readers hold the login up")
            .unwrap();

        assert!(!outside.is_finished(), "the outside readers are busy");
        drop(ends);
        assert!(outside.await.unwrap().unwrap().groups.is_empty());
    }
}
