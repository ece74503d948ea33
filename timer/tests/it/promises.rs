//! One test for each promise of the documentation.

use sluice_timer::{Wheel, WheelFull};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn advance(wheel: &mut Wheel<u64>, now_ms: u64) -> Vec<u64> {
    let mut expired = Vec::new();
    wheel.advance(now_ms, &mut expired);
    expired
}

/// Follows `next_deadline_ms` until the wheel is empty; returns the firing times and the steps.
fn follow(wheel: &mut Wheel<u64>) -> (Vec<(u64, u64)>, usize) {
    let (mut fired, mut steps, mut now_ms) = (Vec::new(), 0, 0);
    while let Some(wake_ms) = wheel.next_deadline_ms() {
        now_ms = wake_ms.max(now_ms);
        fired.extend(advance(wheel, now_ms).into_iter().map(|key| (now_ms, key)));
        steps += 1;
        assert!(steps <= 100_000, "the loop spins at {now_ms}");
    }
    (fired, steps)
}

#[test]
fn fires_at_the_deadline_and_not_a_millisecond_before() {
    let powers = (0..=50).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    for delay_ms in powers.filter(|&delay_ms| delay_ms > 0) {
        for start_ms in [0, 1, 127, 1_700_000_000_123, (1 << 35) - 1] {
            let mut wheel = Wheel::new(1, 4, start_ms);
            wheel
                .schedule(start_ms + delay_ms, 9)
                .expect("room for one");
            assert_eq!(advance(&mut wheel, start_ms + delay_ms - 1), []);
            assert_eq!(advance(&mut wheel, start_ms + delay_ms), [9]);
            assert!(wheel.is_empty());
        }
    }
}

#[test]
fn is_never_early_and_at_most_a_tick_late() {
    let mut wheel = Wheel::new(10, 1_000, 5);
    assert_eq!(wheel.tick_ms(), 8, "rounded down to a power of two");
    for deadline_ms in 5..505 {
        wheel
            .schedule(deadline_ms, deadline_ms)
            .expect("room for all");
    }
    for now_ms in 5..600 {
        for deadline_ms in advance(&mut wheel, now_ms) {
            assert!(deadline_ms <= now_ms, "early: {deadline_ms} at {now_ms}");
            assert!(
                now_ms < deadline_ms + wheel.tick_ms(),
                "late: {deadline_ms} at {now_ms}"
            );
        }
    }
    assert!(wheel.is_empty());
}

#[test]
fn a_tick_of_zero_is_a_millisecond() {
    let mut wheel = Wheel::new(0, 1, 0);
    assert_eq!(wheel.tick_ms(), 1);
    wheel.schedule(3, 1).expect("room for one");
    assert_eq!(
        (advance(&mut wheel, 2), advance(&mut wheel, 3)),
        (vec![], vec![1])
    );
}

#[test]
fn a_deadline_in_the_past_fires_on_the_next_advance() {
    let mut wheel = Wheel::new(1, 4, 1_000);
    wheel.schedule(0, 1).expect("room");
    wheel.schedule(1_000, 2).expect("room");
    assert_eq!(wheel.next_deadline_ms(), Some(1_000));
    let mut expired = advance(&mut wheel, 1_000);
    expired.sort_unstable();
    assert_eq!(expired, [1, 2]);
}

#[test]
fn fires_tick_by_tick_in_order_over_a_long_jump() {
    let mut wheel = Wheel::new(1, 5_000, 0);
    for key in 0..5_000_u64 {
        // Scatters the deadlines over 60 hours, in no order.
        wheel
            .schedule(key * 2_654_435_761 % 216_000_000, key)
            .expect("room for all");
    }
    let deadlines: Vec<_> = advance(&mut wheel, DAY_MS * 365)
        .into_iter()
        .map(|key| key * 2_654_435_761 % 216_000_000)
        .collect();
    assert_eq!(deadlines.len(), 5_000);
    assert!(deadlines.is_sorted());
}

#[test]
fn a_clock_that_goes_back_is_harmless() {
    let mut wheel = Wheel::new(1, 4, 1_000);
    wheel.schedule(1_100, 1).expect("room");
    assert_eq!(advance(&mut wheel, 1_050), []);
    assert_eq!(advance(&mut wheel, 0), []);
    wheel.schedule(700, 2).expect("room");
    assert_eq!(advance(&mut wheel, 600), [], "early by any clock");
    assert_eq!(advance(&mut wheel, 1_049), []);
    assert_eq!(advance(&mut wheel, 1_050), [2]);
    assert_eq!(advance(&mut wheel, 1_100), [1]);
}

#[test]
fn the_ends_of_time_work() {
    let mut wheel = Wheel::new(1, 4, 0);
    wheel.schedule(u64::MAX, 1).expect("room");
    wheel.schedule(u64::MAX - 1, 2).expect("room");
    assert_eq!(advance(&mut wheel, u64::MAX - 1), [2]);
    assert_eq!(wheel.next_deadline_ms(), Some(u64::MAX));
    assert_eq!(advance(&mut wheel, u64::MAX), [1]);

    // With a coarser tick the last deadline has no tick to fire in: it means "never".
    let mut wheel = Wheel::new(8, 4, 0);
    wheel.schedule(u64::MAX, 1).expect("room");
    assert_eq!(
        wheel.next_deadline_ms().map(|wake_ms| wake_ms > 1 << 60),
        Some(true)
    );
    assert_eq!(advance(&mut wheel, u64::MAX), []);
    assert_eq!(wheel.next_deadline_ms(), Some(u64::MAX));
    assert_eq!(wheel.len(), 1);

    let mut wheel = Wheel::new(u64::MAX, 4, u64::MAX);
    wheel.schedule(0, 1).expect("room");
    assert_eq!(advance(&mut wheel, u64::MAX), [1]);
}

