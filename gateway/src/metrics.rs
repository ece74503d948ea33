//! Names of the metrics, and handles for the hot path: an increment is one
//! atomic addition, no look-up.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use sluice_bus::Stream;
use tokio_util::sync::CancellationToken;

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

/// Between two times that samples are added up: less than a megabyte at a hundred
/// thousand samples a second.
const UPKEEP_PAUSE: Duration = Duration::from_millis(500);

/// Installs the process's recorder at the first call and returns what renders
/// it for Prometheus. Call it before a gateway starts, else its counts go
/// nowhere. When another recorder is installed already, this renders nothing.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds = [
            0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
        ];
        let entries = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0];
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_entries".into()), &entries)
            })
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        handle
    })
}

/// Adds up what histograms have gathered, again and again until shutdown. Without it
/// they hold each single sample until somebody reads the metrics.
pub async fn keep_up(shutdown: CancellationToken) {
    let recorder = install();
    let add_up = async {
        loop {
            tokio::time::sleep(UPKEEP_PAUSE).await;
            recorder.run_upkeep();
        }
    };
    shutdown.run_until_cancelled(add_up).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_do_not_pile_up_where_nobody_reads_the_metrics() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (rounds, samples) = (50, 10_000);
        install();
        let heap = allocation_counter::measure(|| {
            let shutdown = CancellationToken::new();
            runtime.block_on(async {
                let keeping = tokio::spawn(keep_up(shutdown.clone()));
                for _ in 0..rounds {
                    let histogram = histogram!("sluice_store_commit_seconds");
                    (0..samples).for_each(|_| histogram.record(0.01));
                    tokio::time::sleep(2 * UPKEEP_PAUSE).await;
                }
                shutdown.cancel();
                keeping.await.unwrap();
            });
        });
        let round_bytes = samples * 2 * size_of::<f64>() as i64;
        assert!(heap.bytes_current < rounds / 5 * round_bytes, "{heap:?}");
    }
}
