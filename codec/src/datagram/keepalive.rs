//! When a client pings, so that the NATs between it and the server go on
//! knowing it; it learns how long they do.
//!
//! A NAT that has forgotten the client gives it a new address, which the server
//! answers with a path challenge: a silence of that length was too long. While
//! pings after a silence are answered without one, the silence grows.

use super::config::Config;
use crate::packed::{put_number, take_narrow};

/// A silence shorter than this proves nothing of a NAT.
const SILENCE_MIN_MS: u32 = 5_000;

/// What was learnt of this network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keepalive {
    /// After this long without a packet of ours one is sent.
    interval_ms: u32,
    /// The interval never rises to it again on this network.
    ceiling_ms: u32,
    /// The silence before the packet that was sent last after a long one.
    silence_ms: u32,
}

// === impl Keepalive ===

impl Keepalive {
    /// On a new network.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            interval_ms: config.keepalive_first_ms,
            ceiling_ms: config.keepalive_max_ms,
            silence_ms: 0,
        }
    }

    /// Other bounds hold from now on.
    pub(crate) fn rebound(&mut self, config: &Config) {
        self.ceiling_ms = self.ceiling_ms.min(config.keepalive_max_ms);
        self.interval_ms = self.interval_ms.min(self.ceiling_ms);
    }

    /// After this long without a packet of ours one is sent.
    pub(crate) fn interval_us(&self) -> u64 {
        u64::from(self.interval_ms) * 1_000
    }

    /// A packet that will be acknowledged goes out after a silence.
    pub(crate) fn on_sent(&mut self, silence_us: u64) {
        let silence_ms = u32::try_from(silence_us / 1_000).unwrap_or(u32::MAX);
        if silence_ms >= SILENCE_MIN_MS {
            self.silence_ms = silence_ms;
        }
    }

    /// An answer came on the path as it was.
    pub(crate) fn on_answered(&mut self) {
        let silence_ms = std::mem::take(&mut self.silence_ms);
        if silence_ms >= self.interval_ms {
            self.interval_ms = (self.interval_ms + self.interval_ms / 4).min(self.ceiling_ms);
        }
    }

    /// The server saw us come from another address.
    pub(crate) fn on_moved(&mut self, config: &Config) {
        let silence_ms = std::mem::take(&mut self.silence_ms);
        if silence_ms >= SILENCE_MIN_MS {
            self.ceiling_ms = (silence_ms / 3 * 2).max(config.keepalive_min_ms);
            self.interval_ms = self.interval_ms.min(self.ceiling_ms);
        }
    }

    pub(super) fn pack(self, out: &mut Vec<u8>) {
        for value in [self.interval_ms, self.ceiling_ms, self.silence_ms] {
            put_number(out, value.into());
        }
    }

    pub(super) fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            interval_ms: take_narrow(input)?,
            ceiling_ms: take_narrow(input)?,
            silence_ms: take_narrow(input)?,
        })
    }
}
