//! `sluice bench fanout`: one group, all members online, beside raw writes of the same
//! bytes to as many sockets: one for each member and message, although a server may
//! gather what is under way (Sluice does). With one message under way nothing can be
//! gathered.

use anyhow::Context;
use serde::Serialize;
use sluice_load::{LoadTransport, Pace, Work};
use tokio_util::sync::CancellationToken;

use super::{
    generator::{self, Echo},
    latencies::RecvLatencies,
    live::Live,
    load::Load,
    ping::median,
    report::Common,
    subject::{NO_LIMITS, Subject, SubjectOptions},
    worker::EchoKind,
};

/// What was measured.
#[derive(Debug, Serialize)]
pub struct FanoutReport {
    /// What all reports have.
    #[serde(flatten)]
    pub common: Common,
    /// What was asked for; `None`: as fast as deliveries let it.
    pub rate_per_s: Option<f64>,
    /// Messages under way at once.
    pub depth: u32,
    /// Of each message.
    pub body_bytes: usize,
    /// Messages at members.
    pub deliveries_per_s: f64,
    /// Of the bare server: one write a member and message.
    pub floor_deliveries_per_s: f64,
    /// Of the two.
    pub ratio: f64,
    /// Of arrivals at members.
    #[serde(flatten)]
    pub recv: RecvLatencies,
}

/// Measures a group; one of its members sends.
pub async fn fanout(
    load: Load,
    pace: Pace,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<FanoutReport> {
    live.doing("adding users");
    let subject = Subject::prepare(SubjectOptions {
        server: load.server.clone(),
        users: load.connections,
        in_group: true,
        settings: NO_LIMITS,
    });
    let subject = subject.await?;
    let group = subject.group.as_ref().context("the group was made")?;
    let kind = match load.transport {
        LoadTransport::WebSocket => EchoKind::WsBroadcast,
        LoadTransport::Tcp | LoadTransport::Udp => EchoKind::TcpBroadcast,
    };
    let echo = Echo::start(None, kind).await?;
    let work = Work::Fanout {
        group: group.to_string(),
        pace,
        floor: echo.address,
    };
    let jobs = load.jobs(&subject, &work)?;
    let findings = generator::run(jobs, &mut live, &shutdown).await?;
    let rounds = findings.outcomes.iter().flat_map(|it| it.rounds.clone());
    let (server, floor): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let deliveries_per_s = match pace {
        Pace::Window => median(&server),
        Pace::PerSecond(_) => findings.total(|it| it.received) as f64 / findings.measured_s(),
    };
    let floor_deliveries_per_s = median(&floor);
    let report = FanoutReport {
        common: Common::new("fanout", &load, &subject, &findings),
        rate_per_s: pace.per_s(),
        depth: load.depth,
        body_bytes: load.body_bytes,
        deliveries_per_s,
        floor_deliveries_per_s,
        ratio: deliveries_per_s / floor_deliveries_per_s.max(1.0),
        recv: RecvLatencies::of(&findings.recv),
    };
    subject.stop().await?;
    Ok(report)
}

// === impl FanoutReport ===

impl FanoutReport {
    /// For people.
    pub fn table(&self) -> String {
        let rate = match self.rate_per_s {
            Some(per_s) => format!("{per_s:.0} messages a second"),
            None => format!("max, {} under way", self.depth),
        };
        let floor = format!("{:.0}", self.floor_deliveries_per_s);
        self.common.table(&[
            (
                "deliveries a second",
                format!("{:.0}", self.deliveries_per_s),
            ),
            ("of the bare server", floor),
            ("ratio", format!("{:.1} %", self.ratio * 100.0)),
            ("asked for", rate),
            ("receive p50 / p99 / p99.9", self.recv.text()),
            ("bytes of a message", self.body_bytes.to_string()),
        ])
    }
}
