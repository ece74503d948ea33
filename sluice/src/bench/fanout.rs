//! `sluice bench fanout`: one group, all members online, beside raw writes of the same
//! bytes to as many sockets.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use sluice_load::{Job, LoadTransport, Pace, Work};
use tokio_util::sync::CancellationToken;

use super::{
    generator::{self, Echo},
    live::Live,
    ping::median,
    report::Common,
    subject::{NO_LIMITS, RunningServer, Subject, SubjectOptions},
    worker::EchoKind,
};

/// What is asked for.
pub struct FanoutOptions {
    /// By what to connect.
    pub transport: LoadTransport,
    /// How many members, the one who sends among them.
    pub connections: usize,
    /// Messages.
    pub pace: Pace,
    /// Messages under way at once, until all have them.
    pub depth: u32,
    /// Of each message.
    pub body_bytes: usize,
    /// Load that isn't measured.
    pub warm_up: Duration,
    /// What is measured.
    pub duration: Duration,
    /// `None`: start one.
    pub server: Option<RunningServer>,
}

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
    /// From when a message was due to its arrival at a member.
    pub recv_p50_ms: f64,
    /// Likewise.
    pub recv_p99_ms: f64,
    /// Likewise.
    pub recv_p999_ms: f64,
}

/// Measures a group.
pub async fn fanout(
    options: FanoutOptions,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<FanoutReport> {
    live.doing("adding users");
    let subject = Subject::prepare(SubjectOptions {
        running: options.server,
        users: options.connections,
        in_group: true,
        settings: NO_LIMITS,
    });
    let subject = subject.await?;
    let group = subject.group.as_ref().context("the group was made")?;
    let echo = Echo::start(None, EchoKind::Broadcast).await?;
    let job = Job {
        work: Work::Fanout {
            group: group.to_string(),
            pace: options.pace,
            floor: echo.address,
        },
        address: subject.address(options.transport)?,
        transport: options.transport,
        pins: subject.addresses.pins.clone(),
        logins: subject.logins.clone(),
        window_max: options.depth,
        body_bytes: options.body_bytes,
        warm_up_ms: options.warm_up.as_millis() as u64,
        duration_ms: options.duration.as_millis() as u64,
        servers: vec![subject.pid],
        core: None,
    };
    let findings = generator::run(vec![job], &mut live, &shutdown).await?;
    let rounds = findings.outcomes.iter().flat_map(|it| it.rounds.clone());
    let (server, floor): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let (rate_per_s, deliveries_per_s) = match options.pace {
        Pace::Window => (None, median(&server)),
        Pace::PerSecond(per_s) => {
            let received = findings.total(|it| it.received) as f64;
            (Some(per_s), received / findings.measured_s())
        }
    };
    let floor_deliveries_per_s = median(&floor);
    let transport = options.transport.name();
    let settings = if subject.is_own() { NO_LIMITS } else { "" };
    let report = FanoutReport {
        common: Common::new(
            "fanout",
            transport,
            options.connections,
            settings,
            &findings,
        ),
        rate_per_s,
        depth: options.depth,
        body_bytes: options.body_bytes,
        deliveries_per_s,
        floor_deliveries_per_s,
        ratio: deliveries_per_s / floor_deliveries_per_s.max(1.0),
        recv_p50_ms: findings.recv.percentile_ms(50.0),
        recv_p99_ms: findings.recv.percentile_ms(99.0),
        recv_p999_ms: findings.recv.percentile_ms(99.9),
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
        let receive = format!(
            "{:.2} / {:.2} / {:.2} ms",
            self.recv_p50_ms, self.recv_p99_ms, self.recv_p999_ms
        );
        let floor = format!("{:.0}", self.floor_deliveries_per_s);
        self.common.table(&[
            (
                "deliveries a second",
                format!("{:.0}", self.deliveries_per_s),
            ),
            ("of the bare server", floor),
            ("ratio", format!("{:.1} %", self.ratio * 100.0)),
            ("asked for", rate),
            ("receive p50 / p99 / p99.9", receive),
            ("bytes of a message", self.body_bytes.to_string()),
        ])
    }
}
