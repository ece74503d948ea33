//! The lab as a program: runs any two programs across a bad wire, or compares transports on it.

mod clock;
mod compare;
mod endpoint;
mod run;
mod session;
mod transport;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sluice_netlab::LabError;
use std::process::ExitCode;

/// Two hosts on this machine (network namespaces) and a bad wire between them.
///
/// Unlike the fault relay (sluice-relay) this loses, delays and disorders whole IP packets, so TCP
/// feels it too. Needs Linux, root, /dev/net/tun and the programs ip, unshare and nsenter. Leaves
/// nothing behind, however it ends.
#[derive(Debug, Parser)]
#[command(name = "sluice-netlab", version, after_long_help = LESSON)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures message latency over several transports through the same wire.
    Compare(compare::Arguments),
    /// Runs one program on each host, until the client's ends.
    Run(run::Arguments),
    /// One end of a comparison; started by `compare` on a host of its own.
    #[command(hide = true)]
    Endpoint(endpoint::Arguments),
}

const LESSON: &str = "\
Examples:
  The table of the README
    sluice-netlab compare
  Messages as sparse as in a chat, at a tenth lost, as JSON
    sluice-netlab compare --rate 3 --loss 10 --seconds 30 --seeds 5 --json
  What a message costs in CPU, the kernel's part included, at 5,000 a second each way
    sluice-netlab compare --loopback --rate 5000
  Any program across a slow and lossy line; the server's host is 192.0.2.2
    sluice-netlab run --faults loss=0.05,delay_ms=40,bandwidth_kbps=2000 \\
        --server 'python3 -m http.server 8000' --client 'curl -s http://192.0.2.2:8000/'

Exit status: 77 when no lab can be made here, as test runners take for \"skipped\".
";

/// What test runners take for "skipped".
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    match work(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            match error.downcast_ref() {
                Some(LabError::Unavailable { .. }) => ExitCode::from(SKIPPED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn work(arguments: Arguments) -> Result<()> {
    let on_all_cores = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    match arguments.command {
        Command::Compare(arguments) => on_all_cores()?.block_on(compare::run(arguments)),
        Command::Run(arguments) => on_all_cores()?.block_on(run::run(arguments)),
        Command::Endpoint(arguments) => {
            // One thread, as one connection needs: no transport gets more.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let outcome = runtime.block_on(endpoint::run(arguments));
            // Standard input is read on a thread that may never return.
            runtime.shutdown_background();
            outcome
        }
    }
}
