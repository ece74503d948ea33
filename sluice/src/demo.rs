//! `sluice demo`: replays a chat log through real sockets and judges the run by
//! what clients saw.

pub mod board;
pub mod chaos;
pub mod costs;
pub mod log;
pub mod oracle;
pub mod person;
pub mod plan;
pub mod replay;
pub mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget};
use sluice_client::{Endpoint, HttpApi, Transport};
use sluice_engines::GuardedFolder;
use sluice_relay::{Carries, FaultPlan, Relays};
use sluice_store::SqliteStore;
use tokio::sync::watch;

use crate::{
    cluster::{Cluster, Shape},
    endpoints::Addresses,
    server_process::{self, ServerProcess},
};
use board::Board;
use chaos::ChaosPlan;
use plan::{Plan, PlanOptions};
use replay::{Load, Replay};
use report::Findings;
pub use report::Report;

/// What a demo is asked to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The log; the excerpt that ships unless told.
    pub data: Option<PathBuf>,
    /// Conversations of the log.
    pub limit: usize,
    /// Spread over the devices.
    pub transports: Vec<Transport>,
    /// Strands replayed in groups; 5 % unless told.
    pub groups: Option<usize>,
    /// What the relay between clients and server does.
    pub faults: FaultPlan,
    /// Every random choice follows it.
    pub seed: u64,
    /// Where the system is.
    pub server: Server,
    /// Without any progress for this long, what is missing is lost.
    pub patience: Duration,
    /// Show a progress bar.
    pub progress: bool,
}

/// The system that is demonstrated.
#[derive(Debug, Clone)]
pub enum Server {
    /// Start `program serve` for the run.
    Start(PathBuf),
    /// Start a cluster of `program` for the run, and perhaps kill parts of it.
    Cluster {
        /// What to run as gateways and services.
        program: PathBuf,
        /// How many of what.
        shape: Shape,
        /// What is killed meanwhile.
        chaos: Option<ChaosPlan>,
    },
    /// Use one that runs.
    At {
        /// Its HTTP API.
        http: String,
        /// Its data folder, if that is on this machine: there is its process id,
        /// and by that its memory.
        data_dir: Option<PathBuf>,
    },
    /// As `At`, but clients connect to these addresses instead of those that
    /// the server names.
    Behind {
        /// The server's HTTP API.
        http: String,
        /// Where clients connect.
        endpoint: Endpoint,
    },
}

/// Runs a demo from log to report.
pub async fn run(options: DemoOptions) -> anyhow::Result<Report> {
    let log = log::read(options.data.as_deref(), options.limit)?;
    if let Some(asked) = options.groups.filter(|asked| *asked > log.len()) {
        tracing::warn!(
            "--groups {asked} is more than the log's {} strands: all of them are replayed in groups",
            log.len()
        );
    }
    // Two runs against one server must not meet, even with one seed.
    let run = format!("{:08x}", rand::random::<u32>());
    let (seed, transports, groups) = (options.seed, options.transports, options.groups);
    let used = transports.clone();
    let plan = Arc::new(Plan::new(
        &log,
        &PlanOptions {
            seed,
            run,
            transports,
            groups,
        },
    ));
    drop(log);
    if options.progress {
        // Here, where nothing that was asked for is wrong any more.
        eprintln!("seed {seed}");
    }

    let mut system = System::start(options.server).await?;
    let (endpoints, relays) =
        behind_relays(&system.endpoints, &used, &options.faults, seed).await?;

    let board = Arc::new(Board::new(Arc::clone(&plan))?);
    let progress = ProgressBar::new(0);
    if !options.progress {
        progress.set_draw_target(ProgressDrawTarget::hidden());
    }
    let (load, phase) = watch::channel(Load::Before);
    let replay = Replay {
        board: Arc::clone(&board),
        api: HttpApi::new(&system.http)?,
        endpoints,
        spread: system
            .chaos
            .as_ref()
            .map_or(Duration::ZERO, |chaos| chaos.span),
        load,
        scratch: GuardedFolder::new("sluice-demo-state-")?,
        patience: options.patience,
        progress,
    };
    let (mut chaos, mut costs) = (None, None);
    let outcome = match (&system.chaos, &mut system.cluster, &mut system.process) {
        (Some(plan), Some(cluster), _) => {
            let killing = chaos::run(plan, cluster, &board, phase, seed);
            let (outcome, figures) = tokio::try_join!(replay.run(), killing)?;
            chaos = Some(figures);
            outcome
        }
        (None, Some(cluster), _) => {
            let counting = costs::count(cluster, phase, plan.messages.len());
            let (outcome, counted) = tokio::try_join!(replay.run(), counting)?;
            costs = Some(counted);
            outcome
        }
        (_, None, Some(process)) => tokio::select! {
            outcome = replay.run() => outcome?,
            error = process.ended() => return Err(error),
        },
        (_, None, None) => replay.run().await?,
    };
    let mut failures = outcome.failures;
    relays.shutdown().await;
    let server_rss_peak_mb = system.rss_peak_mb();
    failures.extend(system.stop().await.err().map(|error| format!("{error:#}")));
    let findings = Findings {
        verdict: board.verdict(),
        counts: board.counts(),
        latencies: board.latencies(),
        duration_s: outcome.duration.as_secs_f64(),
        server_rss_peak_mb,
        failures,
        chaos,
        costs,
    };
    Ok(Report::new(&plan, seed, findings))
}

