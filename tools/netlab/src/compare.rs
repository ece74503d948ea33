//! Measures transports side by side: the same messages through wires alike, one pair of hosts and
//! one pair of processes a run.

mod measure;
mod table;

use crate::session::Load;
use crate::transport::Transport;
use anyhow::{Result, ensure};
use clap::Args;
use measure::{Measured, Network, Run};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which transports
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = TRANSPORTS)]
    transports: Vec<Transport>,
    /// Loss in per cent of the packets, each way
    #[arg(long, value_name = "PERCENT", value_delimiter = ',',
        default_values_t = [0, 1, 5, 10, 20], value_parser = clap::value_parser!(u32).range(..=90))]
    loss: Vec<u32>,
    /// Delay each way
    #[arg(long, value_name = "MS", default_value_t = 40)]
    delay_ms: u32,
    /// Messages a second each way; each has its time, and its latency counts from there
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Size of a message
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    bytes: usize,
    /// How long messages are sent, in each run
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Runs of each transport at each loss, under the seeds 1, 2, …
    #[arg(long, value_name = "N", default_value_t = 5)]
    seeds: u64,
    /// How long to wait for the last messages; what comes later or never counts as that late
    #[arg(long, value_name = "S", default_value_t = 20)]
    grace_s: u64,
    /// One transport after the other, not all at the same time, each on hosts of its own: for rates
    /// that fill a core
    #[arg(long)]
    alone: bool,
    /// No wire: both ends on 127.0.0.1, for what a message costs in CPU, the kernel's part included
    #[arg(long, conflicts_with_all = ["loss", "delay_ms"])]
    loopback: bool,
    /// One JSON object on standard output instead of a table in Markdown
    #[arg(long)]
    json: bool,
}

const TRANSPORTS: [Transport; 5] = [
    Transport::Tcp,
    Transport::Kcp,
    Transport::Quic,
    Transport::Sluice,
    Transport::Unordered,
];

/// One transport at one loss: all its runs taken together.
#[derive(Debug)]
struct Cell {
    transport: Transport,
    loss_percent: u32,
    measured: Measured,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.seeds > 0, "no run without a seed");
    let load = Load {
        messages: arguments.rate * arguments.seconds,
        per_second: arguments.rate,
        message_bytes: arguments.bytes,
    };
    let mut cells = Vec::new();
    for loss_percent in arguments.losses() {
        let mut measured = BTreeMap::<Transport, Measured>::new();
        for seed in 1..=arguments.seeds {
            progress(&format!("{loss_percent} % lost, seed {seed}"));
            let runs = arguments.transports.iter().map(|&transport| Run {
                transport,
                load,
                network: arguments.network(loss_percent),
                seed,
                grace: Duration::from_secs(arguments.grace_s),
            });
            for (transport, run) in measure_all(runs, arguments.is_alone()).await? {
                measured.entry(transport).or_default().add(run);
            }
        }
        cells.extend(arguments.transports.iter().map(|transport| Cell {
            transport: *transport,
            loss_percent,
            measured: measured.remove(transport).unwrap_or_default(),
        }));
    }
    progress("");
    let text = if arguments.json {
        table::json(&cells, &arguments)?
    } else {
        table::markdown(&cells, &arguments)
    };
    writeln!(stdout(), "{text}")?;
    Ok(())
}

/// Each on hosts and a wire of its own, all at the same time or one after the other.
async fn measure_all(
    runs: impl Iterator<Item = Run>,
    is_alone: bool,
) -> Result<Vec<(Transport, Measured)>> {
    let (mut running, mut measured) = (JoinSet::new(), Vec::new());
    for run in runs {
        running.spawn(async move { anyhow::Ok((run.transport, run.measure().await?)) });
        while let Some(ended) = match is_alone {
            true => running.join_next().await,
            false => running.try_join_next(),
        } {
            measured.push(ended??);
        }
    }
    while let Some(ended) = running.join_next().await {
        measured.push(ended??);
    }
    Ok(measured)
}

// === impl Arguments ===

impl Arguments {
    fn network(&self, loss_percent: u32) -> Network {
        match self.loopback {
            true => Network::Loopback,
            false => Network::Wire {
                loss: f64::from(loss_percent) / 100.0,
                delay_ms: self.delay_ms,
            },
        }
    }

    fn is_alone(&self) -> bool {
        self.alone || self.loopback
    }

    fn losses(&self) -> Vec<u32> {
        match self.loopback {
            true => vec![0],
            false => self.loss.clone(),
        }
    }
}

fn progress(text: &str) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
