//! Message ids: 41 bits of milliseconds, 10 bits of worker, 12 bits of count
//! (Twitter's Snowflake, 2010).
//!
//! The clock comes in as an argument and may step back: ids never repeat and
//! always rise. A generator then stays in the newest millisecond it has used;
//! when that one's 4,096 ids are spent it goes on in the next, ahead of the clock.

use parking_lot::Mutex;
use sluice_protocol::{MessageId, WorkerId};

/// 2025-01-01T00:00:00Z; 41 bits last until 2094.
pub(crate) const SNOWFLAKE_EPOCH_MS: u64 = 1_735_689_600_000;
const WORKER_BITS: u32 = 10;
const COUNT_BITS: u32 = 12;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const WORKER_MAX: u64 = (1 << WORKER_BITS) - 1;

/// Issues ids for one worker id; shared by all tasks of a process.
#[derive(Debug)]
pub struct Snowflake {
    worker: u64,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    /// Milliseconds since [`SNOWFLAKE_EPOCH_MS`].
    ms: u64,
    /// Count of the next id within `ms`.
    next: u64,
}

// === impl Snowflake ===

impl Snowflake {
    /// A generator that stays above `newest`, the newest id in the store.
    pub fn new(worker: WorkerId, newest: u64) -> Self {
        let newest_ms = newest >> (WORKER_BITS + COUNT_BITS);
        Self {
            worker: u64::from(worker.0) & WORKER_MAX,
            last: Mutex::new(Last {
                ms: newest_ms.saturating_add(u64::from(newest > 0)),
                next: 0,
            }),
        }
    }

    /// The next id; above all that this generator has issued.
    pub fn issue(&self, now_ms: u64) -> MessageId {
        let now = now_ms.saturating_sub(SNOWFLAKE_EPOCH_MS);
        let mut last = self.last.lock();
        if now > last.ms {
            *last = Last { ms: now, next: 0 };
        } else if last.next > COUNT_MAX {
            *last = Last {
                ms: last.ms.saturating_add(1),
                next: 0,
            };
        }
        let count = last.next;
        last.next += 1;
        MessageId((last.ms << (WORKER_BITS + COUNT_BITS)) | (self.worker << COUNT_BITS) | count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: u64 = SNOWFLAKE_EPOCH_MS + 1_000_000;

    #[test]
    fn an_id_holds_time_worker_and_count() {
        let flakes = Snowflake::new(WorkerId(5), 0);
        assert_eq!(flakes.issue(NOW_MS).0, (1_000_000 << 22) | (5 << 12));
        assert_eq!(flakes.issue(NOW_MS).0, (1_000_000 << 22) | (5 << 12) | 1);
    }

    #[test]
    fn a_restarted_generator_stays_above_the_store() {
        let newest = Snowflake::new(WorkerId(1023), 0).issue(NOW_MS + 60_000).0;
        assert!(Snowflake::new(WorkerId(0), newest).issue(NOW_MS).0 > newest);
    }

    proptest! {
        #[test]
        fn ids_rise_whatever_the_clock_does(steps in prop::collection::vec(0u64..3, 1..9000)) {
            let flakes = Snowflake::new(WorkerId(1), 0);
            let mut last = 0;
            for step in steps {
                // The clock goes back, stands or goes on.
                let id = flakes.issue(NOW_MS + step).0;
                prop_assert!(id > last);
                last = id;
            }
        }
    }
}
