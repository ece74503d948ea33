//! `sluice demo`: replays a chat log through real sockets and judges the run by
//! what clients saw.

pub mod board;
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
use sluice_relay::{FaultPlan, Relay};

use crate::{endpoints::Addresses, server_process::ServerProcess};
use board::Board;
use plan::{Plan, PlanOptions};
use replay::Replay;
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
    /// Use the one whose HTTP API is here.
    At(String),
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

    let mut process = None;
    let (http, endpoint) = match options.server {
        Server::Start(program) => {
            let started = ServerProcess::start(&program, ServerProcess::folder()?).await?;
            let found = (
                started.addresses.http.clone(),
                started.addresses.endpoint()?,
            );
            process = Some(started);
            found
        }
        Server::At(http) => {
            let addresses = Addresses::of(&http).await?;
            (addresses.http.clone(), addresses.endpoint()?)
        }
        Server::Behind { http, endpoint } => (http, endpoint),
    };
    let (endpoint, relays) = behind_relays(endpoint, options.faults, seed).await?;

    let board = Arc::new(Board::new(Arc::clone(&plan))?);
    let progress = ProgressBar::new(0);
    if !options.progress {
        progress.set_draw_target(ProgressDrawTarget::hidden());
    }
    let replay = Replay {
        board: Arc::clone(&board),
        api: HttpApi::new(&http)?,
        endpoint,
        scratch: tempfile::Builder::new()
            .prefix("sluice-demo-state-")
            .tempdir()?,
        patience: options.patience,
        progress,
    };
    let outcome = replay.run().await?;
    let mut failures = outcome.failures;
    for relay in relays {
        relay.shutdown().await;
    }
    let mut server_rss_peak_mb = 0.0;
    if let Some(process) = process {
        server_rss_peak_mb = process.rss_peak_mb();
        failures.extend(process.stop().await.err().map(|error| format!("{error:#}")));
    }
    let findings = Findings {
        verdict: board.verdict(),
        counts: board.counts(),
        latencies: board.latencies(),
        duration_s: outcome.duration.as_secs_f64(),
        server_rss_peak_mb,
        failures,
    };
    Ok(Report::new(&plan, seed, findings))
}

/// Puts a relay before each transport where faults are asked for.
async fn behind_relays(
    endpoint: Endpoint,
    faults: FaultPlan,
    seed: u64,
) -> anyhow::Result<(Endpoint, Vec<Relay>)> {
    if faults.is_empty() {
        return Ok((endpoint, vec![]));
    }
    let mut relays = Vec::new();
    let mut relay = async |upstream: std::net::SocketAddr| {
        let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let relay = Relay::start(listen, upstream, faults.clone(), seed).await?;
        let address = relay.local_addr();
        relays.push(relay);
        anyhow::Ok(address)
    };
    let mut behind = Endpoint::default();
    if let Some(tcp) = endpoint.tcp {
        behind.tcp = Some(relay(tcp).await?);
    }
    if let Some(ws) = endpoint.ws {
        let upstream = ws.trim_start_matches("ws://").trim_end_matches('/').parse();
        let upstream = upstream.with_context(|| format!("{ws} names no address"))?;
        behind.ws = Some(format!("ws://{}/", relay(upstream).await?));
    }
    Ok((behind, relays))
}