/// The system under demonstration, and what of it was started for the run.
struct System {
    http: String,
    endpoints: Vec<Endpoint>,
    process: Option<ServerProcess>,
    /// Of a server that was not started for the run.
    pid: Option<u32>,
    cluster: Option<Cluster>,
    chaos: Option<ChaosPlan>,
}

// === impl System ===

impl System {
    async fn start(server: Server) -> anyhow::Result<Self> {
        let mut system = Self {
            http: String::new(),
            endpoints: Vec::new(),
            process: None,
            pid: None,
            cluster: None,
            chaos: None,
        };
        match server {
            Server::Start(program) => {
                let started = ServerProcess::start(&program, ServerProcess::folder()?).await?;
                system.http = started.addresses.http.clone();
                system.endpoints = vec![started.addresses.endpoint()?];
                system.process = Some(started);
            }
            Server::Cluster {
                program,
                shape,
                chaos,
            } => {
                let cluster = Cluster::start(&program, shape).await?;
                system.http = cluster.http()?;
                system.endpoints = cluster.endpoints()?;
                system.cluster = Some(cluster);
                system.chaos = chaos;
            }
            Server::At { http, data_dir } => {
                if let Some(folder) = data_dir {
                    let pid = SqliteStore::holder(&folder).with_context(|| {
                        format!("no server keeps its data in {}", folder.display())
                    })?;
                    system.pid = Some(pid);
                }
                let addresses = Addresses::of(&http).await?;
                system.http = addresses.http.clone();
                system.endpoints = vec![addresses.endpoint()?];
            }
            Server::Behind { http, endpoint } => {
                system.http = http;
                system.endpoints = vec![endpoint];
            }
        }
        Ok(system)
    }

    fn rss_peak_mb(&self) -> f64 {
        let process = self.process.as_ref().map(ServerProcess::rss_peak_mb);
        let cluster = self.cluster.as_ref().map(Cluster::rss_peak_mb);
        let running = self.pid.map(server_process::rss_peak_mb);
        process.or(cluster).or(running).unwrap_or_default()
    }

    async fn stop(self) -> anyhow::Result<()> {
        if let Some(process) = self.process {
            process.stop().await?;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        Ok(())
    }
}

/// Puts a relay before each transport in use of each gateway where faults are asked for.
async fn behind_relays(
    endpoints: &[Endpoint],
    transports: &[Transport],
    faults: &FaultPlan,
    seed: u64,
) -> anyhow::Result<(Vec<Endpoint>, Relays)> {
    let mut relays = Relays::new(faults.clone(), seed);
    if faults.is_empty() {
        return Ok((endpoints.to_vec(), relays));
    }
    let uses = |one| {
        transports
            .iter()
            .any(|it| *it == one || *it == Transport::Auto)
    };
    let (uses_tcp, uses_sealed) = (uses(Transport::Tcp), uses(Transport::SealedTcp));
    let has_streams = uses_tcp || uses_sealed || uses(Transport::WebSocket);
    let unused = match (has_streams, uses(Transport::Udp)) {
        (true, true) => None,
        (true, false) => faults.foreign_to(Carries::Streams),
        (false, _) => faults.foreign_to(Carries::Datagrams),
    };
    if let Some(key) = unused {
        let other = if has_streams { "datagrams" } else { "streams" };
        anyhow::bail!("fault `{key}` is for {other}, and no transport here uses any");
    }
    let mut all = Vec::new();
    for endpoint in endpoints {
        let mut behind = Endpoint::default();
        if let Some(tcp) = endpoint.tcp.filter(|_| uses_tcp || uses_sealed) {
            behind.tcp = Some(relays.before_streams(tcp).await?);
        }
        if let Some(ws) = endpoint.ws.as_ref().filter(|_| uses(Transport::WebSocket)) {
            let upstream = ws.trim_start_matches("ws://").trim_end_matches('/').parse();
            let upstream = upstream.with_context(|| format!("{ws} names no address"))?;
            let relay = relays.before_streams(upstream).await?;
            behind.ws = Some(format!("ws://{relay}/"));
        }
        if let Some(udp) = endpoint.udp.filter(|_| uses(Transport::Udp)) {
            behind.udp = Some(relays.before_datagrams(udp).await?);
        }
        behind.pins = endpoint.pins.clone();
        all.push(behind);
    }
    Ok((all, relays))
}
