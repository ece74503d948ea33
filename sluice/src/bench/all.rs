//! `sluice bench all`: every workload, one after the other, held against its goal, as
//! one document.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use sluice_load::{LoadTransport, Pace};
use tokio_util::sync::CancellationToken;

use super::{
    Server,
    chat::{ChatReport, chat},
    fanout::fanout,
    idle::{IdleReport, idle},
    live::Live,
    load::Load,
    peer::Durability,
    peers::{Entrant, PeersOptions, PeersReport, peers},
    ping::ping,
    request::request,
    results::Results,
    storm::storm,
    wheel::wheel,
};
use crate::cluster::Shape;

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
const REQUESTS_PER_S: f64 = 2_000.0;

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

    // --- idle connections ---

    async fn idle(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.connections;
        for transport in [LoadTransport::Tcp, LoadTransport::WebSocket] {
            let name = transport.name();
            let what = format!("bytes of an idle connection by {name} in `sluice serve`");
            let load = self.load(transport, connections);
            let command =
                format!("sluice bench idle --transport {name} --connections {connections}");
            if let Some(report) = self
                .hold(&what, load, command, &format!("idle-{name}"))
                .await?
            {
                let bytes = report.process_bytes_per_connection;
                let is_well = bytes <= 500.0 && report.common.errors == 0;
                self.results
                    .goal(what, "≤ 500", format!("{bytes:.0}"), is_well);
            }
        }
        let sessions = self.sizes.sessions;
        let what = format!("bytes of an idle UDP session, {sessions} from 20,000 addresses");
        let load = self.load(LoadTransport::Udp, sessions);
        let command = format!("sluice bench idle --transport udp --connections {sessions}");
        if let Some(report) = self.hold(&what, load, command, "idle-udp").await? {
            let bytes = report.process_bytes_per_connection;
            let is_well = bytes <= 500.0 && report.common.errors == 0;
            self.results
                .goal(what, "≤ 500", format!("{bytes:.0}"), is_well);
            let cores = report.common.server_cpu_s / report.common.duration_s;
            let what = "cores that their heartbeats take";
            self.results
                .goal(what, "< 1", format!("{cores:.2}"), cores < 1.0);
        }
        Ok(())
    }

    async fn hold(
        &mut self,
        what: &str,
        mut load: Load,
        command: String,
        name: &str,
    ) -> anyhow::Result<Option<IdleReport>> {
        eprintln!("== {what}");
        load.duration = self.sizes.idle;
        // Its neighbour sends each a message in the end, where there are gateways apart.
        let push_each = matches!(load.server, Server::Cluster(_));
        let live = self.live(&load)?;
        let report = Box::pin(idle(load, push_each, live, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(None);
        };
        let drawn = push_each.then_some((&report.common, self.folder.as_path(), name));
        if drawn.is_none() {
            self.results.errors += report.common.errors;
        }
        self.results
            .run(&capital(what), command, &report, report.table(), drawn)?;
        Ok(Some(report))
    }

    // --- one server ---

    async fn ping(&mut self) -> anyhow::Result<()> {
        for (depth, goal, bound) in [(1, "≥ 95 %", 0.95), (DEPTH, "≥ 70 %", 0.70)] {
            let what = format!("pings of the epoll floor's, {depth} under way");
            eprintln!("== {what}");
            let mut load = self.load(LoadTransport::Tcp, 100);
            load.depth = depth;
            load.body_bytes = 0;
            let live = self.live(&load)?;
            let report = Box::pin(ping(load, live, self.shutdown.clone())).await;
            let Some(report) = self.came(&what, report)? else {
                continue;
            };
            let seen = format!("{:.1} % ({:.0}/s)", report.ratio * 100.0, report.msgs_per_s);
            let command = format!("sluice bench ping --depth {depth}");
            let name = format!("ping-{depth}");
            let drawn = Some((&report.common, self.folder.as_path(), name.as_str()));
            self.results
                .run(&capital(&what), command, &report, report.table(), drawn)?;
            self.results.goal(what, goal, seen, report.ratio >= bound);
        }
        Ok(())
    }

    async fn chat(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.chatting;
        let load = self.load(LoadTransport::Tcp, connections);
        let what = "durable messages a second";
        let Some(max) = self
            .talk(what, load.clone(), Pace::Window, "chat-max")
            .await?
        else {
            return Ok(());
        };
        let seen = format!("{:.0}, {}", max.msgs_per_s, cores_of(&max));
        self.results.goal(
            what,
            "≥ 20,000, aim 40,000",
            seen,
            max.msgs_per_s >= 20_000.0,
        );
        let half = (max.msgs_per_s / 2.0).round();
        let what = format!("p99 of acks at half of that, {half:.0}/s");
        let Some(report) = self
            .talk(&what, load, Pace::PerSecond(half), "chat-half")
            .await?
        else {
            return Ok(());
        };
        let p99_ms = report.ack.ack_p99_ms;
        let seen = format!("{p99_ms:.1} ms (p50 {:.1} ms)", report.ack.ack_p50_ms);
        self.results.goal(what, "< 20 ms", seen, p99_ms < 20.0);
        Ok(())
    }

    async fn growth(&mut self) -> anyhow::Result<()> {
        let per_s = self.sizes.growth_per_s;
        let sizes = [self.sizes.chatting, self.sizes.connections];
        let mut seen = Vec::new();
        for connections in sizes {
            let what = format!("{per_s:.0} messages a second of {connections} connections");
            let load = self.load(LoadTransport::Tcp, connections);
            let name = format!("chat-of-{connections}");
            let Some(report) = self
                .talk(&what, load, Pace::PerSecond(per_s), &name)
                .await?
            else {
                return Ok(());
            };
            let sent = report.common.sent.max(1) as f64;
            let cpu_us = report.common.server_cpu_s * 1e6 / sent;
            seen.push((report.ack.ack_p99_ms, cpu_us));
        }
        if let [(few_ms, few_us), (many_ms, many_us)] = seen[..] {
            let [few, many] = sizes;
            let is_flat = |few: f64, many: f64| many <= few * 1.1;
            let what = format!("p99 of acks at {per_s:.0}/s, {few} → {many} connections");
            let text = format!("{few_ms:.1} → {many_ms:.1} ms");
            self.results
                .goal(what, "± 10 %", text, is_flat(few_ms, many_ms));
            let what = format!("CPU of a message at {per_s:.0}/s, {few} → {many} connections");
            let text = format!("{few_us:.0} → {many_us:.0} µs");
            self.results
                .goal(what, "± 10 %", text, is_flat(few_us, many_us));
        }
        Ok(())
    }

    async fn talk(
        &mut self,
        what: &str,
        load: Load,
        pace: Pace,
        name: &str,
    ) -> anyhow::Result<Option<ChatReport>> {
        eprintln!("== {what}");
        let rate = pace
            .per_s()
            .map_or("max".to_owned(), |per_s| format!("{per_s:.0}"));
        let cluster = match &load.server {
            Server::Cluster(_) => " --cluster gateways=1,services=1",
            Server::Start | Server::Running(_) | Server::Peer(_) => "",
        };
        let command = format!(
            "sluice bench chat --connections {} --depth {} --rate {rate}{cluster}",
            load.connections, load.depth
        );
        let live = self.live(&load)?;
        let report = Box::pin(chat(load, pace, live, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(None);
        };
        let drawn = Some((&report.common, self.folder.as_path(), name));
        self.results
            .run(&capital(what), command, &report, report.table(), drawn)?;
        Ok(Some(report))
    }

    async fn fanout(&mut self) -> anyhow::Result<()> {
        let members = self.sizes.members;
        for (depth, goal) in [(8, "≥ 70 %"), (1, "")] {
            let what = format!("fan-out to {members} of raw writes', {depth} under way");
            eprintln!("== {what}");
            let mut load = self.load(LoadTransport::Tcp, members);
            load.depth = depth;
            let live = self.live(&load)?;
            let report = Box::pin(fanout(load, Pace::Window, live, self.shutdown.clone())).await;
            let Some(report) = self.came(&what, report)? else {
                continue;
            };
            let per_s = report.deliveries_per_s;
            let seen = format!("{:.0} % ({per_s:.0}/s)", report.ratio * 100.0);
            let command = format!("sluice bench fanout --connections {members} --depth {depth}");
            let name = format!("fanout-{depth}");
            let drawn = Some((&report.common, self.folder.as_path(), name.as_str()));
            self.results
                .run(&capital(&what), command, &report, report.table(), drawn)?;
            match goal {
                "" => self.results.seen(what, seen),
                goal => self.results.goal(what, goal, seen, report.ratio >= 0.70),
            }
        }
        Ok(())
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

    async fn request(&mut self) -> anyhow::Result<()> {
        let what = format!("p99 of {REQUESTS_PER_S:.0} requests a second to a backend by Redis");
        eprintln!("== {what}");
        let load = self.load(LoadTransport::Tcp, self.sizes.chatting);
        let live = self.live(&load)?;
        let pace = Pace::PerSecond(REQUESTS_PER_S);
        let report = Box::pin(request(load, pace, live, self.shutdown.clone())).await;
        let Some(report) = self.came(&what, report)? else {
            return Ok(());
        };
        let command = format!("sluice bench request --rate {REQUESTS_PER_S:.0}");
        let drawn = Some((&report.common, self.folder.as_path(), "request"));
        self.results
            .run(&capital(&what), command, &report, report.table(), drawn)?;
        self.results
            .seen(what, format!("{:.1} ms", report.ack.ack_p99_ms));
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

    // --- clusters ---

    async fn cluster(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.connections;
        let what = "bytes of an idle TCP connection in `sluice gateway`";
        let mut load = self.load(LoadTransport::Tcp, connections);
        load.server = Server::Cluster(shape(1));
        let command = format!("sluice bench idle --cluster gateways=1 --connections {connections}");
        if let Some(report) = self.hold(what, load, command, "idle-gateway").await? {
            let bytes = report.process_bytes_per_connection;
            let is_well = bytes <= 250.0 && report.common.errors == 0;
            self.results
                .goal(what, "≤ 250", format!("{bytes:.0}"), is_well);
        }
        let what = "durable messages a second over a cluster";
        let mut load = self.load(LoadTransport::Tcp, self.sizes.chatting);
        load.server = Server::Cluster(shape(1));
        if let Some(report) = self.talk(what, load, Pace::Window, "chat-cluster").await? {
            let seen = format!("{:.0}, {}", report.msgs_per_s, cores_of(&report));
            let is_well = report.msgs_per_s >= 8_000.0 && report.common.errors == 0;
            self.results
                .goal(what, "≥ 8,000, aim 15,000", seen, is_well);
        }
        let Some((gateways, connections)) = self.sizes.spread else {
            return Ok(());
        };
        let what =
            format!("{connections} TCP connections over {gateways} gateways, each pushed to");
        let mut load = self.load(LoadTransport::Tcp, connections);
        load.server = Server::Cluster(shape(gateways));
        let command =
            format!("sluice bench idle --cluster gateways={gateways} --connections {connections}");
        if let Some(report) = self.hold(&what, load, command, "idle-cluster").await? {
            let (pushed, errors) = (report.pushed.unwrap_or_default(), report.common.errors);
            let seen = format!("{pushed} pushed to, {errors} errors");
            let is_well = pushed == connections as u64 && errors == 0;
            self.results.goal(what, "all, no error", seen, is_well);
        }
        Ok(())
    }

    // --- others ---

    async fn peers(&mut self) -> anyhow::Result<()> {
        let what = "other systems under the same load";
        eprintln!("== {what}");
        let mut load = self.load(LoadTransport::Tcp, self.sizes.peer_connections);
        load.depth = 32;
        let entrants = Entrant::ALL.into_iter().filter(|it| it.is_installed());
        let options = PeersOptions {
            entrants: entrants.collect(),
            load: load.clone(),
            idle_connections: self.sizes.connections.min(5_000),
            idle: self.sizes.idle.min(Duration::from_secs(5)),
        };
        let missing = Entrant::ALL.len() - options.entrants.len();
        if missing > 0 {
            let text = format!("{missing} are not installed: tools/peers --install-only");
            self.results.seen("systems left out", text);
        }
        let report = Box::pin(peers(options, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(());
        };
        self.results.errors += report.errors;
        let command = format!("tools/peers --connections {}", load.connections);
        self.results
            .run(&capital(what), command, &report, report.markdown(), None)?;
        let what = "Sluice's rate by that of the best peer whose acks are synced, too";
        if let Some((name, ratio)) = least_ratio(&report, &[Durability::Synced]) {
            self.results
                .goal(what, "≥ 3", format!("{ratio:.1} ({name})"), ratio >= 3.0);
        }
        let what = "the same of the best whose acks promise less";
        let less = [Durability::Written, Durability::Memory, Durability::None];
        if let Some((name, ratio)) = least_ratio(&report, &less) {
            self.results.seen(what, format!("{ratio:.2} ({name})"));
        }
        Ok(())
    }
}

fn shape(gateways: usize) -> Shape {
    Shape {
        gateways,
        services: 1,
        redis_cluster: false,
        mariadb: 1,
    }
}

/// Of Sluice's rate by that of the fastest peer with one of these durabilities.
fn least_ratio(report: &PeersReport, among: &[Durability]) -> Option<(&'static str, f64)> {
    let peers = report.systems.iter().filter(|it| it.system != "sluice");
    let alike = peers.filter(|it| among.contains(&it.durability));
    let ratios = alike.filter_map(|it| Some((it.system, it.sluice_ratio?)));
    ratios.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// CPU by role.
fn cores_of(report: &ChatReport) -> String {
    let common = &report.common;
    let mut by_role: Vec<(&str, f64)> = Vec::new();
    for process in &common.processes {
        match by_role.iter_mut().find(|(role, _)| *role == process.role) {
            Some((_, cpu_s)) => *cpu_s += process.cpu_s,
            None => by_role.push((process.role, process.cpu_s)),
        }
    }
    by_role.push(("generator", common.generator_cpu_s));
    let cores = by_role.iter().map(|(role, cpu_s)| {
        let cores = cpu_s / common.duration_s.max(f64::MIN_POSITIVE);
        format!("{role} {cores:.2}")
    });
    format!("cores: {}", cores.collect::<Vec<_>>().join(", "))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
