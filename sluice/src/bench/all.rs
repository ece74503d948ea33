//! `sluice bench all`: every workload, one after the other, held against its goal, as
//! one document.

mod held;
mod messages;
mod others;

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{Server, live::Live, load::Load, results::Results, storm::storm, wheel::wheel};

/// A part of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Memory of idle connections, by each transport.
    Idle,
    /// The event loop beside a bare epoll server.
    Ping,
    /// Durable messages: their highest rate, and latency at half of it.
    Chat,
    /// The same rate of few and of many connections.
    Growth,
    /// A group beside raw writes.
    Fanout,
    /// All come back at once.
    Storm,
    /// Requests to a backend.
    Request,
    /// The timing wheel.
    Wheel,
    /// Gateways and services as processes of their own.
    Cluster,
    /// Other systems.
    Peers,
}

/// What is asked for.
pub struct AllOptions {
    /// Small and short.
    pub quick: bool,
    /// Empty: all.
    pub only: Vec<Part>,
    /// For the document's plots.
    pub folder: PathBuf,
}

/// How much of each.
struct Sizes {
    /// Idle ones, and those of a storm and of the larger crowd.
    connections: usize,
    /// Over UDP.
    sessions: usize,
    /// Over a cluster's gateways, if there is one.
    spread: Option<(usize, usize)>,
    members: usize,
    chatting: usize,
    /// At which growth is looked at.
    growth_per_s: f64,
    peer_connections: usize,
    idle: Duration,
    warm_up: Duration,
    duration: Duration,
}

struct Course {
    sizes: Sizes,
    results: Results,
    folder: PathBuf,
    shutdown: CancellationToken,
}

const DEPTH: u32 = 16;
const BODY_BYTES: usize = 64;
/// Logins of a storm on their way at once.
const STORM_AT_ONCE: usize = 1_000;

/// Measures all of it, and goes on where a workload can't be run here.
pub async fn all(options: AllOptions, shutdown: CancellationToken) -> anyhow::Result<Results> {
    let mut course = Course {
        sizes: Sizes::of(options.quick),
        results: Results::begin(options.command(), options.quick),
        folder: options.folder,
        shutdown,
    };
    let all = Part::value_variants().iter();
    for part in all.filter(|part| options.only.is_empty() || options.only.contains(part)) {
        match part {
            Part::Idle => course.idle().await?,
            Part::Ping => course.ping().await?,
            Part::Chat => course.chat().await?,
            Part::Growth => course.growth().await?,
            Part::Fanout => course.fanout().await?,
            Part::Storm => course.storm().await?,
            Part::Request => course.request().await?,
            Part::Wheel => course.wheel().await?,
            Part::Cluster => course.cluster().await?,
            Part::Peers => course.peers().await?,
        }
    }
    Ok(course.results)
}

// === impl AllOptions ===

impl AllOptions {
    fn command(&self) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        let names = self.only.iter().filter_map(Part::to_possible_value);
        let names: Vec<String> = names.map(|it| it.get_name().to_owned()).collect();
        match names.is_empty() {
            true => format!("bench all{quick}"),
            false => format!("bench all{quick} --only {}", names.join(",")),
        }
    }
}

// === impl Sizes ===

impl Sizes {
    fn of(quick: bool) -> Self {
        match quick {
            true => Self {
                connections: 2_000,
                sessions: 5_000,
                spread: None,
                members: 500,
                chatting: 200,
                growth_per_s: 1_000.0,
                peer_connections: 50,
                idle: Duration::from_secs(2),
                warm_up: Duration::from_secs(1),
                duration: Duration::from_secs(2),
            },
            false => Self {
                connections: 15_000,
                sessions: 1_000_000,
                spread: Some((12, 200_000)),
                members: 5_000,
                chatting: 1_000,
                growth_per_s: 5_000.0,
                peer_connections: 200,
                idle: Duration::from_secs(10),
                warm_up: Duration::from_secs(2),
                duration: Duration::from_secs(10),
            },
        }
    }
}

