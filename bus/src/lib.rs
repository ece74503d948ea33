//! Ports [`Bus`] and [`Directory`], where gateways and services meet, each
//! in process and on Redis. The only room that knows Redis.
//!
//! Both ports are shaped for a remote engine: work comes in batches, a reader
//! holds a lease and can lose it, an append whose answer was lost may have
//! happened (so entries may come twice), and an entry stays pending until it is
//! acknowledged.

mod directory;
pub mod faulty_bus;
mod memory;
mod producer_counts;
mod redis;
mod stream;

use async_trait::async_trait;
use bytes::Bytes;

pub use directory::{
    Bind, BindOutcome, DevicePolicy, Directory, PresenceChange, PresenceWatch, Route,
};
pub use memory::{
    MemoryBus, MemoryBusConfig, MemoryBusStats, MemoryDirectory, MemoryDirectoryConfig,
};
pub use producer_counts::ProducerCounts;
pub use redis::{DeadLetter, RedisBus, RedisConfig, RedisDirectory, RedisMode};
pub use stream::Stream;

/// Names one consumer for logs, leases and pending lists: a role and its worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeName(pub String);

/// What an entry is acknowledged by; opaque, ordered within its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds (Redis) or zero (in process).
    pub major: u64,
    /// Count within `major`.
    pub minor: u64,
}

/// One entry as its reader gets it.
#[derive(Debug, Clone)]
pub struct BusEntry {
    /// For [`Reader::ack`]. Opaque: after a failover ids may fall, so it is no
    /// high-water mark.
    pub id: EntryId,
    /// How often it has been handed out, this time included, as far as is
    /// known. A hint for setting poison entries aside, not proof of a first time.
    pub deliveries: u32,
    /// An encoded `Up`, `Down` or `BackendRequest`.
    pub payload: Bytes,
}

/// What one read returns.
#[derive(Debug, Clone, Default)]
pub struct ReadBatch {
    /// Oldest first. May be empty when `reset` or `lost` has something to say.
    pub entries: Vec<BusEntry>,
    /// The stream was made anew by the engine (a failover, a flush): unknown
    /// entries are gone. A reader of `down` tells its clients to resync.
    pub reset: bool,
    /// Entries that were trimmed away before they were read.
    pub lost_entries: u64,
}

/// How far a stream's readers are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Entries not acknowledged yet, read or not; an upper bound.
    pub entries: u64,
    /// Age of the oldest of them.
    pub oldest_ms: u64,
}

/// What can go wrong on the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The engine can't be reached; nothing was appended.
    #[error("bus unavailable: {0}")]
    Unavailable(String),
    /// The answer was lost: the batch may be there, or may yet appear. Append
    /// it again before anything else goes to that stream; consumers take repeats.
    #[error("outcome of the append unknown: {0}")]
    Unknown(String),
    /// The `down` stream has no reader any more (its gateway's life is over).
    #[error("stream {0} is gone")]
    Gone(String),
    /// Over [`BATCH_MAX_ENTRIES`] or [`BATCH_MAX_BYTES`]; nothing was appended.
    #[error("a batch of {entries} entries and {bytes} bytes is over the bound")]
    TooLarge {
        /// Entries in the batch.
        entries: usize,
        /// Bytes in the batch.
        bytes: usize,
    },
    /// The reader's lease went to another node. Throw the state away, own again.
    #[error("the lease of {0} was lost")]
    LeaseLost(String),
    /// Another process holds the lease of this gateway: two claim one id.
    #[error("{0} is held by another process")]
    Taken(String),
    /// The stream was deleted or the bus shut down.
    #[error("stream {0} is closed")]
    Closed(String),
}

impl BusError {
    /// Whether a reader that answered this gives nothing any more, so that the
    /// stream has to be owned or joined anew. After any other error it is best
    /// kept: while the engine is away a lease can't be given back, and who drops
    /// the reader waits for that lease to end.
    pub fn ends_reader(&self) -> bool {
        matches!(
            self,
            Self::LeaseLost(_) | Self::Closed(_) | Self::Gone(_) | Self::Taken(_)
        )
    }
}

/// Entries in one append, at most: a longer script would stall a remote engine.
pub const BATCH_MAX_ENTRIES: usize = 256;
/// Bytes in one append, at most; a single entry of any size allowed by the
/// protocol fits.
pub const BATCH_MAX_BYTES: usize = 512 * 1024;

/// Partitioned, ordered streams with owners.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Appends the batch, all or nothing and in order, and returns when it is
    /// kept as safely as the engine is configured for.
    ///
    /// `up` streams make the caller wait while they are full (the lane behind
    /// fills, and the gateway answers `Busy`) and come into being by the first
    /// append. `down` streams never make it wait: past their bound new batches
    /// are dropped, and the producer's counter in the next one shows the gap
    /// ([`Stream::blocks_producer`]); they exist while their reader owns them.
    /// An empty stream takes any one batch, whatever its bound. Safe to cancel:
    /// the batch is in the stream as a whole or not at all.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], [`BusError::Gone`], [`BusError::TooLarge`]:
    /// nothing was appended. [`BusError::Unknown`]: it may have been, or may
    /// yet be. Keep one append in flight a stream and repeat it until it is known.
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError>;

    /// Waits until `owner` holds the stream's lease, and reads it as its only
    /// consumer. Entries that an earlier owner left pending come first, in order.
    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError>;

    /// Reads the stream side by side with other consumers; each entry goes to
    /// one of them, and comes back to another if it isn't acknowledged.
    async fn join(&self, stream: &Stream, consumer: &NodeName)
    -> Result<Box<dyn Reader>, BusError>;

    /// How far behind the readers are.
    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError>;

    /// Removes a stream and what it holds; its readers get [`BusError::Closed`].
    async fn delete(&self, stream: &Stream) -> Result<(), BusError>;
}

/// One consumer's end of a stream. Dropping it gives the lease back; what it
/// has not acknowledged will be delivered again.
#[async_trait]
pub trait Reader: Send {
    /// Waits for entries and returns at most `max_entries`, oldest first. After
    /// an error it begins again with this owner's own pending entries. Safe to
    /// cancel: what a dropped read had taken is handed out again.
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError>;

    /// The entries are done with; any order, any number of times.
    ///
    /// # Errors
    /// [`BusError::LeaseLost`] when another owner has the stream: it will work
    /// on them again.
    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError>;

    /// What was handed out and not acknowledged is handed out again, oldest
    /// first, from the next read on. For who could not do its work, and keeps
    /// the reader.
    fn begin_again(&mut self);
}
