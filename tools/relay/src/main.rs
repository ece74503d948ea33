//! The relay as a program: reads its arguments, says where it listens, runs until told to stop.

use anyhow::{Context, Result};
use clap::Parser;
use sluice_relay::{DatagramRelay, FaultPlan, Relay};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Relays TCP connections or UDP datagrams and does to them what bad networks do.
///
/// Clients talk to the relay instead of the server. For TCP it opens one connection to the server
/// for each of theirs, passes the bytes both ways, and delays, stalls or resets them as told. For
/// UDP (--udp) it stands there as a NAT does: each client's datagrams leave from a socket of its
/// own, and are delayed, lost, doubled, reordered or damaged as told. It never looks into the
/// bytes, so that raw TCP, WebSocket, HTTP and any datagram protocol pass alike.
#[derive(Debug, Parser)]
#[command(name = "sluice-relay", version, after_long_help = LESSON)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// The server to relay to, as HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    upstream: String,
    /// Carry UDP datagrams instead of TCP connections.
    #[arg(long)]
    udp: bool,
    /// What goes wrong, as key=value,key=value (see below); nothing when left out.
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: FaultPlan,
    /// Decides every random choice, one schedule a connection number; random when left out.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

const LESSON: &str = "\
Faults (0 turns a key off):
  delay_ms=N         every chunk of bytes or datagram arrives N ms later, each way
  jitter_ms=N        and up to N ms later still, at random; order is kept
  bandwidth_kbps=N   each way of each connection passes N x 1,000 bits a second
  stall_s=N          each connection now and then, mean N s between, passes nothing for 0.5-3 s;
                     it comes later, but datagrams past 256 KiB are lost
  blackout_s=N       now and then, mean N s between, for 1-3 s: all streams pass nothing and new
                     ones are reset as soon as they are accepted; all datagrams are lost
Only for TCP:
  reset_s=N          each connection is reset (RST to both sides) after a random life, mean N s
  cut_after_bytes=N  each connection is reset once N bytes have gone to the server: a cut in the
                     middle of a frame, where you want it
Only with --udp, shares from 0 to 1 of the datagrams, each way:
  loss=P             never arrive
  dup=P              arrive twice, the second up to 20 ms later
  reorder=P          are held back 1-50 ms longer, so that later ones overtake them
  corrupt=P          have one bit flipped
and
  rebind_s=N         each client now and then, mean N s between, comes from another port (every
                     other time from another address too, where the server is on 127.0.0.0/8);
                     answers to the old one vanish
  nat_idle_s=N       and so after N s without a datagram either way (300 when left out)
  mtu_bytes=N        datagrams with more than N bytes of payload never arrive
A key for the other kind is refused by name.

Output: the first line on standard output is JSON, {\"listen\":\"127.0.0.1:40213\",\"seed\":7}. Ctrl-C
or SIGTERM ends the relay and its connections; counts then go to standard error. RUST_LOG=debug
tells how each connection ended.

Examples:
  A mobile network: far away, uneven, dead for a moment now and then
    sluice-relay --listen 127.0.0.1:9900 --upstream 127.0.0.1:8900 \\
                 --faults delay_ms=40,jitter_ms=20,stall_s=20
  The same accident again and again: each connection dies in its 1,000th byte
    sluice-relay --upstream 127.0.0.1:8902 --faults cut_after_bytes=1000 --seed 7
  A phone on a train, on UDP
    sluice-relay --udp --upstream 127.0.0.1:8901 \\
                 --faults loss=0.2,delay_ms=40,jitter_ms=20,dup=0.05,reorder=0.1,rebind_s=5
";

/// Either relay, running.
enum Running {
    Streams(Relay),
    Datagrams(DatagramRelay),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader of standard error may have gone.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
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
    let relay = if arguments.udp {
        let relay = DatagramRelay::start(listen, upstream, arguments.faults, seed).await?;
        Running::Datagrams(relay)
    } else {
        Running::Streams(Relay::start(listen, upstream, arguments.faults, seed).await?)
    };
    let mut stdout = io::stdout();
    let listens = relay.local_addr();
    writeln!(stdout, "{{\"listen\":\"{listens}\",\"seed\":{seed}}}")?;
    stdout.flush()?;

    either(&mut interrupted, &mut terminated).await;
    let stats = relay.shutdown().await;
    writeln!(io::stderr(), "{stats}")?;
    Ok(())
}

async fn either(interrupted: &mut Signal, terminated: &mut Signal) {
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
}

async fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(address)
        .await
        .with_context(|| format!("`{address}` is not a HOST:PORT that can be resolved"))?;
    found
        .next()
        .with_context(|| format!("`{address}` has no address"))
}

// === impl Running ===

impl Running {
    fn local_addr(&self) -> SocketAddr {
        match self {
            Running::Streams(relay) => relay.local_addr(),
            Running::Datagrams(relay) => relay.local_addr(),
        }
    }

    async fn shutdown(self) -> Box<dyn Display> {
        match self {
            Running::Streams(relay) => Box::new(relay.shutdown().await),
            Running::Datagrams(relay) => Box::new(relay.shutdown().await),
        }
    }
}
