//! Proof that the peer is where its packets came from, after its address changed.

/// Challenges before the new address is given up.
const TRIES_MAX: u8 = 5;
/// Bytes sent to an address that isn't proven, for each that came from it
/// (RFC 9000, section 8).
const AMPLIFICATION: u64 = 3;

/// A change of address that isn't proven yet.
#[derive(Debug)]
pub(crate) struct PathCheck {
    token: u64,
    is_limited: bool,
    came_bytes: u64,
    sent_bytes: u64,
    tries: u8,
    is_due: bool,
    again_at_us: u64,
}

// === impl PathCheck ===

impl PathCheck {
    /// `token`: what nobody who isn't there can know. `is_limited`: nothing is
    /// known of who receives there.
    pub(crate) fn new(token: u64, is_limited: bool) -> Self {
        Self {
            token,
            is_limited,
            came_bytes: 0,
            sent_bytes: 0,
            tries: 0,
            is_due: true,
            again_at_us: u64::MAX,
        }
    }

    /// Bytes that may still go to the address.
    pub(crate) fn room_bytes(&self) -> u64 {
        if !self.is_limited {
            return u64::MAX;
        }
        let share = self.came_bytes.saturating_mul(AMPLIFICATION);
        share.saturating_sub(self.sent_bytes)
    }

    pub(crate) fn on_came(&mut self, bytes: u64) {
        self.came_bytes = self.came_bytes.saturating_add(bytes);
    }

    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
    }

    /// The challenge that should go out.
    pub(crate) fn challenge(&self) -> Option<u64> {
        self.is_due.then_some(self.token)
    }

    /// It has gone out.
    pub(crate) fn on_challenge_sent(&mut self, now_us: u64, probe_us: u64) {
        self.is_due = false;
        self.again_at_us = now_us + (probe_us << self.tries.min(3));
        self.tries += 1;
    }

    /// When something is to be done without an answer.
    pub(crate) fn again_at_us(&self) -> Option<u64> {
        (!self.is_due).then_some(self.again_at_us)
    }

    /// Time has passed; false if the address is to be given up.
    pub(crate) fn on_time(&mut self, now_us: u64) -> bool {
        if !self.is_due && now_us >= self.again_at_us {
            if self.tries >= TRIES_MAX {
                return false;
            }
            self.is_due = true;
        }
        true
    }

    /// Whether a response proves the address.
    pub(crate) fn is_proven_by(&self, token: u64) -> bool {
        self.token == token && self.tries > 0
    }
}
