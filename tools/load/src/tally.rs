//! What a run comes to: counts, and latencies as HDR histograms, kept by the second
//! so that those of several processes merge and a plot can be drawn.

use std::ops::AddAssign;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND_NS;

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages sent, each once.
    pub sent: u64,
    /// Of them acked.
    pub acked: u64,
    /// Messages of others received, each once.
    pub received: u64,
    /// Received or acked once more: the server may do that, clients must bear it.
    pub repeats: u64,
    /// Sends that the server put off, to be sent again.
    pub put_off: u64,
    /// Sends that the server refused for good.
    pub failed: u64,
    /// Connections lost while they were needed.
    pub disconnects: u64,
    /// Times that the server dropped pushes of a client, which then pulled.
    pub overflows: u64,
    /// Messages that the generator took from its schedule too late.
    pub late: u64,
}

/// Counts and latencies of a second, as one process passes them to another.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Interval {
    /// The second since the run's start.
    pub second: u64,
    /// Of this second.
    pub counts: Counts,
    /// From due to ack: (µs, how often).
    pub ack_us: Vec<(u64, u64)>,
    /// From due to received.
    pub recv_us: Vec<(u64, u64)>,
}

/// Latencies in microseconds, to three digits, up to ten minutes.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// What a run has come to so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    told: Counts,
    /// Messages due in this span count for latencies.
    measured_ns: (u64, u64),
    ack: Latencies,
    recv: Latencies,
}

const LATENCY_MAX_US: u64 = 600_000_000;

// === impl Tally ===

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counts: Counts::default(),
            told: Counts::default(),
            measured_ns: (u64::MAX, u64::MAX),
            ack: Latencies::default(),
            recv: Latencies::default(),
        }
    }

    /// From now on messages due in this span count.
    pub(crate) fn begin(&mut self, measured_ns: (u64, u64)) {
        self.measured_ns = measured_ns;
    }

    pub(crate) fn acked(&mut self, due_ns: u64, now_ns: u64) {
        self.counts.acked += 1;
        if self.is_measured(due_ns) {
            self.ack.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    /// A message waited until now and will never be sent.
    pub(crate) fn unsent(&mut self, due_ns: u64, now_ns: u64) {
        if self.is_measured(due_ns) {
            self.ack.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    pub(crate) fn received(&mut self, due_ns: u64, now_ns: u64) {
        self.counts.received += 1;
        if self.is_measured(due_ns) {
            self.recv.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    /// What has come since it was asked the last time, in a run that began then.
    pub(crate) fn interval(&mut self, now_ns: u64, start_ns: u64) -> Interval {
        let counts = self.counts.since(&self.told);
        self.told = self.counts;
        Interval {
            second: (now_ns.saturating_sub(start_ns) / SECOND_NS).saturating_sub(1),
            counts,
            ack_us: self.ack.drain(),
            recv_us: self.recv.drain(),
        }
    }

    fn is_measured(&self, due_ns: u64) -> bool {
        (self.measured_ns.0..self.measured_ns.1).contains(&due_ns)
    }
}

// === impl Counts ===

impl Counts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            acked: self.acked - earlier.acked,
            received: self.received - earlier.received,
            repeats: self.repeats - earlier.repeats,
            put_off: self.put_off - earlier.put_off,
            failed: self.failed - earlier.failed,
            disconnects: self.disconnects - earlier.disconnects,
            overflows: self.overflows - earlier.overflows,
            late: self.late - earlier.late,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.received += other.received;
        self.repeats += other.repeats;
        self.put_off += other.put_off;
        self.failed += other.failed;
        self.disconnects += other.disconnects;
        self.overflows += other.overflows;
        self.late += other.late;
    }
}

// === impl Latencies ===

impl Latencies {
    /// Adds what another process has recorded.
    pub fn add(&mut self, recorded_us: &[(u64, u64)]) {
        for (value, count) in recorded_us {
            self.0.saturating_record(*value);
            if *count > 1 {
                // The value fits: it was just recorded.
                let _ = self.0.record_n(*value, count - 1);
            }
        }
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, in milliseconds; 0 where nothing was recorded.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.0.value_at_quantile(percentile / 100.0) as f64 / 1_000.0
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }

    /// Records a span.
    pub fn record_ns(&mut self, span_ns: u64) {
        self.0.saturating_record(span_ns / 1_000);
    }

    fn drain(&mut self) -> Vec<(u64, u64)> {
        let recorded = self.0.iter_recorded();
        let pairs = recorded.map(|it| (it.value_iterated_to(), it.count_at_value()));
        let pairs = pairs.collect();
        self.0.reset();
        pairs
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("the bounds are constants that hold")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_add_up_to_the_run() {
        let mut tally = Tally::new();
        tally.begin((1_000, 10_000_000));
        let mut total = Latencies::default();
        for second in 0..3_u64 {
            for n in 0..100 {
                tally.acked(2_000, 2_000 + (second * 100 + n + 1) * 1_000_000);
            }
            tally.acked(500, 1_000_000_000);
            let interval = tally.interval((second + 1) * SECOND_NS, 0);
            assert_eq!((interval.second, interval.counts.acked), (second, 101));
            total.add(&interval.ack_us);
        }
        assert_eq!(total.count(), 300, "what was due too early doesn't count");
        assert!((total.percentile_ms(50.0) - 150.0).abs() < 1.0);
        assert!((total.max_ms() - 300.0).abs() < 1.0);
    }
}
