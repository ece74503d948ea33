//! The wheel against a sorted map that does the same slowly.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sluice_timer::{TimerHandle, Wheel, WheelFull};

const CAPACITY: usize = 64;

#[derive(Clone, Debug)]
enum Op {
    Schedule {
        after_ms: i64,
    },
    /// `which` picks among all handles ever issued, so most picks are stale in the end.
    Cancel {
        which: prop::sample::Index,
    },
    Rearm {
        which: prop::sample::Index,
        after_ms: i64,
    },
    Advance {
        by_ms: i64,
    },
    AdvanceToNextDeadline,
}

/// Spans of every magnitude, often equal, at times negative or far beyond any level but the last.
fn span_ms() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..4_i64,
        4 => 0..200_i64,
        3 => prop::sample::select(vec![8, 127, 128, 129, 16_384, 30_000, 2_097_152]),
        2 => 0..1_000_000_i64,
        1 => 0..i64::MAX / 64,
        1 => -500..0_i64,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        5 => span_ms().prop_map(|after_ms| Op::Schedule { after_ms }),
        2 => which().prop_map(|which| Op::Cancel { which }),
        3 => (which(), span_ms()).prop_map(|(which, after_ms)| Op::Rearm { which, after_ms }),
        3 => span_ms().prop_map(|by_ms| Op::Advance { by_ms }),
        2 => Just(Op::AdvanceToNextDeadline),
    ]
}

/// What the wheel promises, in the plainest form: timers by deadline, searched from the front.
#[derive(Default)]
struct Model {
    by_deadline: BTreeSet<(u64, u64)>,
    deadlines: BTreeMap<u64, u64>,
}

impl Model {
    fn schedule(&mut self, key: u64, deadline_ms: u64) {
        self.deadlines.insert(key, deadline_ms);
        self.by_deadline.insert((deadline_ms, key));
    }

    fn cancel(&mut self, key: u64) -> Option<u64> {
        let deadline_ms = self.deadlines.remove(&key)?;
        self.by_deadline.remove(&(deadline_ms, key));
        Some(key)
    }

    fn rearm(&mut self, key: u64, deadline_ms: u64) -> bool {
        let pending = self.cancel(key).is_some();
        if pending {
            self.schedule(key, deadline_ms);
        }
        pending
    }

    /// All with a deadline up to `now_ms`, with their deadlines.
    fn expire(&mut self, now_ms: u64) -> BTreeMap<u64, u64> {
        let later = self.by_deadline.split_off(&(now_ms, u64::MAX));
        let due = std::mem::replace(&mut self.by_deadline, later);
        for (_, key) in &due {
            self.deadlines.remove(key);
        }
        due.into_iter()
            .map(|(deadline_ms, key)| (key, deadline_ms))
            .collect()
    }

    fn earliest_ms(&self) -> Option<u64> {
        self.by_deadline
            .first()
            .map(|&(deadline_ms, _)| deadline_ms)
    }
}

/// Both sides, one clock that may go back, and every handle ever issued.
struct Pair {
    wheel: Wheel<u64>,
    model: Model,
    handles: Vec<(TimerHandle, u64)>,
    clock_ms: u64,
    /// Latest time that the wheel was told.
    present_ms: u64,
    next_key: u64,
}

impl Pair {
    fn new(tick_ms: u64, start_ms: u64) -> Self {
        Self {
            wheel: Wheel::new(tick_ms, CAPACITY, start_ms),
            model: Model::default(),
            handles: Vec::new(),
            clock_ms: start_ms,
            present_ms: start_ms,
            next_key: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Schedule { after_ms } => {
                self.schedule(self.clock_ms.saturating_add_signed(*after_ms))
            }
            Op::Cancel { which } => {
                if let Some((handle, key)) = self.pick(which) {
                    assert_eq!(self.wheel.cancel(handle), self.model.cancel(key));
                }
            }
            Op::Rearm { which, after_ms } => {
                let deadline_ms = self.clock_ms.saturating_add_signed(*after_ms);
                if let Some((handle, key)) = self.pick(which) {
                    let known = self.model.rearm(key, deadline_ms);
                    assert_eq!(self.wheel.rearm(handle, deadline_ms), known);
                }
            }
            Op::Advance { by_ms } => self.advance(self.clock_ms.saturating_add_signed(*by_ms)),
            Op::AdvanceToNextDeadline => {
                if let Some(wake_ms) = self.wheel.next_deadline_ms() {
                    self.advance(wake_ms.max(self.clock_ms));
                }
            }
        }
        self.check();
    }

    fn pick(&self, which: &prop::sample::Index) -> Option<(TimerHandle, u64)> {
        (!self.handles.is_empty()).then(|| *which.get(&self.handles))
    }

    fn schedule(&mut self, deadline_ms: u64) {
        let key = self.next_key;
        match self.wheel.schedule(deadline_ms, key) {
            Ok(handle) => {
                self.model.schedule(key, deadline_ms);
                self.handles.push((handle, key));
                self.next_key += 1;
            }
            Err(WheelFull) => assert_eq!(self.model.deadlines.len(), CAPACITY),
        }
    }

    fn advance(&mut self, now_ms: u64) {
        let tick_ms = self.wheel.tick_ms();
        let mut expired = Vec::new();
        self.wheel.advance(now_ms, &mut expired);
        self.clock_ms = now_ms;

        let tick_begins_ms = now_ms - now_ms % tick_ms;
        if tick_begins_ms < self.present_ms - self.present_ms % tick_ms {
            assert_eq!(expired, [], "the clock went back");
            return;
        }
        // Due is what the tick that began last has reached: never early, at most a tick late.
        let due = self.model.expire(tick_begins_ms);
        let order: Vec<u64> = expired
            .iter()
            .map(|key| due[key].max(self.present_ms).div_ceil(tick_ms))
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(expired.len(), due.len());
        assert_eq!(
            expired.into_iter().collect::<BTreeSet<_>>(),
            due.into_keys().collect()
        );
        self.present_ms = self.present_ms.max(now_ms);
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.model.deadlines.len());
        assert_eq!(self.wheel.is_empty(), self.model.deadlines.is_empty());
        let fires_ms = self.model.earliest_ms().map(|deadline_ms| {
            deadline_ms
                .div_ceil(self.wheel.tick_ms())
                .saturating_mul(self.wheel.tick_ms())
        });
        match (self.wheel.next_deadline_ms(), fires_ms) {
            (Some(wake_ms), Some(fires_ms)) => assert!(wake_ms <= fires_ms.max(self.present_ms)),
            (wake_ms, fires_ms) => assert_eq!(wake_ms, fires_ms),
        }
    }

    /// Follows the wheel's own wake-ups to the end: it must not spin, and nothing may be left.
    fn drain(mut self) {
        let mut steps = 0;
        while let Some(wake_ms) = self.wheel.next_deadline_ms() {
            let never = self.model.earliest_ms() > Some(u64::MAX - self.wheel.tick_ms());
            if never && self.wheel.tick_ms() > 1 {
                return;
            }
            self.advance(wake_ms.max(self.present_ms));
            self.check();
            steps += 1;
            assert!(steps <= CAPACITY * 10 * 2, "spins at {wake_ms}");
        }
        assert_eq!(self.model.earliest_ms(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn does_what_a_sorted_map_does(
        tick_ms in prop::sample::select(vec![1, 2, 8, 10, 100, 1_000]),
        start_ms in prop_oneof![Just(0), Just((1 << 35) - 3), 0..u64::MAX / 2],
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut pair = Pair::new(tick_ms, start_ms);
        for op in &ops {
            pair.apply(op);
        }
        pair.drain();
    }
}
