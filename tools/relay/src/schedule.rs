//! When things go wrong: every random choice of the relay, drawn from the seed.
//!
//! Each purpose of each connection draws from a generator of its own, so that neither timing nor
//! the number of chunks read shifts any other choice: connection 7 of seed 42 always lives as long.

use crate::plan::{FaultPlan, Key};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const STALL_S: RangeInclusive<f64> = 0.5..=3.0;
const BLACKOUT_S: RangeInclusive<f64> = 1.0..=3.0;
const COPY_AFTER_S: RangeInclusive<f64> = 0.0..=0.02;
const HELD_BACK_S: RangeInclusive<f64> = 0.001..=0.05;

/// What a generator is for; part of its key.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Reset = 1,
    Stall,
    Blackout,
    JitterUp,
    JitterDown,
    FateUp,
    FateDown,
    Rebind,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// After which time of its life a connection is reset; `None` when it never is.
pub(crate) fn reset_after(plan: &FaultPlan, seed: u64, connection: u64) -> Option<Duration> {
    let mean_s = plan.mean_s(Key::ResetS)?;
    Some(exponential(
        mean_s,
        &mut generator(seed, connection, Purpose::Reset),
    ))
}

/// Pauses that come again and again: a gap of exponential length, then a pause within a range.
#[derive(Debug)]
pub(crate) struct Pauses {
    mean_s: f64,
    length_s: RangeInclusive<f64>,
    rng: StdRng,
    on: bool,
    /// When the next pause begins, or the present one ends.
    turns_at: Instant,
    /// How long the next or present pause lasts.
    length: Duration,
}

/// When a client comes from another address, again and again.
#[derive(Debug)]
pub(crate) struct Rebinds {
    mean_s: f64,
    rng: StdRng,
    next_at: Instant,
}

/// What becomes of one datagram, its lateness apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fate {
    /// It never arrives.
    pub(crate) lost: bool,
    /// A second one arrives, this much after the first.
    pub(crate) copy_after: Option<Duration>,
    /// It is held back this much longer, and those behind don't wait for it.
    pub(crate) held_back: Option<Duration>,
    /// This bit of it is flipped, counted round its length.
    pub(crate) flipped_bit: Option<u64>,
}

/// The fates of one direction's datagrams.
#[derive(Debug)]
pub(crate) struct Fates {
    loss: f64,
    dup: f64,
    reorder: f64,
    corrupt: f64,
    rng: StdRng,
}

/// The lateness of one direction's chunks.
#[derive(Debug)]
pub(crate) struct Lateness {
    delay: Duration,
    jitter: Duration,
    rng: StdRng,
}

// === impl Pauses ===

impl Pauses {
    /// The stalls of one connection, which begins now; `None` when it has none.
    pub(crate) fn stalls(
        plan: &FaultPlan,
        seed: u64,
        connection: u64,
        now: Instant,
    ) -> Option<Self> {
        let mean_s = plan.mean_s(Key::StallS)?;
        Some(Self::new(
            mean_s,
            STALL_S,
            generator(seed, connection, Purpose::Stall),
            now,
        ))
    }

    /// The blackouts of a relay, which starts now; `None` when there are none.
    pub(crate) fn blackouts(plan: &FaultPlan, seed: u64, now: Instant) -> Option<Self> {
        let mean_s = plan.mean_s(Key::BlackoutS)?;
        Some(Self::new(
            mean_s,
            BLACKOUT_S,
            generator(seed, 0, Purpose::Blackout),
            now,
        ))
    }

    fn new(mean_s: f64, length_s: RangeInclusive<f64>, rng: StdRng, now: Instant) -> Self {
        let (on, length) = (false, Duration::ZERO);
        let mut pauses = Pauses {
            mean_s,
            length_s,
            rng,
            on,
            turns_at: now,
            length,
        };
        pauses.plan_next();
        pauses
    }

    /// When [`turn`](Self::turn) is due.
    pub(crate) fn turns_at(&self) -> Instant {
        self.turns_at
    }

    /// Begins the next pause or ends the present one; tells whether one is on now.
    pub(crate) fn turn(&mut self) -> bool {
        self.on = !self.on;
        if self.on {
            self.turns_at += self.length;
        } else {
            self.plan_next();
        }
        self.on
    }

    fn plan_next(&mut self) {
        self.turns_at += exponential(self.mean_s, &mut self.rng);
        self.length = Duration::from_secs_f64(self.rng.random_range(self.length_s.clone()));
    }
}

/// Waits for the next turn, for ever where there are no pauses. Cancel-safe.
pub(crate) async fn next_turn(pauses: &mut Option<Pauses>) -> bool {
    match pauses {
        Some(pauses) => {
            sleep_until(pauses.turns_at()).await;
            pauses.turn()
        }
        None => std::future::pending().await,
    }
}

