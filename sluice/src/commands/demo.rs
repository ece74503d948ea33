//! `sluice demo`.

use std::{io::Write, num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use sluice_client::Transport;
use sluice_relay::FaultPlan;
use tokio_util::sync::CancellationToken;

use crate::{
    chat::transport,
    cli::Stopped,
    cluster::Shape,
    demo::{self, DemoOptions, Server, chaos::ChaosPlan},
    server_process,
};

/// Replay real conversations through the whole system and check what clients saw
///
/// Starts the system (or uses --server), connects a device for everybody in a
/// chat log, lets them all talk at once, cuts some of them off and restarts
/// others, and in the end compares what every device was handed, and a fresh
/// device of everybody, with what was said. Exits 0 only when nothing was lost,
/// duplicated, reordered or corrupted and every send was acked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice demo\n  \
    sluice demo --data log.ndjson.gz --transports tcp,ws,udp --json\n  \
    sluice demo --cluster gateways=3,services=2\n  \
    sluice demo --limit 20 --faults delay_ms=40,jitter_ms=20,reset_s=10\n  \
    sluice demo --transports udp --faults loss=0.2,dup=0.05,reorder=0.1,rebind_s=5\n\n\
    Faults (what ends in _s comes so many seconds apart in the mean):\n  \
    all transports  delay_ms, jitter_ms, bandwidth_kbps, stall_s, blackout_s\n  \
    TCP, WebSocket  reset_s, cut_after_bytes\n  \
    UDP             loss, dup, reorder, corrupt (shares from 0 to 1), rebind_s (another\n  \
    \x20               address), nat_idle_s (likewise after so long a silence), mtu_bytes\n\n\
    A relay without delay is over in a second or two: seldom faults then don't come at all.")]
pub struct Args {
    /// Chat log: one {"conversation","sender","text"} a line, .gz or not [default: an excerpt that ships]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only the first N conversations of the log
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Spread over the devices: tcp, tcp+noise (encrypted), ws, udp, and auto for those
    /// that choose themselves; some devices go from one to the next while they talk
    #[arg(long, value_delimiter = ',', default_value = "tcp,ws", value_parser = transport)]
    transports: Vec<Transport>,
    /// Conversations replayed in groups of 3 to 500 [default: 5 % of them]
    #[arg(long, value_name = "N")]
    groups: Option<usize>,
    /// What a relay between clients and server does, such as
    /// "delay_ms=40,jitter_ms=20,reset_s=10,stall_s=20"; 0 turns a fault off; listed below
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: FaultPlan,
    /// Use a running server, by the address of its HTTP API
    #[arg(long, value_name = "ADDR")]
    server: Option<String>,
    /// That server's data folder, if it runs on this machine: there is its process
    /// id, and so its memory; without it, server_rss_peak_mb is 0
    #[arg(long, value_name = "DIR", requires = "server")]
    data_dir: Option<PathBuf>,
    /// Start a cluster for the run instead of one process: Redis, MariaDB and the
    /// roles, such as "gateways=3,services=2[,redis=cluster][,mariadb=2]"
    #[arg(long, value_name = "SHAPE", conflicts_with = "server")]
    cluster: Option<Shape>,
    /// Kill and restart (or pause past their leases) processes of the cluster
    /// under load, such as "kill=gateway,service,redis,mariadb every=5s for=120s"
    /// or "pause=service every=15s for=60s"
    #[arg(long, value_name = "CHAOS", requires = "cluster")]
    chaos: Option<ChaosPlan>,
    /// Every random choice follows it [default: random, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Without any progress for so many seconds, what is missing counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..))]
    patience_s: u64,
    /// One JSON object on standard output at the end, instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let options = DemoOptions {
        data: args.data,
        limit: args.limit.map_or(usize::MAX, NonZeroUsize::get),
        transports: args.transports,
        groups: args.groups,
        faults: args.faults,
        seed,
        server: match (args.server, args.cluster) {
            (Some(http), _) => Server::At {
                http,
                data_dir: args.data_dir,
            },
            (None, Some(shape)) => Server::Cluster {
                program: server_process::this_program()?,
                shape,
                chaos: args.chaos,
            },
            (None, None) => Server::Start(server_process::this_program()?),
        },
        patience: Duration::from_secs(args.patience_s),
        progress: true,
    };
    let report = tokio::select! {
        report = demo::run(options) => report?,
        () = shutdown.cancelled() => return Err(Stopped("the end").into()),
    };
    let mut stdout = std::io::stdout().lock();
    if args.json {
        for example in &report.examples {
            eprintln!("{example}");
        }
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(stdout, "{}", report.table())?;
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
