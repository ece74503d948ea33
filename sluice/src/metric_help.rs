//! What each metric means: the HELP lines of `/metrics`. The rooms count by name;
//! a test here looks for the names in their code.
//!
//! Base units are those of Prometheus, and stand in the names: seconds, bytes,
//! or what is counted.

use Kind::{Counter, Gauge, Histogram};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const HELP: &[(Kind, &str, &str)] = &[
    (
        Counter,
        "sluice_bus_dead_letters_total",
        "Entries set aside after too many deliveries",
    ),
    (
        Counter,
        "sluice_bus_dropped_entries_total",
        "Entries for a reader that had ended or was full",
    ),
    (
        Counter,
        "sluice_bus_lost_entries_total",
        "Entries that the engine had lost when a reader came back to it",
    ),
    (
        Gauge,
        "sluice_bus_stream_entries",
        "Entries of a stream, read ones included until they are acknowledged",
    ),
    (
        Gauge,
        "sluice_bus_stream_pending_entries",
        "Entries of a stream that were read and not acknowledged",
    ),
    (
        Counter,
        "sluice_bus_stream_resets_total",
        "Streams that were found made anew by another engine",
    ),
    (
        Gauge,
        "sluice_connection_bytes",
        "Memory of this process that connections hold, by part",
    ),
    (
        Gauge,
        "sluice_connections_asleep",
        "Connections with nothing under way, whose state is packed",
    ),
    (
        Gauge,
        "sluice_kernel_socket_bytes",
        "Memory in the buffers of all sockets of the machine, by protocol",
    ),
    (
        Counter,
        "sluice_down_dropped_batches_total",
        "Batches for a gateway that were dropped; it tells its clients to resync",
    ),
    (
        Counter,
        "sluice_gateway_accepted_total",
        "Connections taken in",
    ),
    (
        Counter,
        "sluice_gateway_answers_late_total",
        "Answers of backends to requests that were over",
    ),
    (Counter, "sluice_gateway_busy_total", "Busy packets sent"),
    (
        Counter,
        "sluice_gateway_bytes_in_total",
        "Bytes read from clients",
    ),
    (
        Counter,
        "sluice_gateway_bytes_out_total",
        "Bytes written to clients",
    ),
    (
        Counter,
        "sluice_gateway_closed_total",
        "Connections closed, by reason",
    ),
    (Gauge, "sluice_gateway_connections", "Connections open now"),
    (
        Counter,
        "sluice_gateway_cursors_dropped_total",
        "Delivered cursors that found no room; a later one covers them",
    ),
    (
        Counter,
        "sluice_gateway_deliveries_stale_total",
        "Deliveries to connections that were gone",
    ),
    (
        Counter,
        "sluice_gateway_downlink_gaps_total",
        "Deliveries that did not reach this gateway, by how that was noticed",
    ),
    (
        Counter,
        "sluice_gateway_events_dropped_total",
        "Ephemeral packets dropped before slow readers",
    ),
    (
        Histogram,
        "sluice_gateway_lane_append_seconds",
        "Time of one append of a lane to the bus",
    ),
    (
        Histogram,
        "sluice_gateway_lane_batch_entries",
        "Entries of one append",
    ),
    (
        Histogram,
        "sluice_gateway_lane_depth_entries",
        "Entries that waited in a lane when a batch was taken",
    ),
    (
        Counter,
        "sluice_gateway_lane_dropped_total",
        "Entries that a lane gave up at shutdown",
    ),
    (
        Counter,
        "sluice_gateway_lane_retries_total",
        "Appends that were tried again",
    ),
    (
        Histogram,
        "sluice_gateway_lane_wait_seconds",
        "Time that the oldest entry of a batch waited in its lane",
    ),
    (
        Counter,
        "sluice_gateway_overflows_total",
        "Overflow packets sent: pushes were dropped and the client pulls",
    ),
    (
        Counter,
        "sluice_gateway_packets_in_total",
        "Packets read from clients",
    ),
    (
        Counter,
        "sluice_gateway_pushes_acked_total",
        "Pushes that clients have acknowledged",
    ),
    (
        Counter,
        "sluice_gateway_pushes_carried_total",
        "Unacked pushes that went along when their client changed its connection",
    ),
    (
        Counter,
        "sluice_gateway_pushes_dropped_total",
        "Pushes dropped before full windows or slow readers",
    ),
    (
        Counter,
        "sluice_gateway_pushes_failed_total",
        "Pushes given up after the last try",
    ),
    (
        Counter,
        "sluice_gateway_pushes_resent_total",
        "Pushes written again",
    ),
    (
        Counter,
        "sluice_gateway_pushes_total",
        "Pushes written for the first time",
    ),
    (
        Counter,
        "sluice_gateway_refused_total",
        "Packets refused by the gateway, by error code",
    ),
    (
        Counter,
        "sluice_gateway_streams_sealed_total",
        "TCP connections that their clients encrypted",
    ),
    (
        Counter,
        "sluice_gateway_turned_away_total",
        "Connections not taken in, by why",
    ),
    (
        Counter,
        "sluice_gateway_datagram_resets_total",
        "Datagrams of unknown sessions, answered with a reset",
    ),
    (
        Counter,
        "sluice_gateway_datagrams_in_total",
        "Datagrams received",
    ),
    (
        Counter,
        "sluice_gateway_datagrams_out_total",
        "Datagrams sent",
    ),
    (
        Counter,
        "sluice_gateway_datagrams_strayed_total",
        "Datagrams that came to another event loop than their session's",
    ),
    (
        Counter,
        "sluice_gateway_datagrams_unsent_total",
        "Datagrams that the kernel had no room for",
    ),
    (
        Counter,
        "sluice_gateway_datagrams_useless_total",
        "Datagrams of no session that is here: forged, damaged, repeated or none of ours",
    ),
    (
        Counter,
        "sluice_gateway_unbinds_dropped_total",
        "Unbinds that found no room",
    ),
    (
        Counter,
        "sluice_http_errors_total",
        "HTTP answers that were no success, by status",
    ),
    (
        Histogram,
        "sluice_message_batch_entries",
        "Entries that an owner took from the bus at once",
    ),
    (
        Histogram,
        "sluice_message_commit_seconds",
        "Time of one commit, as its owner sees it",
    ),
    (
        Histogram,
        "sluice_message_emit_seconds",
        "Time to route the answers and pushes of a batch",
    ),
    (
        Counter,
        "sluice_kicks_repeated_total",
        "Sessions that were open although their user was shut out, and were kicked again",
    ),
    (
        Gauge,
        "sluice_partitions_shared",
        "Partitions that this node owns",
    ),
    (
        Counter,
        "sluice_poison_entries_total",
        "Entries that could not be read, by role",
    ),
    (
        Counter,
        "sluice_pulls_put_off_total",
        "Pulls that were put off, for others to have their turn",
    ),
    (Counter, "sluice_pulls_total", "Pulls that were worked on"),
    (
        Counter,
        "sluice_push_failed_total",
        "Pushes that gateways reported as given up",
    ),
    (
        Counter,
        "sluice_refusals_total",
        "Packets refused by services, by error code",
    ),
    (
        Counter,
        "sluice_sessions_opened_total",
        "Logins and refreshes that succeeded",
    ),
    (
        Counter,
        "sluice_store_alone_total",
        "Commits left out of a transaction of several, by why, and run by themselves",
    ),
    (
        Histogram,
        "sluice_store_batch_entries",
        "Entries of one transaction, on MySQL inbox rows too, by step",
    ),
    (
        Histogram,
        "sluice_store_commit_seconds",
        "Time of one transaction, sync included",
    ),
    (
        Counter,
        "sluice_store_errors_total",
        "Requests to the store that failed, by error",
    ),
    (
        Gauge,
        "sluice_store_queue_requests",
        "Writes that wait for the writer",
    ),
    (
        Gauge,
        "sluice_store_read_queue_requests",
        "Reads that wait for a reader",
    ),
    (
        Counter,
        "sluice_store_replica_reads_total",
        "Reads offered to a replica, by outcome; all but `read` went to the server itself",
    ),
    (
        Counter,
        "sluice_store_retries_total",
        "Transactions tried again, by reason",
    ),
    (
        Counter,
        "sluice_work_failures_total",
        "Batches that a consumer has to do again, by role and why",
    ),
    (
        Counter,
        "sluice_cache_hits_total",
        "Look-ups that a cache answered, by cache",
    ),
    (
        Counter,
        "sluice_cache_misses_total",
        "Look-ups that went to the store, by cache",
    ),
    (
        Counter,
        "sluice_service_down_gaps_total",
        "Entries that did not reach a service node, by how that was noticed",
    ),
];

