//! `sluice bench peers`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use sluice_load::LoadTransport;
use tokio_util::sync::CancellationToken;

use super::{
    Spans, at_least_one, check_connections, count, depth, even, exit_code, print, unless_stopped,
};
use crate::bench::{
    Server,
    load::Load,
    peers::{Entrant, PeersOptions, peers},
};

/// Sluice beside mosquitto, NATS, JetStream and ejabberd
///
/// Starts a private server of each, one after the other, and puts the same load on it
/// from the same generator: idle connections, then pairs of users who chat as fast as
/// acks come back, then at half of that rate by a schedule fixed ahead. What an ack
/// promises differs, and the table says how.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tools/peers --markdown peers.md        (installs the Debian packages first)\n  \
    sluice bench peers --peers sluice,ejabberd --connections 1000 --depth 4\n  \
    sluice bench peers --idle-connections 15000 --json\n\n\
    A run ends when all that is under way has arrived. Each system is first asked with one message\n    under way a connection; so slow a one as syncs each by itself gets fewer than --depth.")]
pub(super) struct Args {
    /// Who takes part, in this order: sluice, mosquitto, nats, jetstream, ejabberd
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = entrant,
        default_value = "sluice,mosquitto,nats,jetstream,ejabberd")]
    peers: Vec<Entrant>,
    /// Connections that chat; an even number
    #[arg(long, value_name = "N", default_value = "200", value_parser = count)]
    connections: usize,
    /// Connections that are held idle
    #[arg(long, value_name = "N", default_value = "5000", value_parser = count)]
    idle_connections: usize,
    /// Seconds to hold them before memory is read
    #[arg(long, value_name = "S", default_value = "5", value_parser = at_least_one)]
    idle: u64,
    /// Messages that each connection may have unacked; fewer where a system wouldn't work
    /// them off in half of the run
    #[arg(long, value_name = "N", default_value = "32", value_parser = depth)]
    depth: u32,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = body)]
    body_bytes: usize,
    #[command(flatten)]
    spans: Spans,
    /// One JSON object on standard output at the end, instead of a table
    #[arg(long)]
    json: bool,
    /// The table into this file, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// In XMPP a body is text: number and time take twice the bytes.
const TEXT_BODY_MIN_BYTES: usize = 24;

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    even(args.connections)?;
    let load = Load {
        transport: LoadTransport::Tcp,
        connections: args.connections,
        depth: args.depth,
        body_bytes: args.body_bytes,
        warm_up: args.spans.warm_up(),
        duration: args.spans.duration(),
        server: Server::Start,
    };
    check_connections(&load, 1, false)?;
    let held = Load {
        connections: args.idle_connections,
        ..load.clone()
    };
    check_connections(&held, 1, false)?;
    let options = PeersOptions {
        entrants: args.peers,
        load,
        idle_connections: args.idle_connections,
        idle: Duration::from_secs(args.idle),
    };
    let work = peers(options, shutdown.clone());
    let report = unless_stopped(&shutdown, work).await?;
    if let Some(path) = &args.markdown {
        let written = std::fs::write(path, report.markdown());
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(args.json, &report, report.markdown())?;
    Ok(exit_code(report.errors))
}

fn entrant(name: &str) -> Result<Entrant, String> {
    let all = Entrant::ALL.into_iter();
    let found = all.clone().find(|entrant| entrant.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.map(Entrant::name).collect();
        format!("there is no {name:?} here; there are {}", names.join(", "))
    })
}

fn body(text: &str) -> Result<usize, String> {
    match super::body(text)? {
        bytes @ TEXT_BODY_MIN_BYTES.. => Ok(bytes),
        _ => Err(format!(
            "it must be at least {TEXT_BODY_MIN_BYTES}, which hold number and time as text"
        )),
    }
}
