//! Ports [`Bus`] and [`Directory`], where gateways and services meet, each with
//! an in-process implementation. The only room that will know Redis.
//!
//! Both ports are shaped for a remote engine: work comes in batches, a reader
//! holds a lease and can lose it, an append whose answer was lost may have
//! happened (so entries may come twice), and an entry stays pending until it is
//! acknowledged.

mod directory;
mod stream;

use async_trait::async_trait;
use bytes::Bytes;

pub use directory::{
    Bind, BindOutcome, DevicePolicy, Directory, PresenceChange, PresenceWatch, Route,
};
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
    /// For [`Reader::ack`].
    pub id: EntryId,
    /// How often it has been handed out, this time included. Above 1 it is a
    /// redelivery: work that it caused may have been done already.
    pub deliveries: u32,
    /// An encoded `Up`, `Down` or `BackendRequest`.
    pub payload: Bytes,
}

/// How far a stream's readers are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Entries that nobody has read yet.
    pub unread: u64,
    /// Entries read but not acknowledged.
    pub pending: u64,
}

/// What can go wrong on the bus. All of it is the bus's fault, not the caller's.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// The engine can't be reached or refused; nothing is known to have been
    /// appended, and some of the batch may have been.
    #[error("bus unavailable: {0}")]
    Unavailable(String),
    /// The reader's lease went to another node. Throw the state away, own again.
    #[error("the lease of {0} was lost")]
    LeaseLost(String),
    /// The stream was deleted or the bus shut down.
    #[error("stream {0} is closed")]
    Closed(String),
}

/// Partitioned, ordered streams with owners.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Appends the entries in order and returns when they are kept as safely as
    /// the engine is configured for.
    ///
    /// `up` streams make the caller wait while they are full (the lane behind
    /// fills, and the gateway answers `Busy`). `down` streams never do: past
    /// their bound the new entries are dropped, and the producer's counter in
    /// the next one shows the gap ([`Stream::blocks_producer`]).
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: any prefix may have been appended; appending
    /// the batch again is right, since consumers take repeats.
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
    /// Waits for entries and returns 1 to `max_entries` of them, oldest first.
    /// Safe to cancel: a read that was dropped has consumed nothing.
    async fn read(&mut self, max_entries: usize) -> Result<Vec<BusEntry>, BusError>;

    /// The entries are done with.
    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError>;
}
