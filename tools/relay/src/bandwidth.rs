//! How fast bytes leave: one direction of a connection on a line of bounded speed.
//!
//! Holds no clock; time comes in as an argument. What waits for the line is bounded by the queue
//! behind it, not here.

use crate::plan::FaultPlan;
use std::time::Duration;
use tokio::time::Instant;

/// A line that passes so many bytes a second, one piece after the other.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    /// `None`: as fast as they come.
    bytes_per_s: Option<f64>,
    /// When the line has passed all that it was given.
    free_at: Instant,
}

// === impl Bandwidth ===

impl Bandwidth {
    pub(crate) fn new(plan: &FaultPlan, now: Instant) -> Self {
        Bandwidth {
            bytes_per_s: plan.bandwidth_bytes_per_s(),
            free_at: now,
        }
    }

    /// When so many bytes that come now will have passed.
    pub(crate) fn pass(&mut self, bytes: usize, now: Instant) -> Instant {
        let Some(bytes_per_s) = self.bytes_per_s else {
            return now;
        };
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_s);
        self.free_at = self.free_at.max(now) + takes;
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_pass_one_after_the_other_and_an_idle_line_is_free() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // 8 kbit/s: a byte a millisecond.
        let plan = "bandwidth_kbps=8".parse().unwrap();
        let mut line = Bandwidth::new(&plan, start);
        assert_eq!(line.pass(100, start), at(100));
        assert_eq!(line.pass(50, at(10)), at(150));
        assert_eq!(line.pass(0, at(20)), at(150));
        assert_eq!(line.pass(10, at(500)), at(510));

        let mut free = Bandwidth::new(&FaultPlan::default(), start);
        assert_eq!(free.pass(usize::MAX, at(7)), at(7));
    }
}