#[test]
fn a_timer_re_armed_over_and_over_fires_once_at_its_last_deadline() {
    let mut wheel = Wheel::new(1, 4, 0);
    let handle = wheel.schedule(50, 1).expect("room");
    for now_ms in 0..10_000 {
        assert_eq!(advance(&mut wheel, now_ms), []);
        assert!(wheel.rearm(handle, now_ms + 50));
    }
    assert_eq!(advance(&mut wheel, 10_048), []);
    assert_eq!(advance(&mut wheel, 10_049), [1]);
}

#[test]
fn re_arming_to_earlier_moves_the_timer_forward() {
    let mut wheel = Wheel::new(1, 4, 0);
    let handle = wheel.schedule(DAY_MS, 1).expect("room");
    assert!(wheel.rearm(handle, 2 * DAY_MS));
    assert!(wheel.rearm(handle, 20));
    assert_eq!(wheel.next_deadline_ms(), Some(20));
    assert_eq!(
        (advance(&mut wheel, 19), advance(&mut wheel, 20)),
        (vec![], vec![1])
    );
}

#[test]
fn stale_handles_do_nothing() {
    let mut wheel = Wheel::new(1, 4, 0);
    let fired = wheel.schedule(1, 1).expect("room");
    let cancelled = wheel.schedule(2, 2).expect("room");
    assert_eq!(wheel.cancel(cancelled), Some(2));
    assert_eq!(advance(&mut wheel, 1), [1]);

    for stale in [fired, cancelled] {
        assert_eq!(wheel.cancel(stale), None);
        assert!(!wheel.rearm(stale, 9));
    }
    // Both entries are in use again, by others.
    let reused = [
        wheel.schedule(10, 3).expect("room"),
        wheel.schedule(10, 4).expect("room"),
    ];
    for stale in [fired, cancelled] {
        assert_eq!(wheel.cancel(stale), None);
        assert!(!wheel.rearm(stale, 9));
    }
    assert_eq!(
        reused.map(|handle| wheel.cancel(handle)),
        [Some(3), Some(4)]
    );
}

#[test]
fn a_handle_that_another_wheel_issued_is_at_worst_stale_when_there_is_no_such_entry() {
    let mut one = Wheel::new(1, 4, 0);
    let mut other: Wheel<u64> = Wheel::new(1, 4, 0);
    let handle = one.schedule(1, 1).expect("room");
    assert_eq!(other.cancel(handle), None);
    assert!(!other.rearm(handle, 1));
}

#[test]
fn a_full_wheel_says_so_and_takes_more_once_there_is_room() {
    let mut wheel = Wheel::new(1, 3, 0);
    let handles = [5, 6, 7].map(|deadline_ms| wheel.schedule(deadline_ms, deadline_ms));
    assert_eq!(wheel.schedule(8, 8), Err(WheelFull));
    assert_eq!((wheel.len(), wheel.capacity()), (3, 3));

    assert_eq!(wheel.cancel(handles[1].expect("room")), Some(6));
    assert!(wheel.schedule(8, 8).is_ok());
    assert_eq!(wheel.schedule(9, 9), Err(WheelFull));
    assert_eq!(advance(&mut wheel, 5), [5]);
    assert!(wheel.schedule(9, 9).is_ok());

    assert_eq!(Wheel::new(1, 0, 0).schedule(1, 1), Err(WheelFull));
}

#[test]
fn the_owner_may_schedule_again_while_it_handles_what_expired() {
    let mut wheel = Wheel::new(1, 2, 0);
    wheel.schedule(10, 1).expect("room");
    wheel.schedule(10, 2).expect("room");
    let (mut expired, mut rounds) = (Vec::new(), 0);
    for now_ms in 0..100 {
        wheel.advance(now_ms, &mut expired);
        for key in expired.drain(..) {
            wheel
                .schedule(now_ms + 10, key)
                .expect("its entry was given back");
            rounds += 1;
        }
    }
    assert_eq!(rounds, 2 * 9);
}

#[test]
fn following_the_next_deadline_meets_every_timer_on_time_in_few_steps() {
    let deadlines = [
        3,
        3,
        64,
        4_097,
        30_000,
        DAY_MS,
        400 * DAY_MS,
        1 << 45,
        1 << 63,
    ];
    let mut wheel = Wheel::new(1, 16, 0);
    for deadline_ms in deadlines {
        wheel.schedule(deadline_ms, deadline_ms).expect("room");
    }
    let (fired, steps) = follow(&mut wheel);
    assert_eq!(
        fired,
        deadlines.map(|deadline_ms| (deadline_ms, deadline_ms))
    );
    assert!(steps <= deadlines.len() * 10, "{steps}");
}

#[test]
fn idle_jumps_cost_the_same_however_long_and_however_many_timers_wait() {
    // A wheel that walked its ticks or its population here would run for hours.
    let mut wheel = Wheel::new(1, 100_000, 0);
    for key in 0..100_000 {
        wheel.schedule((1 << 62) + key, key).expect("room for all");
    }
    for step in 0..1_000_000 {
        assert_eq!(advance(&mut wheel, step << 40), []);
    }
    assert_eq!(advance(&mut wheel, 1 << 62), [0]);
    assert_eq!(wheel.len(), 99_999);
}
