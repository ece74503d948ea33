//! The timing wheel: nanoseconds an operation with 0, 10,000 and 1,000,000 other timers pending.
//!
//! The others have deadlines spread over a minute, as heartbeats have, in no order of memory.
//! `cargo bench -p sluice-benches --bench timer`; a first argument picks benches by name.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice_timer::{TimerHandle, Wheel};

const POPULATIONS: [usize; 3] = [0, 10_000, 1_000_000];
/// Timers handled between two looks at the clock.
const BATCH: usize = 1_024;
const START_MS: u64 = 1_700_000_000_000;

/// xorshift64: cheap enough not to show beside a wheel operation, and the same in every run.
struct Scatter(u64);

impl Scatter {
    fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A wheel with `population` timers and room for a batch more.
fn populated(population: usize, scatter: &mut Scatter) -> (Wheel<u64>, Vec<TimerHandle>) {
    let mut wheel = Wheel::new(1, population + BATCH, START_MS);
    let handles = (0..population)
        .map(|key| {
            schedule(
                &mut wheel,
                START_MS + 1_000 + scatter.below(60_000),
                key as u64,
            )
        })
        .collect();
    (wheel, handles)
}

fn schedule(wheel: &mut Wheel<u64>, deadline_ms: u64, key: u64) -> TimerHandle {
    wheel
        .schedule(deadline_ms, key)
        .expect("the bench leaves room")
}

/// Runs `one_batch` until at least `iters` operations are timed; it returns the time it measured
/// for `BATCH` of them, without its own preparations.
fn timed_batches(iters: u64, mut one_batch: impl FnMut() -> Duration) -> Duration {
    let batches = iters.div_ceil(BATCH as u64);
    let total: Duration = (0..batches).map(|_| one_batch()).sum();
    total.mul_f64(iters as f64 / (batches * BATCH as u64) as f64)
}

fn schedule_and_cancel(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    for population in POPULATIONS {
        let mut scatter = Scatter::new();
        let (mut wheel, _) = populated(population, &mut scatter);
        let mut batch = Vec::with_capacity(BATCH);
        let mut deadlines = Vec::with_capacity(BATCH);
        let mut fill = |wheel: &mut Wheel<u64>, batch: &mut Vec<TimerHandle>| {
            deadlines.clear();
            deadlines.extend((0..BATCH).map(|_| START_MS + 1_000 + scatter.below(60_000)));
            let started = Instant::now();
            batch.extend(
                deadlines
                    .iter()
                    .map(|&deadline_ms| schedule(wheel, deadline_ms, 1)),
            );
            started.elapsed()
        };
        let empty = |wheel: &mut Wheel<u64>, batch: &mut Vec<TimerHandle>| {
            let started = Instant::now();
            for handle in batch.drain(..) {
                black_box(wheel.cancel(handle));
            }
            started.elapsed()
        };
        group.bench_function(BenchmarkId::new("schedule", population), |b| {
            b.iter_custom(|iters| {
                timed_batches(iters, || {
                    let took = fill(&mut wheel, &mut batch);
                    empty(&mut wheel, &mut batch);
                    took
                })
            });
        });
        group.bench_function(BenchmarkId::new("cancel", population), |b| {
            b.iter_custom(|iters| {
                timed_batches(iters, || {
                    fill(&mut wheel, &mut batch);
                    empty(&mut wheel, &mut batch)
                })
            });
        });
    }
    group.finish();
}

/// Re-arms to later (in place) and to earlier (moved), each on timers from all over the memory.
fn rearm(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    for population in POPULATIONS {
        let mut scatter = Scatter::new();
        let (mut wheel, mut handles) = populated(population.max(BATCH), &mut scatter);
        let picks: Vec<_> = (0..BATCH)
            .map(|_| handles.swap_remove(scatter.below(handles.len() as u64) as usize))
            .collect();
        let mut rearm_all = |deadline_ms: u64| {
            let started = Instant::now();
            for &handle in &picks {
                black_box(wheel.rearm(handle, deadline_ms));
            }
            started.elapsed()
        };
        let mut delay_ms = 120_000;
        group.bench_function(BenchmarkId::new("rearm_later", population), |b| {
            b.iter_custom(|iters| {
                timed_batches(iters, || {
                    delay_ms += 1;
                    rearm_all(START_MS + delay_ms)
                })
            });
        });
        group.bench_function(BenchmarkId::new("rearm_earlier", population), |b| {
            b.iter_custom(|iters| {
                timed_batches(iters, || {
                    delay_ms -= 1;
                    if delay_ms < 1_000 {
                        delay_ms = 120_000;
                        rearm_all(START_MS + delay_ms + 1);
                    }
                    rearm_all(START_MS + delay_ms)
                })
            });
        });
    }
    group.finish();
}

/// Fires a batch that is spread over about a second, moves between levels included, by one look at
/// the clock (`fire`) or by one each millisecond (`fire_by_tick`, so a tick is in the figure); and
/// passes milliseconds on which nothing is due. The others wait for years.
fn fire_and_empty_tick(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    for population in POPULATIONS {
        let mut scatter = Scatter::new();
        let mut wheel = Wheel::new(1, population + BATCH, START_MS);
        for key in 0..population {
            let years_ms = (1 << 37) + scatter.below(1 << 37);
            schedule(&mut wheel, START_MS + years_ms, key as u64);
        }
        let mut expired = Vec::with_capacity(BATCH);
        let mut now_ms = START_MS;
        for (name, looks) in [("fire", 1), ("fire_by_tick", BATCH)] {
            group.bench_function(BenchmarkId::new(name, population), |b| {
                b.iter_custom(|iters| {
                    timed_batches(iters, || {
                        for key in 0..BATCH {
                            let delay_ms = 1 + scatter.below(BATCH as u64);
                            schedule(&mut wheel, now_ms + delay_ms, key as u64);
                        }
                        let started = Instant::now();
                        for _ in 0..looks {
                            now_ms += (BATCH / looks) as u64;
                            wheel.advance(now_ms, &mut expired);
                        }
                        let took = started.elapsed();
                        assert_eq!(expired.len(), BATCH);
                        expired.clear();
                        took
                    })
                });
            });
        }
        group.bench_function(BenchmarkId::new("empty_tick", population), |b| {
            b.iter(|| {
                now_ms += 1;
                wheel.advance(black_box(now_ms), &mut expired);
            });
        });
        assert!(expired.is_empty(), "only empty ticks were passed");
    }
    group.finish();
}

/// A gateway's day: a million heartbeats that start anew when they fire, among them retransmit
/// timers of which 95 % are cancelled by an ack. Time for one retransmit timer, all included.
fn mostly_cancelled(c: &mut Criterion) {
    const HEARTBEATS: usize = 1_000_000;
    /// 5 % of a batch, each 10 ms, live for up to ten seconds.
    const UNACKED: usize = 100_000;
    const HEARTBEAT: u64 = 0;
    const RETRANSMIT: u64 = 1;

    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    let mut scatter = Scatter::new();
    let mut wheel = Wheel::new(1, HEARTBEATS + UNACKED + BATCH, START_MS);
    for _ in 0..HEARTBEATS {
        schedule(&mut wheel, START_MS + 1 + scatter.below(60_000), HEARTBEAT);
    }
    let mut now_ms = START_MS;
    let mut batch = Vec::with_capacity(BATCH);
    let mut expired = Vec::with_capacity(BATCH);
    group.bench_function(BenchmarkId::new("mostly_cancelled", HEARTBEATS), |b| {
        b.iter_custom(|iters| {
            timed_batches(iters, || {
                let started = Instant::now();
                for _ in 0..BATCH {
                    let delay_ms = 200 + scatter.below(9_800);
                    batch.push(schedule(&mut wheel, now_ms + delay_ms, RETRANSMIT));
                }
                batch.truncate(BATCH * 95 / 100);
                for handle in batch.drain(..) {
                    black_box(wheel.cancel(handle));
                }
                now_ms += 10;
                wheel.advance(now_ms, &mut expired);
                for key in expired.drain(..) {
                    if key == HEARTBEAT {
                        schedule(&mut wheel, now_ms + 60_000, HEARTBEAT);
                    }
                }
                started.elapsed()
            })
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    schedule_and_cancel,
    rearm,
    fire_and_empty_tick,
    mostly_cancelled
);
criterion_main!(benches);
