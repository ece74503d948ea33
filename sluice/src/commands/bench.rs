//! `sluice bench`.

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use crate::bench::{self, IdleOptions, IdleReport};

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
    sluice bench idle --transport ws --connections 5000 --duration 30\n\n\
    Each connection is an open file here and one in the server; `ulimit -n` bounds both.")]
struct IdleArgs {
    /// tcp or ws
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections to hold
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    connections: usize,
    /// Seconds to hold them before memory is read
    #[arg(long, value_name = "S", default_value_t = 10)]
    duration: u64,
    /// Measure a running server instead, by its process id; needs --address and --data-dir
    #[arg(long, value_name = "PID", requires_all = ["address", "data_dir"])]
    pid: Option<u32>,
    /// Where that server takes connections of the transport
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// That server's data folder, for the key that signs tokens
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// HTTP API of that server, to register the users
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    server: String,
    /// One JSON object on standard output at the end, instead of text
    #[arg(long)]
    json: bool,
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
    let server = match (args.pid, args.address, args.data_dir) {
        (Some(pid), Some(address), Some(data_dir)) => Some(bench::RunningServer {
            pid,
            address,
            data_dir,
            http: args.server,
        }),
        _ => None,
    };
    let progress = ProgressBar::new(args.connections as u64);
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {elapsed}");
    progress.set_style(style.context("the progress bar's template")?);
    bench::idle(
        IdleOptions {
            transport: args.transport,
            connections: args.connections,
            hold: Duration::from_secs(args.duration),
            server,
        },
        progress,
        shutdown.clone(),
    )
    .await
}

fn transport(name: &str) -> Result<LoadTransport, String> {
    match name {
        "tcp" => Ok(LoadTransport::Tcp),
        "ws" => Ok(LoadTransport::WebSocket),
        other => Err(format!(
            "there is no transport {other:?}; there are tcp and ws"
        )),
    }
}
