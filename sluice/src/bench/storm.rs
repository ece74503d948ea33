//! `sluice bench storm`: all connections are cut at once, and all come back.

use serde::Serialize;
use sluice_load::{Outcome, Work};
use tokio_util::sync::CancellationToken;

use super::{
    generator,
    live::Live,
    load::Load,
    report::Common,
    subject::{NO_LIMITS, Subject, SubjectOptions},
};

/// What was measured.
#[derive(Debug, Serialize)]
pub struct StormReport {
    /// What all reports have; it lasts from the cut until the last is back.
    #[serde(flatten)]
    pub common: Common,
    /// Connections that were on their way to login at once.
    pub at_once: usize,
    /// From the cut until all were logged in and synced.
    pub last_back_s: f64,
    /// Until half of them were.
    pub back_p50_s: f64,
    /// Resident memory of Sluice's own processes before the cut.
    pub rss_before_mb: f64,
    /// And after all were back, and some rest.
    pub rss_after_mb: f64,
}

/// Measures a storm; so many are on their way to login at once. The load's duration is
/// the server's rest before its memory is read, before and after.
pub async fn storm(
    load: Load,
    at_once: usize,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<StormReport> {
    live.doing("adding users");
    let subject = Subject::prepare(SubjectOptions {
        server: load.server.clone(),
        users: load.connections,
        settings: NO_LIMITS,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    let jobs = load.jobs(&subject, &Work::Storm { at_once })?;
    let findings = generator::run(jobs, &mut live, &shutdown).await?;
    let outcomes = || findings.outcomes.iter();
    let rss_mb = |when: fn((f64, f64)) -> f64| {
        let sum = |it: &Outcome| {
            let parts = subject.parts.iter().zip(&it.rss_mb);
            let of_sluice = parts.filter(|(part, _)| part.is_sluice());
            of_sluice.map(|(_, mb)| when(*mb)).sum()
        };
        outcomes().map(sum).fold(0.0, f64::max)
    };
    let report = StormReport {
        common: Common::new("storm", &load, &subject, &findings),
        at_once,
        last_back_s: outcomes().map(|it| it.last_back_s).fold(0.0, f64::max),
        back_p50_s: findings.ack.percentile_ms(50.0) / 1_000.0,
        rss_before_mb: rss_mb(|(before, _)| before),
        rss_after_mb: rss_mb(|(_, after)| after),
    };
    subject.stop().await?;
    Ok(report)
}

// === impl StormReport ===

impl StormReport {
    /// For people.
    pub fn table(&self) -> String {
        let memory = format!("{:.1} / {:.1} MB", self.rss_before_mb, self.rss_after_mb);
        self.common.table(&[
            ("last back and synced", format!("{:.2} s", self.last_back_s)),
            ("half of them", format!("{:.2} s", self.back_p50_s)),
            ("memory before / after", memory),
            ("on their way at once", self.at_once.to_string()),
        ])
    }
}
