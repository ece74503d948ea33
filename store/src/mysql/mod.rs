//! The store on servers that speak MySQL's protocol: MariaDB, MySQL, TiDB.
//!
//! Conversations and users are spread by a hash of their ids over logical
//! shards, and those over servers by the configuration ([`servers`]). The road
//! of a batch: [`commit`] → [`log_step`] with the conversations (and
//! [`membership`]) → [`inbox_step`] with the users; each step in one transaction
//! with those of other partitions ([`gather`]). Reads go to [`pulls`] and
//! [`lists`], which put together what lies apart. The tables are in
//! `migrations/mysql/`.
//!
//! The SQL is that of MariaDB 10.11 and MySQL 8: no RETURNING, and `VALUES()`
//! in upserts. Connections are encrypted when their URL says so (`ssl-mode=…`).

mod ageing;
mod commit;
mod config;
mod cursors;
mod failure;
mod fence;
mod gather;
mod inbox_step;
mod leaving;
mod lists;
mod log_rows;
mod log_step;
mod log_writes;
mod members;
mod membership;
mod months;
mod partitions;
mod placement;
mod pulls;
mod replicas;
mod rows;
mod schema;
mod sent;
mod servers;
mod sessions;
mod users;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, Incarnation, LayoutEpoch, Partition, PartitionEpoch,
    Seq, UserId, UserSeq, WorkerId,
};
use tokio::task::JoinHandle;

pub use ageing::{MonthAge, MonthError, MonthState, MysqlMonths};
pub use config::{MysqlConfig, MysqlServer};
pub use months::{Month, NoMonth};

use self::servers::{Place, Servers};
use crate::{
    Commit, Conversation, ConversationPage, ConversationRow, CursorAdvance, Heads, InboxPage,
    ListCursor, Migrated, NewUser, Outcome, PageLimit, Range, SessionOpening, SessionOutcome,
    Store, StoreError, Stored, StoredEntry, User, UserStatus,
};

/// How often worker ids are renewed; a tenth of what they stand without.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// Commits that may run at once in this process.
const TURNS: usize = 64;

/// A [`Store`] on one or several servers, for any number of processes.
#[derive(Debug, Clone)]
pub struct MysqlStore {
    /// By this handle's connections.
    servers: Arc<Servers>,
    /// By those reserved for accounts, whatever is asked beside: of an owner's
    /// handle, the owners'.
    account_servers: Arc<Servers>,
    /// By those reserved for owners.
    owner_servers: Arc<Servers>,
    shared: Arc<Shared>,
}

/// What all handles of a store share.
#[derive(Debug)]
struct Shared {
    /// A partition's commits go one after the other, both steps of one before
    /// the next, in the order in which they are handed in: so inboxes keep the
    /// order of the log. Partitions share them by their number.
    turns: Vec<Arc<tokio::sync::Mutex<()>>>,
    /// By the connections reserved for owners.
    steps: commit::Steps,
    known_users: Mutex<HashSet<UserId>>,
    known_users_max: usize,
    /// Names this process in the table of worker ids.
    holder: u64,
    renewal: Mutex<Option<JoinHandle<()>>>,
}

// === impl MysqlStore ===

impl MysqlStore {
    /// Connects to all servers and makes or checks their tables.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`], [`StoreError::NewerSchema`], and
    /// [`StoreError::Unavailable`] when a server cannot be reached.
    pub async fn connect(config: &MysqlConfig) -> Result<Self, StoreError> {
        // Owners read what they write next to: always the primaries.
        let servers = Servers::new(config, config.connections_max)?.with_replicas(config)?;
        let account_servers = Servers::new(config, config.account_connections_max)?;
        let owner_servers = Arc::new(Servers::for_owners(config)?);
        schema::migrate(&servers, config.shards, &|| false).await?;
        let shared = Shared {
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
            steps: commit::Steps::start(&owner_servers, config),
            known_users: Mutex::new(HashSet::new()),
            known_users_max: config.known_users_max,
            // Keyed at random: no other process has it.
            holder: RandomState::new().hash_one(std::process::id()),
            renewal: Mutex::new(None),
        };
        Ok(Self {
            servers: Arc::new(servers),
            account_servers: Arc::new(account_servers),
            owner_servers,
            shared: Arc::new(shared),
        })
    }

