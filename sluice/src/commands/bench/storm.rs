//! `sluice bench storm`.

use std::{process::ExitCode, time::Duration};

use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{
    Output, System, at_least_one, check_connections, count, finish, transport, unless_stopped,
};
use crate::bench::{live::Live, load::Load, storm::storm};

/// All connections are cut at once, and all come back
///
/// Logs all in, cuts every connection with RST, and counts how long it takes until
/// all have logged in again (by their tokens) and pulled inbox and heads. The
/// server's memory is read before the cut, and after all are back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench storm --connections 15000\n  \
    sluice bench storm --connections 5000 --transport ws --json")]
pub(super) struct Args {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections
    #[arg(long, value_name = "N", default_value = "5000", value_parser = count)]
    connections: usize,
    /// Connections that are on their way to login at once
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    at_once: usize,
    /// Seconds of rest before the server's memory is read, before and after
    #[arg(long, value_name = "S", default_value = "3", value_parser = at_least_one)]
    duration: u64,
    #[command(flatten)]
    system: System,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let live = Live::new(args.connections, 2 * args.duration)?;
    let load = Load {
        transport: args.transport,
        connections: args.connections,
        depth: 1,
        body_bytes: 0,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(args.duration),
        server: args.system.server(),
    };
    check_connections(&load, args.system.gateways(), false)?;
    let work = storm(load, args.at_once, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    finish(&args.output, &report, report.table(), &report.common)
}
