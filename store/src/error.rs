//! What can go wrong in a store, by whose fault.

use sluice_protocol::UserId;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine failed (disk full, I/O, server gone). Nothing, or all, of the
    /// request may have been done; retry later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Too much waits already; retry later.
    #[error("store overloaded: {waiting} requests are waiting")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// Another owner took the partition since.
    #[error("partition {partition} has a newer owner (epoch {newest}, not {held})")]
    Fenced {
        /// Which partition.
        partition: u16,
        /// The caller's epoch.
        held: u64,
        /// The epoch in force.
        newest: u64,
    },
    /// The data was laid out for another number of partitions.
    #[error(
        "the data is laid out for {stored} partitions, this node is configured for {asked}; \
         set partitions = {stored} or drain and change the layout"
    )]
    OtherLayout {
        /// What the store holds.
        stored: u16,
        /// What the node wanted.
        asked: u16,
    },
    /// The data folder belongs to another running process.
    #[error(
        "{path} is in use by another process{}; stop it or choose another --data-dir",
        holder.map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: String,
        /// That process.
        holder: Option<u32>,
    },
    /// The files were written by a newer version of this program.
    #[error(
        "the data has schema version {found}, this program knows up to {known}: a newer \
         `sluice` has migrated it (see `sluice migrate`); run that one"
    )]
    NewerSchema {
        /// In the files.
        found: u32,
        /// In the program.
        known: u32,
    },
    /// The configuration cannot be.
    #[error("store configuration: {0}")]
    BadConfig(String),
    /// There is a user of this id already.
    #[error("user {0} exists already")]
    UserExists(UserId),
    /// There is no such user.
    #[error("there is no user {0}")]
    UnknownUser(UserId),
    /// The engine holds something that this program did not write, or refuses
    /// for good what it would write.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the engine failed, and not what was asked of it: the same request
    /// is worth repeating as it is, however long that takes.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            StoreError::Unavailable(_) | StoreError::Overloaded { .. }
        )
    }

    /// A bounded label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Overloaded { .. } => "overloaded",
            StoreError::Fenced { .. } => "fenced",
            StoreError::OtherLayout { .. } => "other_layout",
            StoreError::InUse { .. } => "in_use",
            StoreError::NewerSchema { .. } => "newer_schema",
            StoreError::BadConfig(_) => "bad_config",
            StoreError::UserExists(_) => "user_exists",
            StoreError::UnknownUser(_) => "unknown_user",
            StoreError::Damaged(_) => "damaged",
        }
    }
}
