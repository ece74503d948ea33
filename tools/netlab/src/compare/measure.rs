//! One run: two hosts, a wire, two processes, and what they and the wire counted.

use crate::clock::now_us;
use crate::endpoint::Report;
use crate::session::Load;
use crate::transport::Transport;
use anyhow::{Context, Result, bail};
use sluice_netlab::{Lab, Side, WireCounts};
use sluice_relay::FaultPlan;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Nobody else is on a lab's host.
const PORT: u16 = 4000;
/// How long a handshake may take, at a fifth lost.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// For what follows a handshake or the last message: acknowledgements and the like.
const SETTLE: Duration = Duration::from_millis(500);
/// Both ends hear of the start before it comes.
const HEADSTART_US: u64 = 50_000;

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) transport: Transport,
    pub(crate) load: Load,
    pub(crate) network: Network,
    pub(crate) seed: u64,
    /// How long to wait for the last messages.
    pub(crate) grace: Duration,
}

/// What lies between the two ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    /// A lab's wire.
    Wire { loss: f64, delay_ms: u32 },
    /// The machine's loopback. There the kernel's work for a packet is charged to its sender, so
    /// that the CPU of both ends is all that a message costs.
    Loopback,
}

/// A network in use.
enum Ground {
    Wire(Box<Lab>),
    Loopback,
}

/// What was, in one run or several; both directions together.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// From when due to when received; sorted.
    pub(crate) latencies_us: Vec<u64>,
    pub(crate) missing: u32,
    pub(crate) repeated: u32,
    /// IP packets and their bytes, lost ones too, without the handshake.
    pub(crate) wire_packets: u64,
    pub(crate) wire_bytes: u64,
    /// What the two processes used.
    pub(crate) cpu_us: u64,
    /// What the wire used, and the kernel on its account: a packet is received in its name.
    pub(crate) wire_cpu_us: u64,
    /// From the start of the client to the answer to its first message.
    pub(crate) first_answer_us: Vec<u64>,
}

/// One end, as seen from here.
struct End {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

// === impl Run ===

impl Run {
    pub(crate) async fn measure(&self) -> Result<Measured> {
        let ground = match self.network {
            Network::Wire { loss, delay_ms } => {
                let plan = format!("loss={loss},delay_ms={delay_ms}");
                let plan: FaultPlan = plan.parse()?;
                Ground::Wire(Box::new(Lab::start(&plan, self.seed).await?))
            }
            Network::Loopback => Ground::Loopback,
        };
        let measured = self.measure_on(&ground).await;
        if let Ground::Wire(lab) = ground {
            lab.shutdown().await;
        }
        let (transport, network, seed) = (self.transport, self.network, self.seed);
        measured.with_context(|| format!("{transport} on {network:?}, seed {seed}"))
    }

    async fn measure_on(&self, ground: &Ground) -> Result<Measured> {
        let listen = ground.listen();
        let mut server = self.start(ground, Side::Server, ["--listen", &listen])?;
        let invitation = timeout(CONNECT_MAX, server.line("listening ")).await??;
        let began = Instant::now();
        let mut client = self.start(ground, Side::Client, ["--invitation", &invitation])?;
        timeout(CONNECT_MAX, client.line("connected"))
            .await
            .context("no connection")??;
        let first_answer_us = vec![began.elapsed().as_micros() as u64];
        timeout(CONNECT_MAX, server.line("connected")).await??;
        sleep(SETTLE).await;

        let before = ground.counts();
        let go = format!("go {}", now_us() + HEADSTART_US);
        server.tell(&go).await?;
        client.tell(&go).await?;
        let sending_s = f64::from(self.load.messages) / f64::from(self.load.per_second);
        let patience = Duration::from_secs_f64(sending_s) + self.grace;
        // Whoever isn't done by then reports what is missing.
        let done = async { tokio::try_join!(server.line("done"), client.line("done")) };
        if let Ok(done) = timeout(patience, done).await {
            done?;
        }
        sleep(SETTLE).await;
        let after = ground.counts();

        let mut measured = Measured {
            wire_packets: after.packets_up + after.packets_down
                - (before.packets_up + before.packets_down),
            wire_bytes: after.bytes_up + after.bytes_down - (before.bytes_up + before.bytes_down),
            wire_cpu_us: after.cpu_us - before.cpu_us,
            first_answer_us,
            ..Measured::default()
        };
        // Told before either ends: an end that closes early is an error to the other.
        server.tell("stop").await?;
        client.tell("stop").await?;
        for end in [server, client] {
            let report = end.report().await?;
            measured.latencies_us.extend(report.outcome.latencies_us);
            measured.missing += report.outcome.missing;
            measured.repeated += report.outcome.repeated;
            measured.cpu_us += report.cpu_us;
        }
        measured.latencies_us.sort_unstable();
        Ok(measured)
    }

