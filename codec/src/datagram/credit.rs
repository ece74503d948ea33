//! Receive credit: how much a peer may send that was not handed on yet.
//!
//! A shared socket can't be paused for one session, so the bound of what a
//! session holds lies with the sender, and the receiver checks it. Both count
//! what each reliable message costs ([`charge`]) when it is first sent or seen;
//! the receiver moves the limit up as it hands messages on. Counts wrap.

use crate::packed::{put_number, take_narrow};

use super::config::{CREDIT_WINDOW_BYTES, MESSAGE_MAX_BYTES, MESSAGE_OVERHEAD_BYTES};

/// A limit is told when it has risen by this much. What is not told must leave
/// room for the largest message, or both sides would wait.
const TELL_BYTES: u32 = CREDIT_WINDOW_BYTES / 8;
const _: () =
    assert!(CREDIT_WINDOW_BYTES - TELL_BYTES >= MESSAGE_MAX_BYTES as u32 + MESSAGE_OVERHEAD_BYTES);

/// Both directions' counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credit {
    /// What we may have sent in all, and have.
    limit: u32,
    sent: u32,
    /// What the peer was told that it may have sent in all, and has.
    told: u32,
    seen: u32,
    /// Of what it sent, handed on.
    released: u32,
}

/// What a message costs.
pub(crate) fn charge(message_bytes: usize) -> u32 {
    message_bytes as u32 + MESSAGE_OVERHEAD_BYTES
}

// === impl Credit ===

impl Credit {
    /// Of a new session.
    pub(crate) fn new() -> Self {
        Self {
            limit: CREDIT_WINDOW_BYTES,
            sent: 0,
            told: CREDIT_WINDOW_BYTES,
            seen: 0,
            released: 0,
        }
    }

    /// Whether a message may be begun.
    pub(crate) fn allows(&self, message_bytes: usize) -> bool {
        self.limit.wrapping_sub(self.sent) >= charge(message_bytes)
    }

    /// A message is begun.
    pub(crate) fn spend(&mut self, message_bytes: usize) {
        self.sent = self.sent.wrapping_add(charge(message_bytes));
    }

    /// The peer told a limit. It never falls: an older frame may come later.
    /// One that is higher than any receiver has room for is taken as what it
    /// says; it is the peer's own memory.
    pub(crate) fn raise(&mut self, limit: u32) {
        if (limit.wrapping_sub(self.limit) as i32) > 0 {
            self.limit = limit;
        }
    }

    /// A message of the peer was seen for the first time; false if it goes over
    /// the limit.
    pub(crate) fn see(&mut self, message_bytes: usize) -> bool {
        let charge = charge(message_bytes);
        if self.told.wrapping_sub(self.seen) < charge {
            return false;
        }
        self.seen = self.seen.wrapping_add(charge);
        true
    }

    /// A message of the peer was handed on.
    pub(crate) fn release(&mut self, message_bytes: usize) {
        self.released = self.released.wrapping_add(charge(message_bytes));
    }

    /// Whether the limit has risen enough to be told.
    pub(crate) fn should_tell(&self) -> bool {
        self.current_limit().wrapping_sub(self.told) >= TELL_BYTES
    }

    /// The limit, which is told now.
    pub(crate) fn tell(&mut self) -> u32 {
        self.told = self.current_limit();
        self.told
    }

    fn current_limit(&self) -> u32 {
        self.released.wrapping_add(CREDIT_WINDOW_BYTES)
    }

    pub(super) fn pack(self, out: &mut Vec<u8>) {
        // The counts grow for ever; what lies between them is at most a window.
        let room = self.limit.wrapping_sub(self.sent);
        let peers_room = self.told.wrapping_sub(self.seen);
        let held = self.seen.wrapping_sub(self.released);
        for value in [self.sent, room, self.seen, peers_room, held] {
            put_number(out, value.into());
        }
    }

    pub(super) fn unpack(input: &mut &[u8]) -> Option<Self> {
        let (sent, room): (u32, u32) = (take_narrow(input)?, take_narrow(input)?);
        let (seen, peers_room): (u32, u32) = (take_narrow(input)?, take_narrow(input)?);
        let held = take_narrow(input)?;
        Some(Self {
            limit: sent.wrapping_add(room),
            sent,
            told: seen.wrapping_add(peers_room),
            seen,
            released: seen.wrapping_sub(held),
        })
    }
}
