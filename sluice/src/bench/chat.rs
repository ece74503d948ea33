//! `sluice bench chat`: durable messages of pairs, from when they were due to the
//! sender's ack and to the receiver.

use serde::Serialize;
use sluice_load::{Pace, Work};
use tokio_util::sync::CancellationToken;

use super::{
    generator,
    latencies::{AckLatencies, RecvLatencies},
    live::Live,
    load::Load,
    report::Common,
    subject::{NO_LIMITS, Subject, SubjectOptions},
};

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
    /// All that were sent, by the time until the last was acked and received: where few
    /// rounds of windows fit into the run, this is the rate.
    pub whole_run_per_s: f64,
    /// Of acks.
    #[serde(flatten)]
    pub ack: AckLatencies,
    /// Of arrivals.
    #[serde(flatten)]
    pub recv: RecvLatencies,
}

/// Measures messages of pairs; connections are an even number.
pub async fn chat(
    load: Load,
    pace: Pace,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<ChatReport> {
    live.doing("adding users");
    let subject = Subject::prepare(SubjectOptions {
        server: load.server.clone(),
        users: load.connections,
        settings: NO_LIMITS,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    let jobs = load.jobs(&subject, &Work::Chat { pace })?;
    let findings = generator::run(jobs, &mut live, &shutdown).await?;
    let acked = findings.total(|it| it.acked) as f64;
    let report = ChatReport {
        common: Common::new("chat", &load, &subject, &findings),
        rate_per_s: pace.per_s(),
        body_bytes: load.body_bytes,
        msgs_per_s: acked / findings.measured_s(),
        whole_run_per_s: findings.counts.acked as f64 / findings.whole_s(),
        ack: AckLatencies::of(&findings.ack),
        recv: RecvLatencies::of(&findings.recv),
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
        self.common.table(&[
            ("messages a second", format!("{:.0}", self.msgs_per_s)),
            ("asked for", rate),
            ("ack p50 / p99 / p99.9", self.ack.text()),
            ("receive p50 / p99 / p99.9", self.recv.text()),
            ("bytes of a message", self.body_bytes.to_string()),
        ])
    }
}
