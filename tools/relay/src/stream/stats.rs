//! What a relay has done, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the relay started, at the moment of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Connections taken from clients, refused ones not among them.
    pub connections: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Connections refused: in a blackout, or past the limit of open ones.
    pub refused: u64,
    /// Connections reset at once because the upstream could not be reached.
    pub upstream_failures: u64,
    /// Bytes written to the upstream.
    pub bytes_up: u64,
    /// Bytes written to clients.
    pub bytes_down: u64,
    /// Bytes read and not yet written: what the relay holds now.
    pub held_bytes: u64,
    /// Connections reset by the plan: `reset_s` and `cut_after_bytes`.
    pub resets: u64,
    /// Connections reset by [`Relay::cut`](crate::Relay::cut) and [`cut_all`](crate::Relay::cut_all).
    pub cuts: u64,
    /// Stalls begun.
    pub stalls: u64,
    /// Blackouts begun.
    pub blackouts: u64,
}

/// The live side of [`RelayStats`], shared by all tasks of a relay.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) upstream_failures: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
    pub(crate) held_bytes: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) cuts: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) blackouts: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// Takes from a gauge what was added to it before.
pub(crate) fn take(gauge: &AtomicU64, count: u64) {
    gauge.fetch_sub(count, Relaxed);
}

// === impl Counters ===

impl Counters {
    /// All counts but `open`, which is the relay's to know.
    pub(crate) fn read(&self) -> RelayStats {
        RelayStats {
            connections: self.connections.load(Relaxed),
            open: 0,
            refused: self.refused.load(Relaxed),
            upstream_failures: self.upstream_failures.load(Relaxed),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            held_bytes: self.held_bytes.load(Relaxed),
            resets: self.resets.load(Relaxed),
            cuts: self.cuts.load(Relaxed),
            stalls: self.stalls.load(Relaxed),
            blackouts: self.blackouts.load(Relaxed),
        }
    }
}

// === impl RelayStats ===

impl fmt::Display for RelayStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connections={} open={} ", self.connections, self.open)?;
        write!(
            f,
            "refused={} upstream_failures={} ",
            self.refused, self.upstream_failures
        )?;
        write!(
            f,
            "bytes_up={} bytes_down={} ",
            self.bytes_up, self.bytes_down
        )?;
        write!(
            f,
            "held_bytes={} resets={} cuts={} ",
            self.held_bytes, self.resets, self.cuts
        )?;
        write!(f, "stalls={} blackouts={}", self.stalls, self.blackouts)
    }
}
