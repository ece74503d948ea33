//! `sluice bench`: a workload a file.

mod all;
mod chat;
mod fanout;
mod idle;
mod peers;
mod ping;
mod request;
mod storm;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::Subcommand;
use serde::Serialize;
use sluice_load::{BODY_MIN_BYTES, LoadTransport, Pace};
use sluice_protocol::limits::BODY_MAX_BYTES;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::{
        RunningServer, Server,
        load::{Load, open_files_max, streams_per_process},
        report::Common,
        worker::{self, EchoKind},
    },
    cli::{Stopped, WrongUse},
    cluster::Shape,
};

/// Measure what the gateway can do
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each workload starts a server process of its own, makes its users there, \
    and logs them in by tokens minted with the server's key, so that no password is hashed. The \
    load comes from another process, which goes before the server (nice -10) where it may: else it \
    would measure how long it queues for a core itself. Exit status 0 only when nothing was lost or refused.\n\n\
    Measure release builds, and run nothing beside."
)]
pub struct Args {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    Idle(idle::Args),
    Ping(ping::Args),
    Chat(chat::Args),
    Fanout(fanout::Args),
    Storm(storm::Args),
    Request(request::Args),
    Peers(peers::Args),
    All(all::Args),
    /// A generator's process: its job comes on standard input
    #[command(hide = true)]
    Worker,
    /// The bare server that is the floor
    #[command(hide = true)]
    Echo {
        /// The one core to run on
        #[arg(long)]
        core: Option<usize>,
        #[arg(long)]
        kind: EchoKind,
    },
}

/// What is measured.
#[derive(Debug, clap::Args)]
struct Subject {
    /// Measure a server that runs on this machine instead, by its HTTP address
    #[arg(long, value_name = "ADDR", requires = "data_dir")]
    server: Option<String>,
    /// That server's data folder: there are its key for tokens and its process id
    #[arg(long, value_name = "DIR", requires = "server")]
    data_dir: Option<PathBuf>,
}

/// What is measured, where that can be a cluster.
#[derive(Debug, clap::Args)]
struct System {
    #[command(flatten)]
    subject: Subject,
    /// Measure a cluster, started for the run: Redis, MariaDB and the roles as processes,
    /// such as "gateways=3,services=2[,redis=cluster][,mariadb=2]"
    #[arg(long, value_name = "SHAPE", conflicts_with = "server")]
    cluster: Option<Shape>,
}

/// What is done with the figures.
#[derive(Debug, clap::Args)]
struct Output {
    /// One JSON object on standard output at the end, instead of a table
    #[arg(long)]
    json: bool,
    /// Plots of latency by percentile and over time, and of the rate, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// How long.
#[derive(Debug, clap::Args)]
struct Spans {
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "10", value_parser = at_least_one)]
    duration: u64,
    /// Seconds of load before, which don't count
    #[arg(long, value_name = "S", default_value_t = 2)]
    warm_up: u64,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    match args.workload {
        Workload::Idle(args) => idle::run(args, shutdown).await,
        Workload::Ping(args) => ping::run(args, shutdown).await,
        Workload::Chat(args) => chat::run(args, shutdown).await,
        Workload::Fanout(args) => fanout::run(args, shutdown).await,
        Workload::Storm(args) => storm::run(args, shutdown).await,
        Workload::Request(args) => request::run(args, shutdown).await,
        Workload::Peers(args) => peers::run(args, shutdown).await,
        Workload::All(args) => all::run(args, shutdown).await,
        Workload::Worker => blocking(worker::run).await,
        Workload::Echo { core, kind } => blocking(move || worker::echo(core, kind)).await,
    }
}

/// What a workload comes to, unless somebody asks to stop before.
async fn unless_stopped<T>(
    shutdown: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        report = work => report,
        () = shutdown.cancelled() => Err(Stopped("the end").into()),
    }
}

async fn blocking(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(work).await??;
    Ok(ExitCode::SUCCESS)
}

/// Prints a report, and draws it; its errors are the command's failure.
fn finish(
    output: &Output,
    report: &impl Serialize,
    table: String,
    common: &Common,
) -> anyhow::Result<ExitCode> {
    print(output.json, report, table)?;
    if let Some(path) = &output.svg {
        common.plots.write(path, &common.title())?;
    }
    Ok(exit_code(common.errors))
}