    /// Brings the tables of all servers to this program's schema and adds the
    /// months ahead; [`MysqlStore::connect`] does so too. Waits for another that
    /// is at it, and then finds nothing left to do. `is_stopped` is asked before
    /// each step: what has been done by then is answered, and stays done.
    ///
    /// # Errors
    /// As of [`MysqlStore::connect`].
    pub async fn migrate(
        config: &MysqlConfig,
        is_stopped: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Vec<Migrated>, StoreError> {
        let servers = Servers::new(config, config.connections_max)?;
        schema::migrate(&servers, config.shards, is_stopped).await
    }

    /// Keeps this process's worker ids from now on.
    fn renew_worker_ids(&self) {
        let mut renewal = self.shared.renewal.lock();
        if renewal.is_some() {
            return;
        }
        // Outside reads shall not cost the process its ids.
        let (servers, holder) = (Arc::clone(&self.owner_servers), self.shared.holder);
        *renewal = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                let renew = fence::RenewWorkerIds { holder };
                if let Err(error) = servers.run(servers.home(), &renew).await {
                    tracing::warn!(%error, "worker ids could not be renewed");
                }
            }
        }));
    }

    /// Things by the server that they are on, with their places in the request.
    fn by_place<'t, T>(
        &self,
        things: &'t [T],
        place: impl Fn(&T) -> Place,
    ) -> BTreeMap<Place, Vec<(usize, &'t T)>> {
        Servers::sort(things.iter().enumerate(), |(_, thing)| place(thing))
    }

    async fn check_user(&self, user: &UserId) -> Result<(), StoreError> {
        match self.users(std::slice::from_ref(user)).await?.pop() {
            Some(Some(_)) => Ok(()),
            _ => Err(StoreError::UnknownUser(user.clone())),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(renewal) = self.renewal.lock().take() {
            renewal.abort();
        }
    }
}

#[async_trait]
impl Store for MysqlStore {
    fn for_owners(&self) -> Arc<dyn Store> {
        Arc::new(Self {
            servers: Arc::clone(&self.owner_servers),
            account_servers: Arc::clone(&self.owner_servers),
            owner_servers: Arc::clone(&self.owner_servers),
            shared: Arc::clone(&self.shared),
        })
    }

    async fn open_layout(&self, partitions: u16) -> Result<LayoutEpoch, StoreError> {
        let open = fence::OpenLayout { partitions };
        self.servers.transact(self.servers.home(), &open).await
    }

    async fn issue_incarnation(&self) -> Result<Incarnation, StoreError> {
        let issue = fence::IssueIncarnation;
        self.servers.transact(self.servers.home(), &issue).await
    }

    async fn issue_worker_id(&self) -> Result<WorkerId, StoreError> {
        let issue = fence::IssueWorkerId {
            holder: self.shared.holder,
        };
        let id = self.servers.transact(self.servers.home(), &issue).await?;
        self.renew_worker_ids();
        Ok(id)
    }

    async fn newest_message_id(&self) -> Result<u64, StoreError> {
        fence::newest_message_id(&self.servers).await
    }

