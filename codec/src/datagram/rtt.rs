//! The round trip time (RFC 9002, section 5).

use crate::packed::{put_number, take_narrow};

/// Before anything was measured (RFC 9002, section 6.2.2).
const INITIAL_US: u32 = 333_000;
/// Shortest time after which something is sent again unasked.
const PROBE_MIN_US: u64 = 30_000;
/// Longest.
pub(crate) const PROBE_MAX_US: u64 = 10_000_000;
/// What is added for a clock's grain.
const GRAIN_US: u64 = 1_000;
/// Least that is added for what may vary: it has not been seen to do so yet.
const SPREAD_MIN_US: u64 = 4_000;

/// Microseconds in 32 bits: 71 minutes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rtt {
    /// 0 while nothing was measured.
    smoothed_us: u32,
    variance_us: u32,
    min_us: u32,
    latest_us: u32,
}

// === impl Rtt ===

impl Rtt {
    /// Nothing measured.
    pub(crate) fn new() -> Self {
        Self {
            smoothed_us: 0,
            variance_us: INITIAL_US / 2,
            min_us: 0,
            latest_us: 0,
        }
    }

    /// Takes a sample; `delay_us` is the time that the peer held the ACK back.
    pub(crate) fn sample(&mut self, sample_us: u64, delay_us: u64) {
        let sample_us = sample_us.clamp(1, u64::from(u32::MAX / 4)) as u32;
        let delay_us = delay_us.min(u64::from(u32::MAX / 4)) as u32;
        if self.smoothed_us == 0 {
            *self = Self {
                smoothed_us: sample_us,
                variance_us: sample_us / 2,
                min_us: sample_us,
                latest_us: sample_us,
            };
            return;
        }
        self.latest_us = sample_us;
        self.min_us = self.min_us.min(sample_us);
        let adjusted = match sample_us.checked_sub(delay_us) {
            Some(adjusted) if adjusted >= self.min_us => adjusted,
            _ => sample_us,
        };
        let off = self.smoothed_us.abs_diff(adjusted);
        // Faster down from the guess of the first sample.
        let is_guess = self.variance_us > self.smoothed_us / 8 && off < self.variance_us / 4;
        let share = if is_guess { 2 } else { 4 };
        self.variance_us = self.variance_us - self.variance_us / share + off / share;
        self.smoothed_us = self.smoothed_us / 8 * 7 + adjusted / 8;
    }

    /// Smoothed, or the guess that is made before the first sample.
    pub(crate) fn smoothed_us(&self) -> u64 {
        u64::from(match self.smoothed_us {
            0 => INITIAL_US,
            measured => measured,
        })
    }

    /// Whether there was a sample.
    pub(crate) fn is_measured(&self) -> bool {
        self.smoothed_us > 0
    }

    /// After this long without an ACK something is sent again, times the backoff.
    /// `longest_us`: the longest round trip of late, if it is known: where the variance of a
    /// few samples happens to be small, it is the better guess.
    pub(crate) fn probe_us(&self, longest_us: u64, ack_delay_us: u64) -> u64 {
        let smoothed_us = self.smoothed_us();
        let least_us = SPREAD_MIN_US.max(smoothed_us / 16);
        let by_variance_us = smoothed_us + 4 * u64::from(self.variance_us);
        let answer_us = by_variance_us.max(smoothed_us.max(longest_us) + least_us);
        (answer_us + ack_delay_us).clamp(PROBE_MIN_US, PROBE_MAX_US)
    }

    /// A packet is lost when one sent this much later was acknowledged: 9/8 of
    /// the round trip, more where packets were seen to overtake each other.
    pub(crate) fn loss_us(&self, eighths: u8) -> u64 {
        let base = self.smoothed_us().max(u64::from(self.latest_us));
        (base + base * u64::from(eighths) / 8).max(GRAIN_US)
    }

    pub(super) fn pack(self, out: &mut Vec<u8>) {
        for value in [
            self.smoothed_us,
            self.variance_us,
            self.min_us,
            self.latest_us,
        ] {
            put_number(out, value.into());
        }
    }

    pub(super) fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            smoothed_us: take_narrow(input)?,
            variance_us: take_narrow(input)?,
            min_us: take_narrow(input)?,
            latest_us: take_narrow(input)?,
        })
    }
}