fn print(json: bool, report: &impl Serialize, table: String) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match json {
        true => writeln!(stdout, "{}", serde_json::to_string(report)?)?,
        false => writeln!(stdout, "{table}")?,
    }
    Ok(())
}

fn exit_code(errors: u64) -> ExitCode {
    match errors {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

// === impl Subject ===

impl Subject {
    fn server(&self) -> Server {
        match (self.server.clone(), self.data_dir.clone()) {
            (Some(http), Some(data_dir)) => Server::Running(RunningServer { http, data_dir }),
            _ => Server::Start,
        }
    }
}

// === impl System ===

impl System {
    fn server(&self) -> Server {
        match self.cluster {
            Some(shape) => Server::Cluster(shape),
            None => self.subject.server(),
        }
    }

    fn gateways(&self) -> usize {
        self.cluster.map_or(1, |shape| shape.gateways)
    }
}

// === impl Spans ===

impl Spans {
    fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.duration)
    }
}

/// Their users and tokens are made before, at some hundred bytes each.
const SESSIONS_MAX: usize = 2_000_000;

/// Each connection over a stream is an open file of a gateway, and of a generator; a
/// generator that holds as many to a floor is but one.
fn check_connections(load: &Load, gateways: usize, has_floor: bool) -> Result<(), WrongUse> {
    let each = streams_per_process();
    let of_generators = if has_floor { each / 2 } else { usize::MAX };
    let (most, why) = match load.transport {
        LoadTransport::Udp => (SESSIONS_MAX, "more than a bench holds over UDP".to_owned()),
        LoadTransport::Tcp | LoadTransport::WebSocket => {
            let cure = match gateways {
                1 => "raise `ulimit -n`, or measure a cluster where that can be",
                _ => "raise `ulimit -n`, or ask for more gateways",
            };
            let why = format!(
                "more than the {} open files that a process may have allow ({cure})",
                open_files_max()
            );
            (of_generators.min(each.saturating_mul(gateways)), why)
        }
    };
    if load.connections <= most {
        return Ok(());
    }
    Err(WrongUse(format!(
        "{} connections are {why}; ask for {most} at most",
        load.connections
    )))
}

/// Connections that chat in pairs.
fn even(connections: usize) -> Result<(), WrongUse> {
    if connections.is_multiple_of(2) {
        return Ok(());
    }
    Err(WrongUse(format!(
        "--connections must be even, as they chat in pairs: {} for example",
        connections.saturating_add(1)
    )))
}

fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is asked for, at least 1".to_owned()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = at_least_one(text)?;
    usize::try_from(count).map_err(|error| error.to_string())
}

fn depth(text: &str) -> Result<u32, String> {
    let most = sluice_load::WINDOW_MAX;
    match at_least_one(text)? {
        depth if depth <= u64::from(most) => Ok(depth as u32),
        _ => Err(format!("it must be at most {most}")),
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    if text == "max" {
        return Ok(Pace::Window);
    }
    match text.parse::<f64>() {
        Ok(per_s) if per_s > 0.0 && per_s <= 10_000_000.0 => Ok(Pace::PerSecond(per_s)),
        _ => Err(
            "messages a second are asked for, above 0 and at most 10,000,000, or the word max"
                .to_owned(),
        ),
    }
}

fn body(text: &str) -> Result<usize, String> {
    let why = format!(
        "it must be from {BODY_MIN_BYTES}, which hold number and time, to {BODY_MAX_BYTES}"
    );
    match count(text).unwrap_or_default() {
        bytes @ BODY_MIN_BYTES..=BODY_MAX_BYTES => Ok(bytes),
        _ => Err(why),
    }
}

fn transport(name: &str) -> Result<LoadTransport, String> {
    match name {
        "udp" => Ok(LoadTransport::Udp),
        name => stream(name)
            .map_err(|_| format!("there is no transport {name:?}; there are tcp, ws and udp")),
    }
}

/// Those that are streams.
fn stream(name: &str) -> Result<LoadTransport, String> {
    match name {
        "tcp" => Ok(LoadTransport::Tcp),
        "ws" => Ok(LoadTransport::WebSocket),
        other => Err(format!(
            "this workload has no transport {other:?}; it has tcp and ws"
        )),
    }
}
