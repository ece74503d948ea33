//! The one place where the SDK reads the time.

use std::time::Duration;

use tokio::time::Instant;

/// Unix milliseconds that never go back.
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            started: Instant::now(),
            started_ms: unix.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.started_ms.saturating_add(elapsed)
    }

    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        // Far enough for any deadline, near enough for the timer.
        let span = at_ms.saturating_sub(self.started_ms).min(1 << 40);
        self.started + Duration::from_millis(span)
    }
}
