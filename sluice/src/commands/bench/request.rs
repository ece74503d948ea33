//! `sluice bench request`.

use std::process::ExitCode;

use sluice_load::{LoadTransport, Pace};
use tokio_util::sync::CancellationToken;

use super::{
    Output, Spans, body, check_connections, count, depth, finish, pace, transport, unless_stopped,
};
use crate::bench::{Server, live::Live, load::Load, request::request};

/// Requests to a backend behind Redis: rate and latency
///
/// Starts a private Redis, a server on it, and a backend that echoes. Each
/// connection asks with a key of its own. Latency counts as in `chat`: to the
/// answer, and to the request's arrival at the backend.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench request --rate max\n  \
    sluice bench request --rate 2000 --connections 5000 --json")]
pub(super) struct Args {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    connections: usize,
    /// Requests a second in all, or max: as fast as answers come back
    #[arg(long, value_name = "R|max", default_value = "max", value_parser = pace)]
    rate: Pace,
    /// Requests that each connection may have unanswered
    #[arg(long, value_name = "N", default_value = "4", value_parser = depth)]
    depth: u32,
    /// Bytes of a request, and of its answer
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = body)]
    body: usize,
    #[command(flatten)]
    spans: Spans,
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
        body_bytes: args.body,
        warm_up: args.spans.warm_up(),
        duration: args.spans.duration(),
        server: Server::Start,
    };
    check_connections(&load, 1, false)?;
    let work = request(load, args.rate, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    finish(&args.output, &report, report.table(), &report.common)
}
