//! Kills processes of a cluster under load, starts them again, and measures for
//! how long nothing moved.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng, rngs::StdRng, seq::IndexedRandom as _};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    board::{Board, Counts},
    cluster::{Cluster, Kind},
    replay::Load,
};

/// `kill=gateway,redis every=5s for=120s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaosPlan {
    /// What is killed.
    pub kinds: Vec<Kind>,
    /// From one kill to the next.
    pub every: Duration,
    /// How long it goes on; strands begin within this span.
    pub span: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChaosFigures {
    /// Processes killed.
    pub kills: u64,
    /// Longest time in which no message was acked or arrived.
    pub stall_max_ms: f64,
    /// The same by what was killed last before its end, as `stall_max_ms_{kind}`.
    #[serde(flatten)]
    pub by_kind: BTreeMap<String, f64>,
}

/// Longest spans without progress.
#[derive(Debug)]
struct StallClock {
    figures: ChaosFigures,
    counts: Counts,
    moved: Instant,
    last_kill: Option<Kind>,
}

const GLANCE: Duration = Duration::from_millis(20);
/// A killed process stays down for so long, at random.
const DOWN_MS: std::ops::Range<u64> = 100..1_500;

// === impl ChaosPlan ===

impl FromStr for ChaosPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = ChaosPlan {
            kinds: Kind::ALL.to_vec(),
            every: Duration::from_secs(5),
            span: Duration::from_secs(60),
        };
        for part in text.split_whitespace() {
            match part.split_once('=') {
                Some(("kill", kinds)) => {
                    plan.kinds = kinds.split(',').map(kind).collect::<Result<_, _>>()?;
                }
                Some(("every", span)) => plan.every = seconds(span)?,
                Some(("for", span)) => plan.span = seconds(span)?,
                _ => return Err(format!("{part:?}: chaos is kill=KINDS every=5s for=120s")),
            }
        }
        Ok(plan)
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("{name:?}: gateway, service, redis or mariadb can be killed"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let count = text.strip_suffix('s').unwrap_or(text).parse::<u64>();
    match count {
        Ok(count @ 1..=86_400) => Ok(Duration::from_secs(count)),
        _ => Err(format!("{text:?}: seconds, such as 5s")),
    }
}

/// Kills and restarts until the span is over or the load is; all processes run
/// when it returns.
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
    let killing = kill_on(plan, cluster, &clock, &mut ended, seed);
    let (killed, ()) = tokio::join!(killing, watching);
    killed?;
    Ok(clock.into_inner().figures)
}

async fn kill_on(
    plan: &ChaosPlan,
    cluster: &mut Cluster,
    clock: &Mutex<StallClock>,
    load: &mut watch::Receiver<Load>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + plan.span;
    while Instant::now() + plan.every < end {
        let over = load.wait_for(|load| *load == Load::Over);
        if tokio::time::timeout(plan.every, over).await.is_ok() {
            break;
        }
        let Some(kind) = plan.kinds.choose(&mut random).copied() else {
            break;
        };
        let count = cluster.count(kind).max(1) as u64;
        let which = (random.next_u64() % count) as usize;
        tracing::info!(kind = kind.name(), which, "kill");
        clock.lock().killed(kind);
        cluster.kill(kind, which).await?;
        let down = Duration::from_millis(random.random_range(DOWN_MS));
        tokio::time::sleep(down).await;
        cluster.restart(kind, which).await?;
    }
    Ok(())
}

// === impl StallClock ===

impl StallClock {
    fn new(counts: Counts) -> Self {
        Self {
            figures: ChaosFigures::default(),
            counts,
            moved: Instant::now(),
            last_kill: None,
        }
    }

    fn look(&mut self, counts: Counts) {
        let now = Instant::now();
        let still_ms = now.duration_since(self.moved).as_millis() as f64;
        self.figures.stall_max_ms = self.figures.stall_max_ms.max(still_ms);
        if let Some(kind) = self.last_kill {
            let name = format!("stall_max_ms_{}", kind.name());
            let longest = self.figures.by_kind.entry(name).or_default();
            *longest = longest.max(still_ms);
        }
        if (counts.acked, counts.arrived) != (self.counts.acked, self.counts.arrived) {
            self.counts = counts;
            self.moved = now;
        }
    }

    fn killed(&mut self, kind: Kind) {
        self.figures.kills += 1;
        self.last_kill = Some(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let plan: ChaosPlan = "kill=gateway,mariadb every=2s for=30s".parse().unwrap();
        let expected = ChaosPlan {
            kinds: vec![Kind::Gateway, Kind::MariaDb],
            every: Duration::from_secs(2),
            span: Duration::from_secs(30),
        };
        assert_eq!(plan, expected);
        for wrong in ["kill=cat", "every=0s", "for=long", "kill"] {
            assert!(wrong.parse::<ChaosPlan>().is_err(), "{wrong}");
        }
    }
}
