//! The largest datagram that the path carries, found upwards from 1,200 bytes.
//!
//! Probing costs packets, so it begins only where it pays: when packets go out
//! full. A probe that is lost twice ends the search on this path. Full packets that are lost
//! again and again while small ones pass lead back to 1,200 (the path changed).

use super::config::{DATAGRAM_MAX_BYTES, DATAGRAM_MIN_BYTES};

/// Sizes to try: IPv6 through a tunnel or PPPoE, Ethernet.
const STEPS: [u16; 3] = [1_280, 1_380, DATAGRAM_MAX_BYTES];
/// Packets that were full before a search begins.
const FULL_BEFORE_SEARCH: u8 = 8;
const TRIES_MAX: u8 = 2;
/// Full packets lost in a row that tell of a path that carries less.
const LOST_MAX: u8 = 6;

/// The search on one path.
#[derive(Debug, Default)]
pub(crate) struct MtuSearch {
    full: u8,
    tries: u8,
    lost: u8,
    is_under_way: bool,
}

// === impl MtuSearch ===

impl MtuSearch {
    /// A packet left; `is_full`: more would have been put into a larger one.
    pub(crate) fn on_sent(&mut self, is_full: bool) {
        self.full = self.full.saturating_add(u8::from(is_full));
    }

    /// The size of the probe that should go out now.
    pub(crate) fn probe(&self, now: u16, max: u16) -> Option<u16> {
        if self.is_under_way || self.full < FULL_BEFORE_SEARCH || self.tries >= TRIES_MAX {
            return None;
        }
        STEPS.into_iter().find(|step| *step > now && *step <= max)
    }

    /// It has gone out.
    pub(crate) fn on_probe_sent(&mut self) {
        self.is_under_way = true;
    }

    /// It has come through.
    pub(crate) fn on_probe_acked(&mut self) {
        self.is_under_way = false;
        self.tries = 0;
    }

    /// It was lost.
    pub(crate) fn on_probe_lost(&mut self) {
        self.is_under_way = false;
        self.tries += 1;
    }

    /// A packet larger than 1,200 bytes came through.
    pub(crate) fn on_large_acked(&mut self) {
        self.lost = 0;
    }

    /// One was lost. Returns the size to fall back to.
    pub(crate) fn on_large_lost(&mut self) -> Option<u16> {
        self.lost = self.lost.saturating_add(1);
        if self.lost < LOST_MAX {
            return None;
        }
        self.lost = 0;
        self.tries = TRIES_MAX;
        Some(DATAGRAM_MIN_BYTES)
    }
}
