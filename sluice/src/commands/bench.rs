//! `sluice bench`.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::{self, IdleOptions, IdleReport, IdleTransport},
    cli::Stopped,
};

/// Measure what connections cost
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    Idle(IdleArgs),
}

/// Memory of idle, logged-in connections
///
/// Starts a server process of its own with as many users, logs one device of
/// each in, holds the connections with their heartbeats and reads what memory
/// the server's process and the kernel have taken on for them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench idle --transport tcp --connections 15000 --json\n  \
    sluice bench idle --transport ws --connections 5000 --duration 30\n  \
    sluice bench idle --transport udp --connections 200000 --duration 60\n  \
    sluice bench idle --server 127.0.0.1:8080 --data-dir sluice-data --connections 100\n\n\
    A running server hashes a password for each user it adds: that takes a while.\n\
    Each TCP or WebSocket connection is an open file here and one in the server; `ulimit -n` bounds\n\
    both. UDP sessions share a few sockets, and come from 20,000 addresses of 127.0.0.0/8.\n\
    The server that is started has small page caches: they fill with what logins touch, and would\n\
    be taken for the connections' own.\n\
    The kernel's memory is the whole machine's: run nothing beside, and hold enough connections;\n\
    else it may even come out below zero.")]
struct IdleArgs {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: IdleTransport,
    /// Connections to hold
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    connections: usize,
    /// Seconds to hold them before memory is read
    #[arg(long, value_name = "S", default_value_t = 10)]
    duration: u64,
    /// Measure a server that runs on this machine instead, by its HTTP address
    #[arg(long, value_name = "ADDR", requires = "data_dir")]
    server: Option<String>,
    /// That server's data folder: there are its key for tokens and its process id
    #[arg(long, value_name = "DIR", requires = "server")]
    data_dir: Option<PathBuf>,
    /// One JSON object on standard output at the end, instead of text
    #[arg(long)]
    json: bool,
}

/// Open files that are no connections: logs, the store, the first crowd.
const FILES_ELSE: usize = 200;

/// Soft limit of this process, which the server that it starts inherits.
fn open_files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let Workload::Idle(args) = args.workload;
    let json = args.json;
    let report = idle(args, &shutdown).await?;
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(
            stdout,
            "{} idle {} connections: {:.0} bytes of process memory and {:.0} bytes of kernel \
             memory each; {} errors",
            report.connections,
            report.transport,
            report.process_bytes_per_connection,
            report.kernel_bytes_per_connection,
            report.errors
        )?;
    }
    Ok(if report.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn idle(args: IdleArgs, shutdown: &CancellationToken) -> anyhow::Result<IdleReport> {
    if args.connections == 0 {
        bail!("--connections must be at least 1");
    }
    if args.duration == 0 {
        bail!("--duration must be at least 1 second");
    }
    let files_max = open_files_max();
    let files = match args.transport {
        IdleTransport::Stream(_) => args.connections,
        IdleTransport::Datagram => 0,
    };
    if files.saturating_add(FILES_ELSE) > files_max {
        bail!(
            "{} connections need more open files than this process may have ({files_max}); \
             raise `ulimit -n`, or ask for {} at most",
            args.connections,
            files_max.saturating_sub(FILES_ELSE)
        );
    }
    let running = args.server.zip(args.data_dir);
    let server = running.map(|(http, data_dir)| bench::RunningServer { http, data_dir });
    let progress = ProgressBar::new(args.connections as u64);
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {elapsed}");
    progress.set_style(style.context("the progress bar's template")?);
    let options = IdleOptions {
        transport: args.transport,
        connections: args.connections,
        hold: Duration::from_secs(args.duration),
        server,
    };
    tokio::select! {
        report = bench::idle(options, progress, shutdown.clone()) => report,
        () = shutdown.cancelled() => Err(Stopped("the end").into()),
    }
}

fn transport(name: &str) -> Result<IdleTransport, String> {
    match name {
        "tcp" => Ok(IdleTransport::Stream(LoadTransport::Tcp)),
        "ws" => Ok(IdleTransport::Stream(LoadTransport::WebSocket)),
        "udp" => Ok(IdleTransport::Datagram),
        other => Err(format!(
            "there is no transport {other:?}; there are tcp, ws and udp"
        )),
    }
}
