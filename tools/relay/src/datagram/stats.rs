//! What a datagram relay has done, counted.

use crate::datagram::line::Passage;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the relay started, at the moment of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramStats {
    /// Flows begun: clients' addresses, each again after it was idle for too long.
    pub flows: u64,
    /// Flows that are open now.
    pub open: u64,
    /// Datagrams dropped because the relay had no room or no socket for another flow.
    pub refused: u64,
    /// Datagrams sent to the upstream.
    pub up: u64,
    /// Datagrams sent to clients.
    pub down: u64,
    /// Bytes of payload sent to the upstream.
    pub bytes_up: u64,
    /// Bytes of payload sent to clients.
    pub bytes_down: u64,
    /// Bytes of payload that the relay holds now.
    pub held_bytes: u64,
    /// Datagrams lost by the plan's share.
    pub lost: u64,
    /// Datagrams doubled.
    pub doubled: u64,
    /// Datagrams held back so that others overtook them.
    pub reordered: u64,
    /// Datagrams with a bit flipped.
    pub corrupted: u64,
    /// Datagrams dropped for their size.
    pub too_large: u64,
    /// Datagrams dropped because too much was under way.
    pub overflowed: u64,
    /// Datagrams lost in a blackout or while the relay was blocked.
    pub blacked_out: u64,
    /// Times that a client came from another address.
    pub rebinds: u64,
    /// Stalls begun.
    pub stalls: u64,
    /// Blackouts begun.
    pub blackouts: u64,
}

/// The live side of [`DatagramStats`], shared by all tasks of a relay.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flows: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
    pub(crate) held_bytes: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) blacked_out: AtomicU64,
    pub(crate) rebinds: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) blackouts: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    reordered: AtomicU64,
    corrupted: AtomicU64,
    too_large: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

// === impl Counters ===

impl Counters {
    /// Counts what a line did to a datagram.
    pub(crate) fn note(&self, passage: Passage) {
        for (happened, counter) in [
            (passage.lost, &self.lost),
            (passage.doubled, &self.doubled),
            (passage.held_back, &self.reordered),
            (passage.corrupted, &self.corrupted),
            (passage.too_large, &self.too_large),
            (passage.overflowed, &self.overflowed),
        ] {
            add(counter, u64::from(happened));
        }
    }

    /// All counts but `open`, which is the relay's to know.
    pub(crate) fn read(&self) -> DatagramStats {
        DatagramStats {
            flows: self.flows.load(Relaxed),
            open: 0,
            refused: self.refused.load(Relaxed),
            up: self.up.load(Relaxed),
            down: self.down.load(Relaxed),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            held_bytes: self.held_bytes.load(Relaxed),
            lost: self.lost.load(Relaxed),
            doubled: self.doubled.load(Relaxed),
            reordered: self.reordered.load(Relaxed),
            corrupted: self.corrupted.load(Relaxed),
            too_large: self.too_large.load(Relaxed),
            overflowed: self.overflowed.load(Relaxed),
            blacked_out: self.blacked_out.load(Relaxed),
            rebinds: self.rebinds.load(Relaxed),
            stalls: self.stalls.load(Relaxed),
            blackouts: self.blackouts.load(Relaxed),
        }
    }
}

// === impl DatagramStats ===

impl fmt::Display for DatagramStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flows={} open={} ", self.flows, self.open)?;
        write!(
            f,
            "refused={} up={} down={} ",
            self.refused, self.up, self.down
        )?;
        write!(
            f,
            "bytes_up={} bytes_down={} held_bytes={} ",
            self.bytes_up, self.bytes_down, self.held_bytes
        )?;
        write!(
            f,
            "lost={} doubled={} reordered={} corrupted={} ",
            self.lost, self.doubled, self.reordered, self.corrupted
        )?;
        write!(
            f,
            "too_large={} overflowed={} blacked_out={} ",
            self.too_large, self.overflowed, self.blacked_out
        )?;
        write!(
            f,
            "rebinds={} stalls={} blackouts={}",
            self.rebinds, self.stalls, self.blackouts
        )
    }
}
