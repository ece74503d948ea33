//! What a run ends with: one JSON object for programs, a table for people.

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use super::{
    board::{Counts, Latencies},
    chaos::ChaosFigures,
    costs::Costs,
    oracle::{FaultCounts, Verdict},
    plan::Plan,
};

/// The figures of a run, flat.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Conversations on the server: pairs and groups.
    pub conversations: u64,
    /// Conversations of the log.
    pub strands: u64,
    /// People.
    pub users: u64,
    /// Devices: first, second and fresh ones.
    pub devices: u64,
    /// Messages of the log.
    pub messages: u64,
    /// (message, user) pairs that must arrive.
    pub expected: u64,
    /// Those that did.
    pub delivered: u64,
    /// Sends that were acked.
    pub acked: u64,
    /// The four columns.
    #[serde(flatten)]
    pub faults: FaultCounts,
    /// Connections made after a first device's first.
    pub reconnects: u64,
    /// Users cut off mid-send.
    pub cuts: u64,
    /// Groups among the conversations.
    pub groups: u64,
    /// Messages by the time from the first send to the last arrival.
    pub msgs_per_s: f64,
    /// Send call to application of an online receiver.
    pub latency_p50_ms: f64,
    /// Likewise.
    pub latency_p99_ms: f64,
    /// Likewise.
    pub latency_p999_ms: f64,
    /// Likewise.
    pub latency_max_ms: f64,
    /// Send call to ack.
    pub ack_p50_ms: f64,
    /// Likewise.
    pub ack_p99_ms: f64,
    /// First send to last arrival.
    pub duration_s: f64,
    /// Highest resident memory of the server's processes since their start; 0
    /// when it is not known: with `--server` but without `--data-dir`.
    pub server_rss_peak_mb: f64,
    /// Makes the same run again.
    pub seed: u64,
    /// Whether all that is promised held.
    pub ok: bool,
    /// What was killed meanwhile, and how long nothing moved.
    #[serde(flatten)]
    pub chaos: Option<ChaosFigures>,
    /// Of a cluster that nothing was done to.
    #[serde(flatten)]
    pub costs: Option<Costs>,
    /// The first few faults, for people.
    #[serde(skip)]
    pub examples: Vec<String>,
}

/// What a report is made from, beside the plan.
pub struct Findings {
    /// The oracle's word.
    pub verdict: Verdict,
    /// How far the run came.
    pub counts: Counts,
    /// How long things took.
    pub latencies: Latencies,
    /// First send to last arrival.
    pub duration_s: f64,
    /// Of the server.
    pub server_rss_peak_mb: f64,
    /// Something went wrong beside the oracle's columns.
    pub failures: Vec<String>,
    /// Of a run with kills.
    pub chaos: Option<ChaosFigures>,
    /// Of a run on a cluster without.
    pub costs: Option<Costs>,
}

/// One cut-off user in twenty at least.
const CUTS_SHARE_MIN: f64 = 0.05;

// === impl Report ===

impl Report {
    /// Puts a run's figures together.
    pub fn new(plan: &Plan, seed: u64, findings: Findings) -> Self {
        let Findings {
            verdict,
            counts,
            latencies,
            duration_s,
            server_rss_peak_mb,
            failures,
            chaos,
            costs,
        } = findings;
        let users = plan.users.len() as u64;
        let seconds = plan
            .users
            .iter()
            .filter(|user| user.second_device.is_some())
            .count() as u64;
        let messages = plan.messages.len() as u64;
        let cuts_enough = counts.cuts as f64 >= users as f64 * CUTS_SHARE_MIN;
        let ok =
            verdict.is_clean() && verdict.acked == messages && cuts_enough && failures.is_empty();
        let mut examples = failures;
        if !cuts_enough {
            examples.push(format!(
                "only {} of {users} users were cut off mid-send",
                counts.cuts
            ));
        }
        examples.extend(verdict.examples);
        Report {
            conversations: plan.conversations() as u64,
            strands: plan.strands.len() as u64,
            users,
            devices: users * 2 + seconds,
            messages,
            expected: verdict.expected,
            delivered: verdict.delivered,
            acked: verdict.acked,
            faults: verdict.faults,
            reconnects: counts.reconnects,
            cuts: counts.cuts,
            groups: plan.groups.len() as u64,
            msgs_per_s: round(messages as f64 / duration_s.max(0.001)),
            latency_p50_ms: round(latencies.p50_ms),
            latency_p99_ms: round(latencies.p99_ms),
            latency_p999_ms: round(latencies.p999_ms),
            latency_max_ms: round(latencies.max_ms),
            ack_p50_ms: round(latencies.ack_p50_ms),
            ack_p99_ms: round(latencies.ack_p99_ms),
            duration_s: round(duration_s),
            server_rss_peak_mb: round(server_rss_peak_mb),
            seed,
            ok,
            chaos,
            costs,
            examples,
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let mut row = |name: &str, value: String| {
            table.add_row([
                Cell::new(name),
                Cell::new(value).set_alignment(CellAlignment::Right),
            ]);
        };
        row(
            "conversations in the log / as chats here",
            format!("{} / {}", self.strands, self.conversations),
        );
        row(
            "users / devices / groups",
            format!("{} / {} / {}", self.users, self.devices, self.groups),
        );
        row(
            "messages sent / acked",
            format!("{} / {}", self.messages, self.acked),
        );
        row(
            "arrivals expected / delivered",
            format!("{} / {}", self.expected, self.delivered),
        );
        row("lost", self.faults.lost.to_string());
        row("duplicated", self.faults.duplicated.to_string());
        row("reordered", self.faults.reordered.to_string());
        row("corrupted", self.faults.corrupted.to_string());
        row(
            "cuts / reconnects",
            format!("{} / {}", self.cuts, self.reconnects),
        );
        row("messages a second", format!("{:.0}", self.msgs_per_s));
        row(
            "latency p50 / p99 / p99.9 / max (ms)",
            format!(
                "{:.1} / {:.1} / {:.1} / {:.1}",
                self.latency_p50_ms, self.latency_p99_ms, self.latency_p999_ms, self.latency_max_ms
            ),
        );
        row(
            "ack p50 / p99 (ms)",
            format!("{:.1} / {:.1}", self.ack_p50_ms, self.ack_p99_ms),
        );
        row("duration (s)", format!("{:.1}", self.duration_s));
        row(
            "server memory, peak (MB)",
            if self.server_rss_peak_mb > 0.0 {
                format!("{:.0}", self.server_rss_peak_mb)
            } else {
                "not known".to_owned()
            },
        );
        if let Some(chaos) = &self.chaos {
            row("processes killed", chaos.kills.to_string());
            row("longest stall (ms)", format!("{:.0}", chaos.stall_max_ms));
        }
        for (name, value) in self.costs.iter().flat_map(Costs::rows) {
            row(name, value);
        }
        row("ok", if self.ok { "yes" } else { "NO" }.to_owned());
        let mut text = table.to_string();
        for example in &self.examples {
            text.push_str("\n  ");
            text.push_str(example);
        }
        text
    }
}

/// To thousandths: no figure here is truer than that.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