// === impl Rebinds ===

impl Rebinds {
    /// The rebinds of one flow, which begins now; `None` when it has none.
    pub(crate) fn new(plan: &FaultPlan, seed: u64, flow: u64, now: Instant) -> Option<Self> {
        let mean_s = plan.mean_s(Key::RebindS)?;
        let mut rng = generator(seed, flow, Purpose::Rebind);
        let next_at = now + exponential(mean_s, &mut rng);
        Some(Rebinds {
            mean_s,
            rng,
            next_at,
        })
    }
}

/// Waits for the next rebind, for ever where there is none. Cancel-safe.
pub(crate) async fn next_rebind(rebinds: &mut Option<Rebinds>) {
    match rebinds {
        Some(rebinds) => {
            sleep_until(rebinds.next_at).await;
            rebinds.next_at += exponential(rebinds.mean_s, &mut rebinds.rng);
        }
        None => std::future::pending().await,
    }
}

// === impl Fates ===

impl Fates {
    pub(crate) fn new(plan: &FaultPlan, seed: u64, flow: u64, way: Direction) -> Self {
        let purpose = match way {
            Direction::Up => Purpose::FateUp,
            Direction::Down => Purpose::FateDown,
        };
        Fates {
            loss: plan.share(Key::Loss),
            dup: plan.share(Key::Dup),
            reorder: plan.share(Key::Reorder),
            corrupt: plan.share(Key::Corrupt),
            rng: generator(seed, flow, purpose),
        }
    }

    /// The fate of the next datagram. Always draws as often, so that the n-th datagram of a
    /// direction fares alike whatever else the plan holds.
    pub(crate) fn draw(&mut self) -> Fate {
        let mut happens = |share: f64| self.rng.random::<f64>() < share;
        let (lost, copied) = (happens(self.loss), happens(self.dup));
        let (held, flipped) = (happens(self.reorder), happens(self.corrupt));
        let mut seconds = |range| Duration::from_secs_f64(self.rng.random_range(range));
        let (copy_after, held_back) = (seconds(COPY_AFTER_S), seconds(HELD_BACK_S));
        let bit = self.rng.random::<u64>();
        Fate {
            lost,
            copy_after: copied.then_some(copy_after),
            held_back: held.then_some(held_back),
            flipped_bit: flipped.then_some(bit),
        }
    }
}

// === impl Lateness ===

impl Lateness {
    pub(crate) fn new(plan: &FaultPlan, seed: u64, connection: u64, way: Direction) -> Self {
        let purpose = match way {
            Direction::Up => Purpose::JitterUp,
            Direction::Down => Purpose::JitterDown,
        };
        Lateness {
            delay: plan.millis(Key::DelayMs),
            jitter: plan.millis(Key::JitterMs),
            rng: generator(seed, connection, purpose),
        }
    }

    /// How much later than it came the next chunk may leave.
    pub(crate) fn draw(&mut self) -> Duration {
        if self.jitter.is_zero() {
            return self.delay;
        }
        self.delay + self.jitter.mul_f64(self.rng.random::<f64>())
    }
}

fn generator(seed: u64, connection: u64, purpose: Purpose) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&connection.to_le_bytes());
    key[16] = purpose as u8;
    StdRng::from_seed(key)
}

