//! `sluice bench fanout`.

use std::process::ExitCode;

use sluice_load::{LoadTransport, Pace};
use sluice_protocol::limits::GROUP_MEMBERS_MAX;
use tokio_util::sync::CancellationToken;

use super::{
    Output, Spans, System, body, check_connections, count, depth, finish, pace, stream,
    unless_stopped,
};
use crate::{
    bench::{fanout::fanout, live::Live, load::Load},
    cli::WrongUse,
};

/// One group, all members online: deliveries a second
///
/// One member sends, all others receive. At `max`, so many messages are under way
/// until everybody has them, and rounds of half a second alternate with a bare
/// epoll server that writes the same bytes to as many sockets. At a rate, latency
/// counts from when a message was due; the bare server's turn comes afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench fanout --connections 5000\n  \
    sluice bench fanout --connections 500 --rate 100 --json\n\n\
    The group is made in the store of the server that is started, where no bound holds; a server \
    that runs already makes groups of up to 500.")]
pub(super) struct Args {
    /// tcp or ws
    #[arg(long, default_value = "tcp", value_parser = stream)]
    transport: LoadTransport,
    /// Members; one of them sends
    #[arg(long, value_name = "N", default_value = "500", value_parser = count)]
    connections: usize,
    /// Messages a second, or max: as fast as they are delivered
    #[arg(long, value_name = "R|max", default_value = "max", value_parser = pace)]
    rate: Pace,
    /// Messages under way at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = depth)]
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
    check(&args)?;
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
    check_connections(&load, args.system.gateways(), true)?;
    let work = fanout(load, args.rate, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    finish(&args.output, &report, report.table(), &report.common)
}

fn check(args: &Args) -> Result<(), WrongUse> {
    if args.connections < 2 {
        let error = "--connections must be at least 2: one sends, the others receive";
        return Err(WrongUse(error.to_owned()));
    }
    if args.system.subject.server.is_some() && args.connections > GROUP_MEMBERS_MAX {
        return Err(WrongUse(format!(
            "a running server makes groups of up to {GROUP_MEMBERS_MAX}: ask for fewer \
             --connections, or leave --server out"
        )));
    }
    Ok(())
}
