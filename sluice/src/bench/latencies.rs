//! Percentiles as reports have them: those of acks, and those of arrivals.

use serde::Serialize;
use sluice_load::Latencies;

/// From when a message was due to its ack, or to its answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AckLatencies {
    /// Half were faster.
    pub ack_p50_ms: f64,
    /// One in a hundred was slower.
    pub ack_p99_ms: f64,
    /// One in a thousand was slower.
    pub ack_p999_ms: f64,
}

/// From when a message was due to its arrival.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RecvLatencies {
    /// Half were faster.
    pub recv_p50_ms: f64,
    /// One in a hundred was slower.
    pub recv_p99_ms: f64,
    /// One in a thousand was slower.
    pub recv_p999_ms: f64,
}

// === impl AckLatencies ===

impl AckLatencies {
    pub(super) fn of(latencies: &Latencies) -> Self {
        let [ack_p50_ms, ack_p99_ms, ack_p999_ms] = percentiles(latencies);
        Self {
            ack_p50_ms,
            ack_p99_ms,
            ack_p999_ms,
        }
    }

    /// For a table: p50 / p99 / p99.9.
    pub(super) fn text(&self) -> String {
        text([self.ack_p50_ms, self.ack_p99_ms, self.ack_p999_ms])
    }
}

// === impl RecvLatencies ===

impl RecvLatencies {
    pub(super) fn of(latencies: &Latencies) -> Self {
        let [recv_p50_ms, recv_p99_ms, recv_p999_ms] = percentiles(latencies);
        Self {
            recv_p50_ms,
            recv_p99_ms,
            recv_p999_ms,
        }
    }

    /// For a table: p50 / p99 / p99.9.
    pub(super) fn text(&self) -> String {
        text([self.recv_p50_ms, self.recv_p99_ms, self.recv_p999_ms])
    }
}

fn percentiles(latencies: &Latencies) -> [f64; 3] {
    [50.0, 99.0, 99.9].map(|percentile| latencies.percentile_ms(percentile))
}

fn text([p50, p99, p999]: [f64; 3]) -> String {
    format!("{p50:.2} / {p99:.2} / {p999:.2} ms")
}
