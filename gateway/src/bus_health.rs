//! How the bus fares, as lanes and way down see it: what `/readyz` tells.
//!
//! Nothing is asked of the bus for it. Whoever meets an error notes it, whoever
//! succeeds notes that; what has failed again and again for longer than a short
//! time makes the gateway not ready. The list is as long as there are streams
//! that fail, and empty in good times.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::clock::Clock;

/// See the module.
#[derive(Debug)]
pub(crate) struct BusHealth {
    clock: Clock,
    /// A stream that fails for longer than this is told.
    patience_ms: u64,
    failing: Mutex<BTreeMap<String, Failing>>,
}

/// A stream that has failed and not succeeded since.
#[derive(Debug)]
struct Failing {
    first_ms: u64,
    last_ms: u64,
    error: String,
}

/// Errors further apart are not of one failure: a reader that waits in quiet for
/// entries has no success to tell. Everything is repeated more often.
const QUIET_MS: u64 = 10_000;

// === impl BusHealth ===

impl BusHealth {
    pub(crate) fn new(clock: Clock, patience_ms: u64) -> Self {
        Self {
            clock,
            patience_ms,
            failing: Mutex::default(),
        }
    }

    pub(crate) fn failed(&self, stream: &str, error: &dyn std::fmt::Display) {
        self.failed_at(stream, error.to_string(), self.clock.now().mono_ms);
    }

    fn failed_at(&self, stream: &str, error: String, now_ms: u64) {
        let mut failing = self.failing.lock();
        let entry = failing.entry(stream.to_owned()).or_insert(Failing {
            first_ms: now_ms,
            last_ms: now_ms,
            error: String::new(),
        });
        if now_ms.saturating_sub(entry.last_ms) > QUIET_MS {
            entry.first_ms = now_ms;
        }
        (entry.last_ms, entry.error) = (now_ms, error);
    }

    /// Call it after a success that follows an error; needless otherwise.
    pub(crate) fn recovered(&self, stream: &str) {
        self.failing.lock().remove(stream);
    }

    /// Which stream fails and how, if one does for too long.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble_at(self.clock.now().mono_ms)
    }

    fn trouble_at(&self, now_ms: u64) -> Option<String> {
        let failing = self.failing.lock();
        let (stream, failure) = failing.iter().find(|(_, failure)| {
            now_ms.saturating_sub(failure.last_ms) <= QUIET_MS
                && now_ms.saturating_sub(failure.first_ms) >= self.patience_ms
        })?;
        let since_s = now_ms.saturating_sub(failure.first_ms) / 1000;
        let error = &failure.error;
        Some(format!("{stream} has failed for {since_s} s: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fails_for_long_and_still_does_is_told() {
        let health = BusHealth::new(Clock::start(), 5_000);
        let fail = |at_ms| health.failed_at("down:{1}", "gone".to_owned(), at_ms);
        fail(1_000);
        assert_eq!(health.trouble_at(5_999), None);
        fail(6_000);
        let told = health.trouble_at(6_000).unwrap();
        assert_eq!(told, "down:{1} has failed for 5 s: gone");
        // Quiet for long: it waits for entries, so it is connected.
        assert_eq!(health.trouble_at(16_001), None);
        // What fails then is another failure.
        fail(17_000);
        assert_eq!(health.trouble_at(17_000), None);
        fail(22_000);
        assert!(health.trouble_at(22_000).is_some());
        health.recovered("down:{1}");
        assert_eq!(health.trouble_at(22_000), None);
    }
}
