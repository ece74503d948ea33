//! `sluice bench idle`.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{
    Subject, at_least_one, check_connections, count, exit_code, print, transport, unless_stopped,
};
use crate::bench::{idle::idle, load::Load};

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
pub(super) struct Args {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections to hold
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    connections: usize,
    /// Seconds to hold them before memory is read
    #[arg(long, value_name = "S", default_value = "10", value_parser = at_least_one)]
    duration: u64,
    #[command(flatten)]
    subject: Subject,
    /// One JSON object on standard output at the end, instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    check_connections(args.transport, args.connections, 1)?;
    let progress = ProgressBar::new(args.connections as u64);
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {elapsed}");
    progress.set_style(style.context("the progress bar's template")?);
    let load = Load {
        transport: args.transport,
        connections: args.connections,
        depth: 1,
        body_bytes: 0,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(args.duration),
        server: args.subject.running(),
    };
    let work = idle(load, progress, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    let table = format!(
        "{} idle {} connections: {:.0} bytes of process memory and {:.0} bytes of kernel memory \
         each; {} errors",
        report.connections,
        report.transport,
        report.process_bytes_per_connection,
        report.kernel_bytes_per_connection,
        report.errors
    );
    print(args.json, &report, table)?;
    Ok(exit_code(report.errors as u64))
}
