//! `sluice bench ping`.

use std::process::ExitCode;

use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{
    Output, Spans, Subject, check_connections, count, depth, finish, transport, unless_stopped,
};
use crate::bench::{live::Live, load::Load, ping::ping};

/// Pings answered a second, beside a bare epoll server's echoes
///
/// Every connection has so many pings under way. Rounds of a quarter of a second
/// alternate: the gateway's answers, then the same bytes echoed by a bare epoll
/// server, asked by the same generator. Where there are two cores, the servers
/// share one and the generator has the other; the gateway runs one event loop.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench ping --depth 1\n  \
    sluice bench ping --depth 16 --transport ws --json\n\n\
    A round trip is counted from when the ping was written; rates are medians over the rounds.\n\
    --duration is that of the rounds of both; the report tells how long each was measured.\n\
    Where it says bound by the generator, the ratio flatters the gateway: both wait for it.")]
pub(super) struct Args {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    connections: usize,
    /// Pings under way on each
    #[arg(long, value_name = "N", default_value = "1", value_parser = depth)]
    depth: u32,
    #[command(flatten)]
    spans: Spans,
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let seconds = args.spans.warm_up + args.spans.duration;
    let live = Live::new(args.connections, seconds)?;
    let load = Load {
        transport: args.transport,
        connections: args.connections,
        depth: args.depth,
        body_bytes: 0,
        warm_up: args.spans.warm_up(),
        duration: args.spans.duration(),
        server: args.subject.server(),
    };
    check_connections(&load, 1, true)?;
    let work = ping(load, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    finish(&args.output, &report, report.table(), &report.common)
}
