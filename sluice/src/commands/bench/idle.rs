//! `sluice bench idle`.

use std::{process::ExitCode, time::Duration};

use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{
    System, at_least_one, check_connections, count, exit_code, print, transport, unless_stopped,
};
use crate::{
    bench::{idle::idle, live::Live, load::Load},
    cli::WrongUse,
};

/// Memory of idle, logged-in connections
///
/// Starts a server process of its own with as many users, logs one device of
/// each in, holds the connections with their heartbeats and reads what memory
/// the server's process and the kernel have taken on for them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench idle --transport tcp --connections 15000 --json\n  \
    sluice bench idle --transport ws --connections 5000 --duration 30 --push-each\n  \
    sluice bench idle --transport udp --connections 200000 --duration 60\n  \
    sluice bench idle --cluster gateways=12 --connections 200000 --duration 30\n  \
    sluice bench idle --server 127.0.0.1:8080 --data-dir sluice-data --connections 100\n\n\
    A running server hashes a password for each user it adds: that takes a while.\n\
    Each TCP or WebSocket connection is an open file of the server, or of one of the cluster's\n\
    gateways, and of one of the processes that hold them; `ulimit -n` bounds each process. UDP\n\
    sessions share a few sockets, and come from 20,000 addresses of 127.0.0.0/8.\n\
    The memory of a cluster's connections is that of its gateways; what each process of it took is\n\
    told beside.\n\
    The server that is started has small page caches: they fill with what logins touch, and would\n\
    be taken for the connections' own.\n\
    The first 64 connections of a process warm it up and don't count, or a quarter of few.\n\
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
    /// In the end each connection's user is sent a message, through the services and the
    /// store; it must arrive. Always so with --cluster
    #[arg(long)]
    push_each: bool,
    #[command(flatten)]
    system: System,
    /// One JSON object on standard output at the end, instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let live = Live::new(args.connections, args.duration)?;
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
    let push_each = args.push_each || args.system.cluster.is_some();
    check(&load, push_each)?;
    let work = idle(load, push_each, live, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    print(args.json, &report, report.table())?;
    Ok(exit_code(report.common.errors))
}

fn check(load: &Load, push_each: bool) -> Result<(), WrongUse> {
    if push_each && load.transport == LoadTransport::Udp {
        let error = "--push-each and --cluster hold connections by tcp or ws here";
        return Err(WrongUse(error.to_owned()));
    }
    if push_each && load.connections % 2 == 1 {
        return Err(WrongUse(format!(
            "--connections must be even where each is sent a message by its neighbour: {} for \
             example",
            load.connections.saturating_add(1)
        )));
    }
    Ok(())
}