    async fn take_partition(&self, partition: Partition) -> Result<PartitionEpoch, StoreError> {
        fence::take_partition(&self.servers, partition).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Outcome>, StoreError> {
        let turn = &self.shared.turns[usize::from(commit.partition.0) % TURNS];
        let turn = Arc::clone(turn).lock_owned().await;
        // What is begun goes through both steps, whether or not the caller stays:
        // the partition's next commit follows it.
        let store = self.clone();
        let run = tokio::spawn(async move {
            let _turn = turn;
            commit::commit(&store, Arc::new(commit)).await
        });
        let ended = |_| StoreError::Unavailable("the commit was broken off".to_owned());
        run.await.map_err(ended)?
    }

    async fn first_answers(
        &self,
        sent: &[(ConversationId, UserId, ClientMsgId)],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        sent::first_answers(self, sent).await
    }

    async fn advance_cursors(
        &self,
        advances: Vec<CursorAdvance>,
    ) -> Result<Vec<Option<Seq>>, StoreError> {
        let mut risen = vec![None; advances.len()];
        let place = |wish: &CursorAdvance| self.servers.of_conversation(&wish.cursor.conversation);
        for (place, part) in self.by_place(&advances, place) {
            let (places, wishes): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            let advance = cursors::AdvanceCursors(wishes);
            let answers = self.servers.transact(place, &advance).await?;
            for (at, answer) in places.into_iter().zip(answers) {
                risen[at] = answer;
            }
        }
        Ok(risen)
    }

    async fn entries(
        &self,
        positions: &[(ConversationId, Seq)],
    ) -> Result<Vec<Option<StoredEntry>>, StoreError> {
        let positions: Vec<_> = (positions.iter())
            .map(|(id, seq)| (id.clone(), seq.0))
            .collect();
        let found = pulls::entries(self, &positions).await?;
        Ok((positions.iter())
            .map(|position| found.get(position).cloned())
            .collect())
    }

    async fn inbox(
        &self,
        user: &UserId,
        after: UserSeq,
        limit: PageLimit,
    ) -> Result<InboxPage, StoreError> {
        pulls::inbox(self, user, after, limit).await
    }

    async fn conversation_log(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        range: Range,
        limit: PageLimit,
    ) -> Result<Option<ConversationPage>, StoreError> {
        let log = pulls::ConversationLog {
            user,
            conversation,
            range,
            limit,
        };
        let place = self.servers.of_conversation(conversation);
        self.servers.read(place, &log).await
    }

    async fn present_window(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<(Seq, Seq)>, StoreError> {
        let place = self.servers.of_conversation(conversation);
        let window = pulls::PresentWindow { user, conversation };
        self.servers.run(place, &window).await
    }

    async fn heads(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Heads, StoreError> {
        lists::heads(self, user, after, limit).await
    }

    async fn group_counts(&self, users: &[UserId]) -> Result<Vec<usize>, StoreError> {
        lists::group_counts(self, users).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        cursor: Option<ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationRow>, StoreError> {
        lists::conversations(self, user, cursor, limit).await
    }

    async fn conversation_members(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError> {
        let mut found = HashMap::new();
        let place = |id: &ConversationId| self.servers.of_conversation(id);
        for (place, part) in self.by_place(conversations, place) {
            let ids = part.into_iter().map(|(_, id)| id.clone()).collect();
            let members = self
                .servers
                .run(place, &members::FindConversations(ids))
                .await?;
            found.extend(members.into_iter().map(|c| (c.id.clone(), c)));
        }
        Ok((conversations.iter())
            .map(|id| found.get(id).cloned())
            .collect())
    }

    async fn create_user(&self, user: NewUser) -> Result<(), StoreError> {
        let place = self.account_servers.of_user(&user.id);
        self.account_servers
            .transact(place, &users::CreateUser(user))
            .await
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        let mut found = HashMap::new();
        for (place, part) in self.by_place(ids, |id| self.account_servers.of_user(id)) {
            let ids = part.into_iter().map(|(_, id)| id.clone()).collect();
            let users = self
                .account_servers
                .run(place, &users::FindUsers(ids))
                .await?;
            found.extend(users.into_iter().map(|user| (user.id.clone(), user)));
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    async fn set_status(&self, user: &UserId, status: UserStatus) -> Result<bool, StoreError> {
        let place = self.account_servers.of_user(user);
        let user = user.clone();
        self.account_servers
            .transact(place, &users::SetStatus { user, status })
            .await
    }

    async fn revoke_tokens(
        &self,
        user: &UserId,
        new_password_hash: Option<String>,
    ) -> Result<u64, StoreError> {
        let revoke = users::RevokeTokens {
            user: user.clone(),
            new_password_hash,
        };
        let place = self.account_servers.of_user(user);
        self.account_servers.transact(place, &revoke).await
    }

    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
    ) -> Result<(), StoreError> {
        self.check_user(blocker).await?;
        self.check_user(blocked).await?;
        let set = users::SetBlock {
            blocker: blocker.clone(),
            blocked: blocked.clone(),
            on,
        };
        let place = self.servers.of_user(blocker);
        self.servers.transact(place, &set).await
    }

    async fn blocks(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<bool>, StoreError> {
        let mut blocks = HashSet::new();
        for (place, part) in self.by_place(pairs, |pair| self.servers.of_user(&pair.0)) {
            let pairs = part.into_iter().map(|(_, pair)| pair.clone()).collect();
            blocks.extend(self.servers.run(place, &users::FindBlocks(pairs)).await?);
        }
        Ok(pairs.iter().map(|pair| blocks.contains(pair)).collect())
    }

    async fn open_sessions(
        &self,
        openings: Vec<SessionOpening>,
    ) -> Result<Vec<SessionOutcome>, StoreError> {
        let mut outcomes = vec![None; openings.len()];
        let place = |opening: &SessionOpening| self.account_servers.of_user(&opening.user);
        for (place, part) in self.by_place(&openings, place) {
            let (places, openings): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            let open = sessions::OpenSessions(openings);
            let answers = self.account_servers.transact(place, &open).await?;
            for (at, answer) in places.into_iter().zip(answers) {
                outcomes[at] = Some(answer);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn forget_device(&self, user: &UserId, device: &DeviceId) -> Result<(), StoreError> {
        let place = self.account_servers.of_user(user);
        let (user, device) = (user.clone(), device.clone());
        self.account_servers
            .transact(place, &sessions::ForgetDevice { user, device })
            .await
    }
}
