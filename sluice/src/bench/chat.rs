//! `sluice bench chat`: durable messages of pairs, from when they were due to the
//! sender's ack and to the receiver.

use std::time::Duration;

use serde::Serialize;
use sluice_load::{Job, LoadTransport, Pace, Work};
use tokio_util::sync::CancellationToken;

use super::{
    generator,
    live::Live,
    report::Common,
    subject::{NO_LIMITS, RunningServer, Subject, SubjectOptions},
};

/// What is asked for.
pub struct ChatOptions {
    /// By what to connect.
    pub transport: LoadTransport,
    /// How many connections; an even number.
    pub connections: usize,
    /// Messages of all.
    pub pace: Pace,
    /// Messages that each may have unacked.
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
pub struct ChatReport {
    /// What all reports have.
    #[serde(flatten)]
    pub common: Common,
    /// What was asked for; `None`: as fast as the windows let them.
    pub rate_per_s: Option<f64>,
    /// Of each message.
    pub body_bytes: usize,
    /// Stored and acked.
    pub msgs_per_s: f64,
    /// From when a message was due to its ack.
    pub ack_p50_ms: f64,
    /// Likewise.
    pub ack_p99_ms: f64,
    /// Likewise.
    pub ack_p999_ms: f64,
    /// From when a message was due to its arrival.
    pub recv_p50_ms: f64,
    /// Likewise.
    pub recv_p99_ms: f64,
    /// Likewise.
    pub recv_p999_ms: f64,
}

/// Measures messages of pairs.
pub async fn chat(
    options: ChatOptions,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<ChatReport> {
    live.doing("adding users");
    let subject = Subject::prepare(SubjectOptions {
        running: options.server,
        users: options.connections,
        settings: NO_LIMITS,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    let job = Job {
        work: Work::Chat { pace: options.pace },
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
    let transport = options.transport.name();
    let settings = if subject.is_own() { NO_LIMITS } else { "" };
    let (ack, recv) = (&findings.ack, &findings.recv);
    let acked = findings.total(|it| it.acked) as f64;
    let report = ChatReport {
        common: Common::new("chat", transport, options.connections, settings, &findings),
        rate_per_s: match options.pace {
            Pace::PerSecond(per_s) => Some(per_s),
            Pace::Window => None,
        },
        body_bytes: options.body_bytes,
        msgs_per_s: acked / findings.measured_s(),
        ack_p50_ms: ack.percentile_ms(50.0),
        ack_p99_ms: ack.percentile_ms(99.0),
        ack_p999_ms: ack.percentile_ms(99.9),
        recv_p50_ms: recv.percentile_ms(50.0),
        recv_p99_ms: recv.percentile_ms(99.0),
        recv_p999_ms: recv.percentile_ms(99.9),
    };
    subject.stop().await?;
    Ok(report)
}

// === impl ChatReport ===

impl ChatReport {
    /// For people.
    pub fn table(&self) -> String {
        let rate = match self.rate_per_s {
            Some(per_s) => format!("{per_s:.0}"),
            None => "max".to_owned(),
        };
        let ms = |p50: f64, p99: f64, p999: f64| format!("{p50:.2} / {p99:.2} / {p999:.2} ms");
        self.common.table(&[
            ("messages a second", format!("{:.0}", self.msgs_per_s)),
            ("asked for", rate),
            (
                "ack p50 / p99 / p99.9",
                ms(self.ack_p50_ms, self.ack_p99_ms, self.ack_p999_ms),
            ),
            (
                "receive p50 / p99 / p99.9",
                ms(self.recv_p50_ms, self.recv_p99_ms, self.recv_p999_ms),
            ),
            ("bytes of a message", self.body_bytes.to_string()),
        ])
    }
}
