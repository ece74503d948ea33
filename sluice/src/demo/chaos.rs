//! Kills processes of a cluster under load, starts them again, or pauses them, and
//! measures for how long nothing moved.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng, rngs::StdRng, seq::IndexedRandom as _};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    board::{Board, Counts},
    replay::Load,
};
use crate::cluster::{Cluster, Kind};

/// `kill=gateway,redis pause=service every=5s for=120s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaosPlan {
    /// What is done, one of these at a time.
    pub blows: Vec<Blow>,
    /// From one blow to the next; from the return of what was hit, if that takes longer.
    pub every: Duration,
    /// How long it goes on; strands begin within this span.
    pub span: Duration,
}

/// What befalls a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// It is killed, and started again.
    Kill(Kind),
    /// It is stopped where it stands for longer than its leases last, and goes on.
    Pause(Kind),
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChaosFigures {
    /// Processes killed.
    pub kills: u64,
    /// Processes paused.
    pub pauses: u64,
    /// Longest time in which no message was acked or arrived.
    pub stall_max_ms: f64,
    /// The same by what was hit last before its end: `stall_max_ms_{kind}` when
    /// it was killed, `stall_max_ms_paused_{kind}` when it was paused.
    #[serde(flatten)]
    pub by_kind: BTreeMap<String, f64>,
}

/// Longest spans without progress.
#[derive(Debug)]
struct StallClock {
    figures: ChaosFigures,
    counts: Counts,
    moved: Instant,
    last: Option<Blow>,
}

const GLANCE: Duration = Duration::from_millis(20);
/// A killed process stays down for so long, at random.
const DOWN_MS: std::ops::Range<u64> = 100..1_500;
/// A paused one stands still for so long: past the leases of five seconds.
const PAUSED_MS: std::ops::Range<u64> = 6_000..9_000;

// === impl ChaosPlan ===

impl FromStr for ChaosPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = ChaosPlan {
            blows: Vec::new(),
            every: Duration::from_secs(5),
            span: Duration::from_secs(60),
        };
        for part in text.split_whitespace() {
            match part.split_once('=') {
                Some(("kill", kinds)) => {
                    for name in kinds.split(',') {
                        plan.blows.push(Blow::Kill(kind(name)?));
                    }
                }
                Some(("pause", kinds)) => {
                    for name in kinds.split(',') {
                        plan.blows.push(Blow::Pause(kind(name)?));
                    }
                }
                Some(("every", span)) => plan.every = seconds(span)?,
                Some(("for", span)) => plan.span = seconds(span)?,
                _ => {
                    return Err(format!(
                        "{part:?}: chaos is kill=KINDS pause=KINDS every=5s for=120s"
                    ));
                }
            }
        }
        if plan.blows.is_empty() {
            plan.blows = Kind::ALL.map(Blow::Kill).to_vec();
        }
        Ok(plan)
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("{name:?}: there are gateway, service, redis and mariadb"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let count = text.strip_suffix('s').unwrap_or(text).parse::<u64>();
    match count {
        Ok(count @ 1..=86_400) => Ok(Duration::from_secs(count)),
        _ => Err(format!("{text:?}: seconds, such as 5s")),
    }
}

/// Strikes until the span is over or the load is; all processes run when it
/// returns.
pub async fn run(
    plan: &ChaosPlan,
    cluster: &mut Cluster,
    board: &Arc<Board>,
    mut load: watch::Receiver<Load>,
    seed: u64,
) -> anyhow::Result<ChaosFigures> {
    // The sender lives as long as the run.
    let _ = load.wait_for(|load| *load == Load::On).await;
    let clock = Mutex::new(StallClock::new(board.counts()));
    let watching = async {
        while *load.borrow() == Load::On {
            tokio::time::sleep(GLANCE).await;
            clock.lock().look(board.counts());
        }
    };
    let mut ended = load.clone();
    let striking = strike_on(plan, cluster, &clock, &mut ended, seed);
    let (struck, ()) = tokio::join!(striking, watching);
    struck?;
    Ok(clock.into_inner().figures)
}

async fn strike_on(
    plan: &ChaosPlan,
    cluster: &mut Cluster,
    clock: &Mutex<StallClock>,
    load: &mut watch::Receiver<Load>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut next = Instant::now() + plan.every;
    let end = Instant::now() + plan.span;
    while next < end {
        let over = load.wait_for(|load| *load == Load::Over);
        if tokio::time::timeout_at(next.into(), over).await.is_ok() {
            break;
        }
        let Some(blow) = plan.blows.choose(&mut random).copied() else {
            break;
        };
        let which = random.random_range(0..cluster.count(blow.kind()).max(1));
        tracing::info!(?blow, which, "chaos strikes");
        clock.lock().struck(blow);
        match blow {
            Blow::Kill(kind) => {
                cluster.kill(kind, which).await?;
                let down = Duration::from_millis(random.random_range(DOWN_MS));
                tokio::time::sleep(down).await;
                cluster.restart(kind, which).await?;
            }
            Blow::Pause(kind) => {
                cluster.pause(kind, which).await?;
                let paused = Duration::from_millis(random.random_range(PAUSED_MS));
                tokio::time::sleep(paused).await;
                cluster.resume(kind, which).await?;
            }
        }
        tracing::info!(?blow, which, "it is back");
        next += plan.every;
        if next < Instant::now() {
            // Progress is looked for between any two blows.
            next = Instant::now() + plan.every;
        }
    }
    Ok(())
}

// === impl Blow ===

impl Blow {
    fn kind(self) -> Kind {
        let (Blow::Kill(kind) | Blow::Pause(kind)) = self;
        kind
    }

    /// Of its figure.
    fn name(self) -> String {
        match self {
            Blow::Kill(kind) => format!("stall_max_ms_{}", kind.name()),
            Blow::Pause(kind) => format!("stall_max_ms_paused_{}", kind.name()),
        }
    }
}

// === impl StallClock ===

impl StallClock {
    fn new(counts: Counts) -> Self {
        Self {
            figures: ChaosFigures::default(),
            counts,
            moved: Instant::now(),
            last: None,
        }
    }

    fn look(&mut self, counts: Counts) {
        let now = Instant::now();
        let still_ms = now.duration_since(self.moved).as_millis() as f64;
        self.figures.stall_max_ms = self.figures.stall_max_ms.max(still_ms);
        if let Some(blow) = self.last {
            let longest = self.figures.by_kind.entry(blow.name()).or_default();
            *longest = longest.max(still_ms);
        }
        if (counts.acked, counts.arrived) != (self.counts.acked, self.counts.arrived) {
            self.counts = counts;
            self.moved = now;
        }
    }

    fn struck(&mut self, blow: Blow) {
        match blow {
            Blow::Kill(_) => self.figures.kills += 1,
            Blow::Pause(_) => self.figures.pauses += 1,
        }
        self.last = Some(blow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let plan: ChaosPlan = "kill=gateway,mariadb pause=service every=2s for=30s"
            .parse()
            .unwrap();
        let expected = ChaosPlan {
            blows: vec![
                Blow::Kill(Kind::Gateway),
                Blow::Kill(Kind::MariaDb),
                Blow::Pause(Kind::Service),
            ],
            every: Duration::from_secs(2),
            span: Duration::from_secs(30),
        };
        assert_eq!(plan, expected);
        for wrong in ["kill=cat", "every=0s", "for=long", "kill"] {
            assert!(wrong.parse::<ChaosPlan>().is_err(), "{wrong}");
        }
    }
}
