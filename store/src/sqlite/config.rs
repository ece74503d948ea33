//! Sizes of the embedded store.

use serde::Deserialize;

/// How the embedded store is set up. The defaults suit a node of a few cores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteConfig {
    /// Writes that may wait; one more is answered with `Overloaded`.
    pub queue_max_requests: usize,
    /// Entries (or other rows) after which a transaction takes no further request.
    pub batch_max_entries: usize,
    /// Threads that read for clients and HTTP calls, each with a connection of its own.
    pub reader_threads: usize,
    /// Threads that look users up, for logins and the bearers of HTTP calls.
    pub account_reader_threads: usize,
    /// Threads that read for the owners of partitions, whom no other read delays.
    pub owner_reader_threads: usize,
    /// Reads that may wait for each kind of thread; one more is answered with `Overloaded`.
    pub read_queue_max_requests: usize,
    /// Page cache of the writer.
    pub writer_cache_mib: u32,
    /// Page cache of each reader.
    pub reader_cache_mib: u32,
    /// Size of the write-ahead log at which its pages move to the database file.
    pub checkpoint_at_mib: u32,
    /// Conversations, users and inbox ends (each) that the writer remembers.
    pub writer_memory_entries: usize,
}

// === impl SqliteConfig ===

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            queue_max_requests: 4_096,
            batch_max_entries: 4_096,
            reader_threads: 2,
            account_reader_threads: 1,
            owner_reader_threads: 1,
            read_queue_max_requests: 4_096,
            writer_cache_mib: 128,
            reader_cache_mib: 16,
            checkpoint_at_mib: 64,
            writer_memory_entries: 131_072,
        }
    }
}

impl SqliteConfig {
    /// Whether a store can work with these values.
    ///
    /// # Errors
    /// Names the first that it can't.
    pub fn check(&self) -> Result<(), String> {
        let wanted = [
            ("queue_max_requests", self.queue_max_requests),
            ("batch_max_entries", self.batch_max_entries),
            ("reader_threads", self.reader_threads),
            ("account_reader_threads", self.account_reader_threads),
            ("owner_reader_threads", self.owner_reader_threads),
            ("read_queue_max_requests", self.read_queue_max_requests),
            ("writer_memory_entries", self.writer_memory_entries),
        ];
        match wanted.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must be above 0")),
            None => Ok(()),
        }
    }
}
