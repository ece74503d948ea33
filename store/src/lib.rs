//! The port [`Store`]: what must survive. Batch-oriented, and the only room with SQL.
//!
//! The embedded default is SQLite (`SqliteStore`): write-ahead log, synced at
//! every commit, one writer thread that merges whatever waits into one
//! transaction, readers apart from it. Beside it stands the one on servers
//! (`MysqlStore`: MariaDB, MySQL), sharded: commits name a partition and its
//! epoch, and nothing in the port asks for a transaction over two partitions.

mod archive;
mod archived_row;
mod content;
mod content_row;
mod error;
mod message;
mod migration;
mod mysql;
mod page;
mod reads;
mod sqlite;
mod user;

use std::sync::Arc;

use async_trait::async_trait;
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, Incarnation, LayoutEpoch, Partition, PartitionEpoch,
    Seq, UserId, UserSeq, WorkerId,
};

pub use archive::{ArchiveError, ArchiveReader};
pub use content::Content;
pub use error::StoreError;
pub use message::{
    Commit, CommitRefusal, Cursor, CursorAdvance, CursorKind, NewEntry, Outcome, Stored,
    StoredEntry,
};
pub use migration::Migrated;
pub use mysql::{
    Month, MonthAge, MonthError, MonthState, MysqlConfig, MysqlMonths, MysqlServer, MysqlStore,
    NoMonth,
};
pub use page::fitting;
pub use reads::{
    Conversation, ConversationPage, ConversationRow, Heads, InboxPage, ListCursor, Member,
    PageLimit, Range,
};
pub use sqlite::{SqliteConfig, SqliteStore};
pub use user::{
    NewUser, SessionOpening, SessionOutcome, SessionProof, SessionRefusal, User, UserStatus,
};

/// What must survive. Every method takes a batch or answers one question; all
/// are safe to retry.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The same store by a road reserved for the owners of partitions: however
    /// many reads wait at other handles, theirs are answered and their commits
    /// run. Whoever decides what a partition stores asks by this handle only, and
    /// nobody else does.
    fn for_owners(&self) -> Arc<dyn Store>;

    // ---- Fences and numbers -------------------------------------------------

    /// Says with how many partitions this node works. The first call settles it.
    ///
    /// # Errors
    /// [`StoreError::OtherLayout`] when the store holds another number.
    async fn open_layout(&self, partitions: u16) -> Result<LayoutEpoch, StoreError>;

    /// A number for one life of a gateway (or HTTP node), never issued before.
    async fn issue_incarnation(&self) -> Result<Incarnation, StoreError>;

    /// A snowflake worker id that no other live process of this store holds.
    async fn issue_worker_id(&self) -> Result<WorkerId, StoreError>;

    /// The newest message id stored, so that a restarted generator stays above
    /// it even when the clock has stepped back. 0 when there is none.
    async fn newest_message_id(&self) -> Result<u64, StoreError>;

    /// Makes the caller the partition's owner: commits under older epochs fail from now on.
    async fn take_partition(&self, partition: Partition) -> Result<PartitionEpoch, StoreError>;

    // ---- Messages -----------------------------------------------------------

    /// Stores a partition's batch, in order, and returns one outcome an entry
    /// when all that is new is durable. Assigns conversation seqs, gap-free, and
    /// for private conversations inbox seqs of both parties; applies what the
    /// content says (recall, membership). The batch stands or falls whole.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]: another owner took the partition. On any error
    /// the caller must throw away what it believed of the partition.
    async fn commit(&self, commit: Commit) -> Result<Vec<Outcome>, StoreError>;

    /// What [`Store::commit`] first answered to each (conversation, sender,
    /// client message id); `None` for what isn't stored. For repeats that would
    /// fail today's checks, such as the retry of somebody who has left since.
    async fn first_answers(
        &self,
        sent: &[(ConversationId, UserId, ClientMsgId)],
    ) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Raises cursors, never lowers them; clamps to the log's end. Returns for
    /// each the new value if it rose (`None`: it didn't, or no such membership).
    async fn advance_cursors(
        &self,
        advances: Vec<CursorAdvance>,
    ) -> Result<Vec<Option<Seq>>, StoreError>;

    /// Single entries by position; `None` where there is none.
    async fn entries(
        &self,
        positions: &[(ConversationId, Seq)],
    ) -> Result<Vec<Option<StoredEntry>>, StoreError>;

    // ---- Pulls --------------------------------------------------------------

    /// The user's inbox after a position, ascending.
    async fn inbox(
        &self,
        user: &UserId,
        after: UserSeq,
        limit: PageLimit,
    ) -> Result<InboxPage, StoreError>;

    /// A stretch of a conversation's log, cut to the window of membership that
    /// holds the next entry in the direction asked for: a page never reaches over
    /// a stretch that the user may not see. `None` when the user never was a member.
    async fn conversation_log(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        range: Range,
        limit: PageLimit,
    ) -> Result<Option<ConversationPage>, StoreError>;

    /// Where the user's present membership begins and where the log ends; `None`
    /// for who isn't in the conversation now.
    async fn present_window(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<(Seq, Seq)>, StoreError>;

    /// Where the inbox and the groups of a user stand; groups by id after `after`.
    /// All groups that the user is in, and the [`LEFT_GROUPS_MAX`] left last.
    ///
    /// [`LEFT_GROUPS_MAX`]: sluice_protocol::limits::LEFT_GROUPS_MAX
    async fn heads(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Heads, StoreError>;

    /// How many groups each user is in now.
    async fn group_counts(&self, users: &[UserId]) -> Result<Vec<usize>, StoreError>;

    /// The user's conversations, newest first, with what is needed to show them.
    async fn conversations(
        &self,
        user: &UserId,
        cursor: Option<ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationRow>, StoreError>;

    /// Conversations with their members; `None` for unknown ones. A private
    /// conversation without entries is unknown.
    async fn conversation_members(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError>;

    // ---- Users: `users` and sessions never wait behind pulls ----------------

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::UserExists`].
    async fn create_user(&self, user: NewUser) -> Result<(), StoreError>;

    /// Users by id; `None` for unknown ones.
    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError>;

    /// Sets the status; a ban raises the token epoch and kills resume tokens.
    /// False if there is no such user.
    async fn set_status(&self, user: &UserId, status: UserStatus) -> Result<bool, StoreError>;

    /// Raises the token epoch and kills resume tokens (logout, password change).
    /// Returns the new epoch.
    ///
    /// # Errors
    /// [`StoreError::UnknownUser`].
    async fn revoke_tokens(
        &self,
        user: &UserId,
        new_password_hash: Option<String>,
    ) -> Result<u64, StoreError>;

    /// `blocker` no longer (or again) takes private messages from `blocked`.
    ///
    /// # Errors
    /// [`StoreError::UnknownUser`].
    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
    ) -> Result<(), StoreError>;

    /// For each pair (blocker, blocked): whether the block stands.
    async fn blocks(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<bool>, StoreError>;

    // ---- Sessions -----------------------------------------------------------

    /// Checks proofs of identity against the users' state, spends resume tokens
    /// and leaves new ones.
    async fn open_sessions(
        &self,
        openings: Vec<SessionOpening>,
    ) -> Result<Vec<SessionOutcome>, StoreError>;

    /// Forgets a device's resume token.
    async fn forget_device(&self, user: &UserId, device: &DeviceId) -> Result<(), StoreError>;
}
