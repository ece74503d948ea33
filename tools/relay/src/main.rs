//! The relay as a program: reads its arguments, says where it listens, runs until told to stop.

use anyhow::{Context, Result};
use clap::Parser;
use sluice_relay::{FaultPlan, Relay};
use std::io::{self, Write};
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Relays TCP connections and does to them what bad networks do.
///
/// Clients connect to the relay instead of the server; it opens one connection to the server for
/// each of theirs, passes the bytes both ways, and delays, stalls or resets them as told. It never
/// looks into the bytes, so that raw TCP, WebSocket and HTTP pass alike.
#[derive(Debug, Parser)]
#[command(name = "sluice-relay", version, after_long_help = LESSON)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// The server to relay to, as HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    upstream: String,
    /// What goes wrong, as key=value,key=value (see below); nothing when left out.
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: FaultPlan,
    /// Decides every random choice, one schedule a connection number; random when left out.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

const LESSON: &str = "\
Faults (0 turns a key off):
  delay_ms=N         every chunk of bytes arrives N ms later, each way
  jitter_ms=N        and up to N ms later still, at random; order is kept
  reset_s=N          each connection is reset (RST to both sides) after a random life, mean N s
  stall_s=N          each connection now and then, mean N s between, passes nothing for 0.5-3 s
  blackout_s=N       now and then, mean N s between, all connections pass nothing for 1-3 s, and
                     new ones are reset as soon as they are accepted
  cut_after_bytes=N  each connection is reset once N bytes have gone to the server: a cut in the
                     middle of a frame, where you want it
loss, dup, reorder, corrupt and rebind_s are for datagrams, which this relay doesn't carry: it
refuses to start with them.

Output: the first line on standard output is JSON, {\"listen\":\"127.0.0.1:40213\",\"seed\":7}. Ctrl-C
or SIGTERM ends the relay and its connections; counts then go to standard error. RUST_LOG=debug
tells how each connection ended.

Examples:
  A mobile network: far away, uneven, dead for a moment now and then
    sluice-relay --listen 127.0.0.1:9900 --upstream 127.0.0.1:8900 \\
                 --faults delay_ms=40,jitter_ms=20,stall_s=20
  The same accident again and again: each connection dies in its 1,000th byte
    sluice-relay --upstream 127.0.0.1:8902 --faults cut_after_bytes=1000 --seed 7
";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    // Before the first line is printed: whoever reads it may signal at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;

    let listen = resolve(&arguments.listen).await.context("--listen")?;
    let upstream = resolve(&arguments.upstream).await.context("--upstream")?;
    // Half the width, so that every JSON reader keeps it exact.
    let seed = arguments
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let relay = Relay::start(listen, upstream, arguments.faults, seed).await?;
    let mut stdout = io::stdout();
    writeln!(
        stdout,
        "{{\"listen\":\"{}\",\"seed\":{seed}}}",
        relay.local_addr()
    )?;
    stdout.flush()?;

    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    let stats = relay.shutdown().await;
    writeln!(io::stderr(), "{stats}")?;
    Ok(())
}

async fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(address)
        .await
        .with_context(|| format!("`{address}` is not a HOST:PORT that can be resolved"))?;
    found
        .next()
        .with_context(|| format!("`{address}` has no address"))
}
