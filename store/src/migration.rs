//! What a migration did.

/// What bringing one database to this program's schema took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Which database: `host:port/name`, or a file.
    pub database: String,
    /// The schema version that it had; 0: it was empty.
    pub from: u32,
    /// The one that it has.
    pub to: u32,
    /// Not all was done that was to be: it was told to stop.
    pub is_stopped: bool,
    /// Months that got partitions of their own, such as `2026-11`.
    pub months: Vec<String>,
}
