//! Any two programs, one on each host.

use anyhow::{Context, Result, ensure};
use clap::Args;
use sluice_netlab::{Lab, Side};
use sluice_relay::FaultPlan;
use std::process::Stdio;
use tokio::signal::ctrl_c;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What goes wrong on the wire: loss, delay_ms, jitter_ms, dup, reorder, corrupt,
    /// bandwidth_kbps, mtu_bytes, as key=value,key=value; see sluice-relay --help
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: FaultPlan,
    /// Decides the fate of every packet
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Shell command for the host 192.0.2.2; killed once the client's has ended
    #[arg(long, value_name = "COMMAND")]
    server: Option<String>,
    /// Shell command for the host 192.0.2.1
    #[arg(long, value_name = "COMMAND")]
    client: String,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let lab = Lab::start(&arguments.faults, arguments.seed).await?;
    // Ends with the lab.
    let _server = match &arguments.server {
        Some(command) => {
            let mut shell = lab.command(Side::Server, "sh");
            let shell = shell.args(["-c", command]).stdin(Stdio::null());
            Some(shell.spawn().context("--server")?)
        }
        None => None,
    };
    let mut shell = lab.command(Side::Client, "sh");
    let client = shell.args(["-c", &arguments.client]).status();
    let status = tokio::select! {
        status = client => status.context("--client")?,
        _ = ctrl_c() => std::process::ExitStatus::default(),
    };
    let counts = lab.counts();
    lab.shutdown().await;
    eprintln!(
        "packets_up={} packets_down={} bytes_up={} bytes_down={} lost={} overflowed={}",
        counts.packets_up,
        counts.packets_down,
        counts.bytes_up,
        counts.bytes_down,
        counts.lost,
        counts.overflowed
    );
    ensure!(status.success(), "the client's command ended with {status}");
    Ok(())
}