    fn start(&self, ground: &Ground, side: Side, arguments: [&str; 2]) -> Result<End> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("this program's path isn't text")?;
        let mut command = ground.command(side, program);
        command
            .args(["endpoint", "--transport", &self.transport.to_string()])
            .args(["--messages", &self.load.messages.to_string()])
            .args(["--per-second", &self.load.per_second.to_string()])
            .args(["--message-bytes", &self.load.message_bytes.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (orders, lines) = (child.stdin.take(), child.stdout.take());
        Ok(End {
            orders: orders.context("no pipe")?,
            lines: BufReader::new(lines.context("no pipe")?).lines(),
            child,
        })
    }
}

// === impl Ground ===

impl Ground {
    fn command(&self, side: Side, program: &str) -> Command {
        match self {
            Ground::Wire(lab) => lab.command(side, program),
            Ground::Loopback => Command::new(program),
        }
    }

    fn listen(&self) -> String {
        match self {
            Ground::Wire(_) => format!("{}:{PORT}", Side::Server.address()),
            Ground::Loopback => "127.0.0.1:0".to_owned(),
        }
    }

    fn counts(&self) -> WireCounts {
        match self {
            Ground::Wire(lab) => lab.counts(),
            Ground::Loopback => WireCounts::default(),
        }
    }
}

// === impl Measured ===

impl Measured {
    /// Takes in another run.
    pub(crate) fn add(&mut self, run: Measured) {
        self.latencies_us.extend(run.latencies_us);
        self.latencies_us.sort_unstable();
        self.missing += run.missing;
        self.repeated += run.repeated;
        self.wire_packets += run.wire_packets;
        self.wire_bytes += run.wire_bytes;
        self.cpu_us += run.cpu_us;
        self.wire_cpu_us += run.wire_cpu_us;
        self.first_answer_us.extend(run.first_answer_us);
        self.first_answer_us.sort_unstable();
    }

    /// The latency that this share of the messages kept, in milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let rank = (last as f64 * share).ceil() as usize;
        self.latencies_us.get(rank).copied().unwrap_or_default() as f64 / 1000.0
    }

    /// So much of something a message.
    pub(crate) fn a_message(&self, total: u64) -> f64 {
        total as f64 / self.latencies_us.len().max(1) as f64
    }
}

// === impl End ===

impl End {
    /// Waits for a line that begins so; returns the rest of it. Others are left out.
    async fn line(&mut self, beginning: &str) -> Result<String> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.to_owned());
            }
        }
        bail!("one end died before it said `{}`", beginning.trim())
    }

    async fn tell(&mut self, order: &str) -> Result<()> {
        Ok(self
            .orders
            .write_all(format!("{order}\n").as_bytes())
            .await?)
    }

    async fn report(mut self) -> Result<Report> {
        let report = timeout(CONNECT_MAX, self.line("outcome ")).await??;
        self.child.wait().await?;
        Ok(serde_json::from_str(&report)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_latencies_is_taken_from_all_runs_together() {
        let mut all = Measured::default();
        for (from, to) in [(51, 100), (1, 50)] {
            all.add(Measured {
                latencies_us: (from..=to).map(|ms| ms * 1000).collect(),
                wire_bytes: 5000,
                ..Measured::default()
            });
        }
        let shares = [0.0, 0.5, 0.99, 1.0];
        assert_eq!(
            shares.map(|share| all.latency_ms(share)),
            [1.0, 51.0, 100.0, 100.0]
        );
        assert_eq!(all.a_message(all.wire_bytes), 100.0);
        assert_eq!(Measured::default().latency_ms(0.5), 0.0);
    }
}