fn exponential(mean_s: f64, rng: &mut StdRng) -> Duration {
    // `random` is below 1, so the logarithm is finite.
    Duration::from_secs_f64(-mean_s * (1.0 - rng.random::<f64>()).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> FaultPlan {
        "delay_ms=40,jitter_ms=20,reset_s=10,stall_s=20,blackout_s=30"
            .parse()
            .unwrap()
    }

    /// The next pause: when it begins and when it ends, from the start.
    fn draw(pauses: &mut Pauses, start: Instant) -> (Duration, Duration) {
        let begins = pauses.turns_at() - start;
        assert!(pauses.turn());
        let ends = pauses.turns_at() - start;
        assert!(!pauses.turn());
        (begins, ends)
    }

    #[test]
    fn the_same_seed_and_number_give_the_same_schedule() {
        let run = |seed, connection| {
            let start = Instant::now();
            let mut stalls = Pauses::stalls(&plan(), seed, connection, start).unwrap();
            let mut blackouts = Pauses::blackouts(&plan(), seed, start).unwrap();
            let mut up = Lateness::new(&plan(), seed, connection, Direction::Up);
            let mut down = Lateness::new(&plan(), seed, connection, Direction::Down);
            let drawn: Vec<_> = (0..50)
                .map(|_| {
                    let pauses = (draw(&mut stalls, start), draw(&mut blackouts, start));
                    (pauses, up.draw(), down.draw())
                })
                .collect();
            (reset_after(&plan(), seed, connection), drawn)
        };
        assert_eq!(run(42, 7), run(42, 7));
        assert_ne!(run(42, 7).0, run(42, 8).0);
        assert_ne!(run(42, 7).0, run(43, 7).0);
        assert_ne!(run(42, 7).1, run(42, 8).1);
        assert!(run(42, 7).1.iter().all(|(_, up, down)| up != down));
    }

    #[test]
    fn times_have_the_mean_and_the_range_that_were_asked_for() {
        let lives: f64 = (0..4000)
            .map(|connection| reset_after(&plan(), 1, connection).unwrap().as_secs_f64())
            .sum();
        assert!(
            (9.0..11.0).contains(&(lives / 4000.0)),
            "mean life {}",
            lives / 4000.0
        );

        let start = Instant::now();
        let mut stalls = Pauses::stalls(&plan(), 1, 0, start).unwrap();
        let (mut ended, mut gaps_s) = (Duration::ZERO, 0.0);
        for _ in 0..4000 {
            let (begins, ends) = draw(&mut stalls, start);
            assert!(STALL_S.contains(&(ends - begins).as_secs_f64()));
            gaps_s += (begins - ended).as_secs_f64();
            ended = ends;
        }
        assert!(
            (18.0..22.0).contains(&(gaps_s / 4000.0)),
            "mean gap {}",
            gaps_s / 4000.0
        );

        let mut up = Lateness::new(&plan(), 1, 0, Direction::Up);
        let range = Duration::from_millis(40)..=Duration::from_millis(60);
        assert!((0..4000).all(|_| range.contains(&up.draw())));
    }

    #[test]
    fn a_datagram_fares_alike_whatever_else_the_plan_holds() {
        let fates = |faults: &str, seed, flow, way| {
            let mut fates = Fates::new(&faults.parse().unwrap(), seed, flow, way);
            let drawn: Vec<_> = (0..10_000).map(|_| fates.draw()).collect();
            drawn
        };
        let all = "loss=0.2,dup=0.05,reorder=0.1,corrupt=0.01";
        let (up, lossy) = (
            fates(all, 1, 2, Direction::Up),
            fates("loss=0.2", 1, 2, Direction::Up),
        );
        assert!(up.iter().zip(&lossy).all(|(a, b)| a.lost == b.lost));
        assert_eq!(up, fates(all, 1, 2, Direction::Up));
        for other in [
            fates(all, 2, 2, Direction::Up),
            fates(all, 1, 3, Direction::Up),
            fates(all, 1, 2, Direction::Down),
        ] {
            assert_ne!(up, other);
        }

        let share = |what: fn(&Fate) -> bool| {
            up.iter().filter(|fate| what(fate)).count() as f64 / up.len() as f64
        };
        assert!((0.18..0.22).contains(&share(|fate| fate.lost)));
        assert!((0.04..0.06).contains(&share(|fate| fate.copy_after.is_some())));
        assert!((0.09..0.11).contains(&share(|fate| fate.held_back.is_some())));
        assert!((0.005..0.015).contains(&share(|fate| fate.flipped_bit.is_some())));
        let sure = fates("loss=1,dup=1", 1, 0, Direction::Up);
        assert!(
            sure.iter()
                .all(|fate| fate.lost && fate.copy_after.is_some())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rebinds_come_at_the_mean_that_was_asked_for() {
        let start = Instant::now();
        let plan = "rebind_s=5".parse().unwrap();
        let mut rebinds = Rebinds::new(&plan, 1, 0, start);
        for _ in 0..4000 {
            next_rebind(&mut rebinds).await;
        }
        let mean_s = start.elapsed().as_secs_f64() / 4000.0;
        assert!((4.5..5.5).contains(&mean_s), "mean gap {mean_s}");
    }

    #[test]
    fn without_keys_nothing_is_scheduled() {
        let (plan, start) = (FaultPlan::default(), Instant::now());
        assert_eq!(reset_after(&plan, 1, 0), None);
        assert!(Pauses::stalls(&plan, 1, 0, start).is_none());
        assert!(Pauses::blackouts(&plan, 1, start).is_none());
        assert!(Rebinds::new(&plan, 1, 0, start).is_none());
        let nothing = Fate {
            lost: false,
            copy_after: None,
            held_back: None,
            flipped_bit: None,
        };
        let mut fates = Fates::new(&plan, 1, 0, Direction::Up);
        assert!((0..4000).all(|_| fates.draw() == nothing));
        assert_eq!(
            Lateness::new(&plan, 1, 0, Direction::Up).draw(),
            Duration::ZERO
        );
    }
}
