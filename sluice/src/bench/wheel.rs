//! The timing wheel by itself, a million timers pending: part of `sluice bench all`.
//! The bench in `benches/` takes it apart further.

use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_timer::{TimerHandle, Wheel};

/// What operations take with a million others pending; medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct WheelReport {
    /// Timers that are pending all the time.
    pub(super) timers: usize,
    /// To schedule one.
    pub(super) schedule_ns: f64,
    /// To cancel one.
    pub(super) cancel_ns: f64,
    /// To fire one, the ticks in between included.
    pub(super) fire_ns: f64,
    /// To pass a millisecond on which nothing is due.
    pub(super) empty_tick_ns: f64,
    /// The same with nothing pending.
    pub(super) empty_tick_alone_ns: f64,
}

/// Pending timers: heartbeats, say.
const WHEEL_TIMERS: usize = 1_000_000;
const BATCH: usize = 1_024;
/// Of a batch, the others fire: as acks cancel retransmits.
const CANCELLED: usize = BATCH * 95 / 100;
const BATCHES: usize = 2_000;
const START_MS: u64 = 1_700_000_000_000;
/// Beyond all that passes here.
const FAR_MS: u64 = 1 << 37;

/// Measures it, for some seconds, on this thread.
pub(super) fn wheel() -> WheelReport {
    let mut alone = Bench::new(0);
    let empty_tick_alone_ns = alone.empty_ticks();
    let mut crowded = Bench::new(WHEEL_TIMERS);
    let empty_tick_ns = crowded.empty_ticks();
    let [schedule_ns, cancel_ns, fire_ns] = crowded.operations();
    WheelReport {
        timers: WHEEL_TIMERS,
        schedule_ns,
        cancel_ns,
        fire_ns,
        empty_tick_ns,
        empty_tick_alone_ns,
    }
}

struct Bench {
    wheel: Wheel<u64>,
    now_ms: u64,
    /// xorshift64: the same in every run, and nearly free.
    scatter: u64,
    expired: Vec<u64>,
}

// === impl Bench ===

impl Bench {
    fn new(population: usize) -> Self {
        let mut bench = Self {
            wheel: Wheel::new(1, population + 2 * BATCH, START_MS),
            now_ms: START_MS,
            scatter: 0x9E37_79B9_7F4A_7C15,
            expired: Vec::with_capacity(BATCH),
        };
        for _ in 0..population {
            let far_ms = FAR_MS + bench.below(FAR_MS);
            bench.schedule(far_ms);
        }
        bench
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.scatter ^= self.scatter << 13;
        self.scatter ^= self.scatter >> 7;
        self.scatter ^= self.scatter << 17;
        self.scatter % bound
    }

    fn schedule(&mut self, delay_ms: u64) -> Option<TimerHandle> {
        self.wheel.schedule(self.now_ms + delay_ms, 1).ok()
    }

    fn empty_ticks(&mut self) -> f64 {
        let batches = (0..BATCHES).map(|_| {
            let started = Instant::now();
            for _ in 0..BATCH {
                self.now_ms += 1;
                self.wheel.advance(self.now_ms, &mut self.expired);
            }
            started.elapsed()
        });
        median_ns(batches.collect(), BATCH)
    }

    fn operations(&mut self) -> [f64; 3] {
        let mut handles = Vec::with_capacity(BATCH);
        let (mut scheduling, mut cancelling, mut firing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            let delays: Vec<u64> = (0..BATCH).map(|_| 1 + self.below(60_000)).collect();
            let started = Instant::now();
            handles.extend(
                delays
                    .iter()
                    .filter_map(|delay_ms| self.schedule(*delay_ms)),
            );
            scheduling.push(started.elapsed());
            let started = Instant::now();
            for handle in handles.drain(..CANCELLED) {
                self.wheel.cancel(handle);
            }
            cancelling.push(started.elapsed());
            // They would fire in a minute; what fires is measured by itself.
            handles.drain(..).for_each(|handle| {
                self.wheel.cancel(handle);
            });
            for _ in 0..BATCH {
                let delay_ms = 1 + self.below(BATCH as u64);
                self.schedule(delay_ms);
            }
            self.now_ms += BATCH as u64;
            let started = Instant::now();
            self.wheel.advance(self.now_ms, &mut self.expired);
            firing.push(started.elapsed());
            self.expired.clear();
        }
        [
            median_ns(scheduling, BATCH),
            median_ns(cancelling, CANCELLED),
            median_ns(firing, BATCH),
        ]
    }
}

fn median_ns(mut took: Vec<Duration>, operations: usize) -> f64 {
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    median.as_nanos() as f64 / operations as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_and_none_is_refused() {
        let mut bench = Bench::new(10);
        assert!(bench.schedule(5).is_some());
        bench.now_ms += 10;
        bench.wheel.advance(bench.now_ms, &mut bench.expired);
        assert_eq!(bench.expired.len(), 1);
        let took = [3, 1, 2].map(|ns| Duration::from_nanos(1_024 * ns));
        assert_eq!(median_ns(took.to_vec(), BATCH), 2.0);
    }
}
