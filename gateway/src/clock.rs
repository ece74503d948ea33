//! The one place where a gateway reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment, read once a turn of an event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the gateway began; never goes back. For spans and timers.
    pub mono_ms: u64,
    /// The same in microseconds, for datagram sessions.
    pub mono_us: u64,
    /// Milliseconds since the Unix epoch. For stamps and expiries.
    pub unix_ms: u64,
}

/// Reads the machine's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let mono_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now {
            mono_ms: mono_us / 1_000,
            mono_us,
            // A clock before 1970 is a machine without one; tokens fail then.
            unix_ms: unix.map_or(0, |span| {
                u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }
}