// === impl Course ===

impl Course {
    fn load(&self, transport: LoadTransport, connections: usize) -> Load {
        Load {
            transport,
            connections,
            depth: DEPTH,
            body_bytes: BODY_BYTES,
            warm_up: self.sizes.warm_up,
            duration: self.sizes.duration,
            server: Server::Start,
        }
    }

    fn live(&self, load: &Load) -> anyhow::Result<Live> {
        Live::new(load.connections, (load.warm_up + load.duration).as_secs())
    }

    /// What came of a run; one that failed is told, and only a stop ends everything.
    fn came<T>(&mut self, what: &str, outcome: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match outcome {
            Ok(report) => Ok(Some(report)),
            Err(error) if self.shutdown.is_cancelled() => Err(error),
            Err(error) => {
                eprintln!("{what}: {error:#}");
                self.results.failed(what, &error);
                Ok(None)
            }
        }
    }

    async fn storm(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.connections;
        let what = format!("a storm of {connections}: the last back and synced");
        eprintln!("== {what}");
        let mut load = self.load(LoadTransport::Tcp, connections);
        load.duration = self.sizes.idle.min(Duration::from_secs(5));
        let live = self.live(&load)?;
        let report = Box::pin(storm(load, STORM_AT_ONCE, live, self.shutdown.clone())).await;
        let Some(report) = self.came(&what, report)? else {
            return Ok(());
        };
        let command = format!("sluice bench storm --connections {connections}");
        let drawn = Some((&report.common, self.folder.as_path(), "storm"));
        self.results
            .run(&capital(&what), command, &report, report.table(), drawn)?;
        let (back_s, errors) = (report.last_back_s, report.common.errors);
        let seen = format!("{back_s:.1} s, {errors} errors");
        self.results
            .goal(what, "≤ 5 s, no error", seen, back_s <= 5.0 && errors == 0);
        let growth = report.rss_after_mb / report.rss_before_mb.max(1.0) - 1.0;
        let seen = format!(
            "{:.1} → {:.1} MB (+ {:.1} %)",
            report.rss_before_mb,
            report.rss_after_mb,
            growth * 100.0
        );
        self.results.goal(
            "memory after the storm",
            "+ 10 % at most",
            seen,
            growth <= 0.10,
        );
        Ok(())
    }

    async fn wheel(&mut self) -> anyhow::Result<()> {
        eprintln!("== the timing wheel");
        let report = tokio::task::spawn_blocking(wheel).await?;
        let table = format!(
            "{} timers pending: schedule {:.1} ns, cancel {:.1} ns, fire {:.1} ns; an empty tick \
             {:.1} ns, {:.1} ns with nothing pending.",
            report.timers,
            report.schedule_ns,
            report.cancel_ns,
            report.fire_ns,
            report.empty_tick_ns,
            report.empty_tick_alone_ns
        );
        let command = "cargo bench -p sluice-benches --bench timer".to_owned();
        self.results
            .run("The timing wheel", command, &report, table, None)?;
        for (what, goal, ns, bound_ns) in [
            ("wheel: schedule", "≤ 20 ns", report.schedule_ns, 20.0),
            ("wheel: cancel", "≤ 10 ns", report.cancel_ns, 10.0),
            ("wheel: fire", "≤ 15 ns", report.fire_ns, 15.0),
        ] {
            self.results
                .goal(what, goal, format!("{ns:.1} ns"), ns <= bound_ns);
        }
        let (crowded, alone) = (report.empty_tick_ns, report.empty_tick_alone_ns);
        let seen = format!("{alone:.1} ns with none, {crowded:.1} ns with a million");
        let goal = "independent of population";
        self.results
            .goal("wheel: empty tick", goal, seen, crowded <= alone * 1.5);
        Ok(())
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