/// Tells the recorder what the metrics mean. Call it once it is installed.
pub(crate) fn describe() {
    for (kind, name, help) in HELP.iter().copied() {
        match kind {
            Counter => metrics::describe_counter!(name, help),
            Gauge => metrics::describe_gauge!(name, help),
            Histogram => metrics::describe_histogram!(name, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }

    /// Whole string literals that begin as metrics do.
    fn names_in(text: &str) -> impl Iterator<Item = &str> {
        let literals = text.split('"');
        literals.filter(|literal| {
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
            literal.starts_with("sluice_") && literal.chars().all(is_name)
        })
    }

    #[test]
    fn every_metric_has_its_help_and_a_base_unit() {
        let mut files = Vec::new();
        for room in ["bus", "gateway", "services", "store"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(room);
            sources(&folder.join("src"), &mut files);
        }
        let mut used = BTreeSet::new();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            used.extend(names_in(&text).map(str::to_owned));
        }
        let described: BTreeSet<_> = HELP.iter().map(|(_, name, _)| (*name).to_owned()).collect();
        assert_eq!(described.len(), HELP.len(), "one is described twice");
        assert_eq!(used, described);
        for (kind, name, help) in HELP {
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, *kind == Counter, "{name}");
            let foreign = [
                "_ms", "_us", "_ns", "_mb", "_kb", "_kib", "_mib", "_minutes",
            ];
            let bare = name.trim_end_matches("_total");
            assert!(!foreign.iter().any(|unit| bare.ends_with(unit)), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
        }
    }
}
