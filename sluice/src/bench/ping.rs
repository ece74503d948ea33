//! `sluice bench ping`: how near the event loop comes to a bare epoll server.

use serde::Serialize;
use sluice_load::{LoadTransport, Work, cores};
use tokio_util::sync::CancellationToken;

use super::{
    generator::{self, Echo},
    live::Live,
    load::Load,
    report::Common,
    subject::{NO_LIMITS, Subject, SubjectOptions},
    worker::EchoKind,
};

/// What was measured.
#[derive(Debug, Serialize)]
pub struct PingReport {
    /// What all reports have.
    #[serde(flatten)]
    pub common: Common,
    /// Pings that each connection had under way.
    pub depth: u32,
    /// Answers of the server; the median over the rounds.
    pub msgs_per_s: f64,
    /// Echoes of the bare server, asked by the same generator in rounds between.
    pub floor_msgs_per_s: f64,
    /// Of the two.
    pub ratio: f64,
    /// From ping to pong.
    pub rtt_p50_ms: f64,
    /// Likewise.
    pub rtt_p99_ms: f64,
    /// Rounds that were counted, of each.
    pub rounds: usize,
    /// The server had a core of its own, and the generator another.
    pub pinned: bool,
}

/// One event loop, as the floor has.
const SETTINGS: &str = "[gateway]\nevent_loops = 1\n";

/// Measures pings.
pub async fn ping(
    load: Load,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<PingReport> {
    live.doing("adding users");
    let settings = [SETTINGS, NO_LIMITS].concat();
    let subject = Subject::prepare(SubjectOptions {
        server: load.server.clone(),
        users: load.connections,
        settings: &settings,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    // A server that serves others as well is left where it is.
    let cores = match (cores::allowed()?.as_slice(), subject.own_server()) {
        ([first, second, ..], Some(pid)) => {
            cores::pin(Some(pid), *first)?;
            Some((*first, *second))
        }
        _ => None,
    };
    let kind = match load.transport {
        LoadTransport::Udp => EchoKind::Datagrams,
        LoadTransport::Tcp | LoadTransport::WebSocket => EchoKind::Streams,
    };
    let echo = Echo::start(cores.map(|(core, _)| core), kind).await?;
    let work = Work::Ping {
        floor: echo.address,
    };
    let mut jobs = load.jobs(&subject, &work)?;
    for job in &mut jobs {
        job.core = cores.map(|(_, core)| core);
    }
    let findings = generator::run(jobs, &mut live, &shutdown).await?;
    let rounds = findings.outcomes.iter().flat_map(|it| it.rounds.clone());
    let (server, floor): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let (msgs_per_s, floor_msgs_per_s) = (median(&server), median(&floor));
    let report = PingReport {
        common: Common::new("ping", &load, &subject, &findings),
        depth: load.depth,
        msgs_per_s,
        floor_msgs_per_s,
        ratio: msgs_per_s / floor_msgs_per_s.max(1.0),
        rtt_p50_ms: findings.ack.percentile_ms(50.0),
        rtt_p99_ms: findings.ack.percentile_ms(99.0),
        rounds: server.len(),
        pinned: cores.is_some(),
    };
    subject.stop().await?;
    Ok(report)
}

/// The middle one: a round in which something else ran on this machine counts for one.
pub(super) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        Some(upper) if sorted.len().is_multiple_of(2) => {
            let lower = sorted.get(middle.wrapping_sub(1)).unwrap_or(upper);
            (lower + upper) / 2.0
        }
        Some(upper) => *upper,
        None => 0.0,
    }
}

// === impl PingReport ===

impl PingReport {
    /// For people.
    pub fn table(&self) -> String {
        self.common.table(&[
            ("pings a second", format!("{:.0}", self.msgs_per_s)),
            (
                "of the bare server",
                format!("{:.0}", self.floor_msgs_per_s),
            ),
            ("ratio", format!("{:.1} %", self.ratio * 100.0)),
            ("under way, each", self.depth.to_string()),
            ("round trip p50", format!("{:.3} ms", self.rtt_p50_ms)),
            ("round trip p99", format!("{:.3} ms", self.rtt_p99_ms)),
            ("rounds of each", self.rounds.to_string()),
            ("a core each", self.pinned.to_string()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
