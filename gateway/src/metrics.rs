//! Names of the metrics, and handles for the hot path: an increment is one
//! atomic addition, no look-up.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use sluice_bus::Stream;

/// What an event loop counts.
#[derive(Clone)]
pub(crate) struct LoopMetrics {
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) streams_sealed: Counter,
    pub(crate) packets_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) pushes: Counter,
    pub(crate) pushes_acked: Counter,
    pub(crate) pushes_resent: Counter,
    pub(crate) pushes_carried: Counter,
    pub(crate) pushes_failed: Counter,
    pub(crate) pushes_dropped: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) deliveries_stale: Counter,
    pub(crate) answers_late: Counter,
    pub(crate) overflows: Counter,
    pub(crate) busy: Counter,
    pub(crate) cursors_dropped: Counter,
    pub(crate) unbinds_dropped: Counter,
    pub(crate) datagrams_in: Counter,
    pub(crate) datagrams_out: Counter,
    pub(crate) datagrams_unsent: Counter,
    pub(crate) datagrams_useless: Counter,
    pub(crate) datagrams_strayed: Counter,
    pub(crate) datagram_resets: Counter,
}

/// What the writer of a lane measures.
pub(crate) struct LaneMetrics {
    pub(crate) batch_entries: Histogram,
    pub(crate) depth_entries: Histogram,
    pub(crate) wait_s: Histogram,
    pub(crate) append_s: Histogram,
    pub(crate) retries: Counter,
    pub(crate) dropped: Counter,
}

/// Installs the process's recorder at the first call and returns what renders
/// it for Prometheus. Call it before a gateway starts, else its counts go
/// nowhere. When another recorder is installed already, this renders nothing.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let buckets = [
            0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
        ];
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        handle
    })
}

/// Counts a closed channel. Not on the hot path, so by name; reasons and errors
/// come from closed lists.
pub(crate) fn closed(reason: &'static str) {
    counter!("sluice_gateway_closed_total", "reason" => reason).increment(1);
}

/// Counts a refused packet by its error code.
pub(crate) fn refused(code: String) {
    counter!("sluice_gateway_refused_total", "code" => code).increment(1);
}

/// Counts a connection that was not taken in.
pub(crate) fn turned_away(why: &'static str) {
    counter!("sluice_gateway_turned_away_total", "why" => why).increment(1);
}

/// Counts entries that did not reach this gateway, by how that was noticed.
pub(crate) fn downlink_gap(how: &'static str) {
    counter!("sluice_gateway_downlink_gaps_total", "how" => how).increment(1);
}

// === impl LoopMetrics ===

impl LoopMetrics {
    pub(crate) fn new() -> Self {
        Self {
            connections: gauge!("sluice_gateway_connections"),
            accepted: counter!("sluice_gateway_accepted_total"),
            streams_sealed: counter!("sluice_gateway_streams_sealed_total"),
            packets_in: counter!("sluice_gateway_packets_in_total"),
            bytes_in: counter!("sluice_gateway_bytes_in_total"),
            bytes_out: counter!("sluice_gateway_bytes_out_total"),
            pushes: counter!("sluice_gateway_pushes_total"),
            pushes_acked: counter!("sluice_gateway_pushes_acked_total"),
            pushes_resent: counter!("sluice_gateway_pushes_resent_total"),
            pushes_carried: counter!("sluice_gateway_pushes_carried_total"),
            pushes_failed: counter!("sluice_gateway_pushes_failed_total"),
            pushes_dropped: counter!("sluice_gateway_pushes_dropped_total"),
            events_dropped: counter!("sluice_gateway_events_dropped_total"),
            deliveries_stale: counter!("sluice_gateway_deliveries_stale_total"),
            answers_late: counter!("sluice_gateway_answers_late_total"),
            overflows: counter!("sluice_gateway_overflows_total"),
            busy: counter!("sluice_gateway_busy_total"),
            cursors_dropped: counter!("sluice_gateway_cursors_dropped_total"),
            unbinds_dropped: counter!("sluice_gateway_unbinds_dropped_total"),
            datagrams_in: counter!("sluice_gateway_datagrams_in_total"),
            datagrams_out: counter!("sluice_gateway_datagrams_out_total"),
            datagrams_unsent: counter!("sluice_gateway_datagrams_unsent_total"),
            datagrams_useless: counter!("sluice_gateway_datagrams_useless_total"),
            datagrams_strayed: counter!("sluice_gateway_datagrams_strayed_total"),
            datagram_resets: counter!("sluice_gateway_datagram_resets_total"),
        }
    }
}

// === impl LaneMetrics ===

impl LaneMetrics {
    pub(crate) fn new(stream: &Stream) -> Self {
        // Partitions are added up: a label a partition would be 64 series.
        let stream = match stream {
            Stream::Message(_) => "message",
            Stream::Query(_) => "query",
            Stream::Session(_) => "session",
            Stream::Ack(_) => "ack",
            Stream::Request { .. } => "request",
            Stream::Down(_) => "down",
        };
        Self {
            batch_entries: histogram!("sluice_gateway_lane_batch_entries", "stream" => stream),
            depth_entries: histogram!("sluice_gateway_lane_depth_entries", "stream" => stream),
            wait_s: histogram!("sluice_gateway_lane_wait_seconds", "stream" => stream),
            append_s: histogram!("sluice_gateway_lane_append_seconds", "stream" => stream),
            retries: counter!("sluice_gateway_lane_retries_total", "stream" => stream),
            dropped: counter!("sluice_gateway_lane_dropped_total", "stream" => stream),
        }
    }
}
