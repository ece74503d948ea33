//! `sluice bench chat`.

use std::process::ExitCode;

use sluice_load::{LoadTransport, Pace, WINDOW_MAX};
use tokio_util::sync::CancellationToken;

use super::{
    Output, Spans, System, body, check_connections, count, depth, even, finish, pace, transport,
    unless_stopped,
};
use crate::bench::{chat::chat, live::Live, load::Load};

/// Durable messages of pairs: rate and latency
///
/// Half of the connections chat with the other half, in private, both ways. At a
/// rate, the schedule is fixed ahead and latency counts from when a message was
/// due, whether or not there was room to send it; at `max`, each sends whenever
/// its window has room. Every ack and every arrival is counted; none may be
/// missing at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench chat --rate max\n  \
    sluice bench chat --rate 5000 --connections 10000 --duration 30 --json\n  \
    sluice bench chat --rate max --transport ws --depth 4")]
pub(super) struct Args {
    /// tcp, ws or udp
    #[arg(long, default_value = "tcp", value_parser = transport)]
    transport: LoadTransport,
    /// Connections; an even number
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    connections: usize,
    /// Messages a second in all, or max: as fast as acks come back
    #[arg(long, value_name = "R|max", default_value = "max", value_parser = pace)]
    rate: Pace,
    /// Messages that each connection may have unacked, if the server grants so many
    #[arg(long, value_name = "N", default_value_t = WINDOW_MAX, value_parser = depth)]
    depth: u32,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = body)]
    body: usize,
    #[command(flatten)]
    spans: Spans,
    #[command(flatten)]
    system: System,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    even(args.connections)?;
    let seconds = args.spans.warm_up + args.spans.duration;
    let live = Live::new(args.connections, seconds)?;
    let load = Load {
        transport: args.transport,
        connections: args.connections,
        depth: args.depth,
        body_bytes: args.body,
        warm_up: args.spans.warm_up(),
        duration: args.spans.duration(),
        server: args.system.server(),
    };
    check_connections(&load, args.system.gateways(), false)?;
    let work = chat(load, args.rate, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    finish(&args.output, &report, report.table(), &report.common)
}
