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
    /// Under load a transaction begins no sooner than this after the one before it did,
    /// so that more share its sync; 0: at once. At most 100,000.
    pub commit_gap_us: u64,
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

/// Whoever waits for an ack waits for this, too.
const COMMIT_GAP_MAX_US: u64 = 100_000;

// === impl SqliteConfig ===

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            queue_max_requests: 4_096,
            batch_max_entries: 4_096,
            commit_gap_us: 2_000,
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
        if let Some((name, _)) = wanted.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} must be above 0"));
        }
        if self.commit_gap_us > COMMIT_GAP_MAX_US {
            return Err(format!("commit_gap_us must be at most {COMMIT_GAP_MAX_US}"));
        }
        Ok(())
    }
}
