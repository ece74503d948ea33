//! `sluice bench peers`: Sluice and other systems, one after the other, under the same
//! load from the same generator.
//!
//! Each runs on a fresh server every time: idle connections; pairs that chat with one
//! message under way each, which tells how many may be; pairs that chat as fast as their
//! windows let them; and pairs that chat at half of that rate, by a schedule fixed ahead.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use sluice_load::Pace;
use tokio_util::sync::CancellationToken;

use super::{
    Server,
    chat::{ChatReport, chat},
    idle::idle,
    latencies::{AckLatencies, RecvLatencies},
    live::Live,
    load::Load,
    peer::{Durability, Peer},
    report::Machine,
};

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrant {
    /// `sluice serve`.
    Sluice,
    /// Another system.
    Peer(Peer),
}

/// What is asked for.
pub struct PeersOptions {
    /// Who takes part, in this order.
    pub entrants: Vec<Entrant>,
    /// Of the pairs; the server is each in turn.
    pub load: Load,
    /// Connections that are held.
    pub idle_connections: usize,
    /// For so long.
    pub idle: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct PeersReport {
    /// `peers`.
    pub workload: &'static str,
    /// Connections that chatted.
    pub connections: usize,
    /// Connections that were held.
    pub idle_connections: usize,
    /// Messages that each might have under way.
    pub depth: u32,
    /// Of each message.
    pub body_bytes: usize,
    /// Of each run with messages.
    pub duration_s: f64,
    /// Whatever was lost, refused or cut, anywhere.
    pub errors: u64,
    /// CPU of all servers, in all runs with messages.
    pub server_cpu_s: f64,
    /// CPU of the generators in these.
    pub generator_cpu_s: f64,
    /// A generator was what held some system back.
    pub generator_bound: bool,
    /// A system each.
    pub systems: Vec<SystemReport>,
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
}

/// What one system came to.
#[derive(Debug, Serialize)]
pub struct SystemReport {
    /// `sluice`, `mosquitto`, …
    pub system: &'static str,
    /// Its version.
    pub version: String,
    /// What an ack promises.
    pub durability: Durability,
    /// The same for people.
    pub ack_means: &'static str,
    /// Its configuration beside the defaults.
    pub settings: String,
    /// Growth of its process (PSS) by the number of idle connections.
    pub process_bytes_per_connection: f64,
    /// As fast as the windows let them: all messages of the run, by the time until the
    /// last was acked and received.
    pub msgs_per_s: f64,
    /// Messages that each connection had under way then.
    pub depth: u32,
    /// Sluice's rate by this one, where Sluice took part.
    pub sluice_ratio: Option<f64>,
    /// At that rate.
    pub max: RunReport,
    /// At half of that rate.
    pub half: HalfReport,
}

/// What one run with messages cost.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Cores that the server used.
    pub server_cores: f64,
    /// Cores that the generator used.
    pub generator_cores: f64,
    /// The generator was short of CPU or late.
    pub generator_bound: bool,
    /// Whatever was lost, refused or cut.
    pub errors: u64,
    /// The first thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The run at half of the highest rate.
#[derive(Debug, Clone, Serialize)]
pub struct HalfReport {
    /// What was asked for.
    pub rate_per_s: f64,
    /// Of acks, from when a message was due.
    #[serde(flatten)]
    pub ack: AckLatencies,
    /// Of arrivals, likewise.
    #[serde(flatten)]
    pub recv: RecvLatencies,
    /// What it cost.
    #[serde(flatten)]
    pub run: RunReport,
}

/// A rate is never asked for below this: the schedule needs some messages.
const RATE_MIN_PER_S: f64 = 10.0;

/// What is under way is worked off within half of a run, and so long at most: a generator
/// gives up what hasn't moved for twice as long.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);
/// With one message under way each.
const PROBE: Duration = Duration::from_secs(3);

/// What an ack of Sluice's means.
const SLUICE_ACK_MEANS: &str =
    "SendAck: committed by SQLite with both inboxes, its log synced (fdatasync) before";

/// Measures all of them.
pub async fn peers(
    options: PeersOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<PeersReport> {
    for entrant in &options.entrants {
        if let Some(package) = entrant.missing_package() {
            bail!(
                "{} needs the Debian package {package}: tools/peers installs it; or leave it out \
                 by --peers",
                entrant.name()
            );
        }
    }
    let mut systems: Vec<SystemReport> = Vec::new();
    let mut sums = Sums::default();
    for entrant in &options.entrants {
        let mut report = Box::pin(measure(*entrant, &options, &mut sums, &shutdown)).await?;
        let sluice = match systems.iter().find(|it| it.system == "sluice") {
            Some(sluice) => Some(sluice.msgs_per_s),
            None if *entrant == Entrant::Sluice => Some(report.msgs_per_s),
            None => None,
        };
        report.sluice_ratio = sluice.map(|it| it / report.msgs_per_s.max(1.0));
        systems.push(report);
    }
    Ok(PeersReport {
        workload: "peers",
        connections: options.load.connections,
        idle_connections: options.idle_connections,
        depth: options.load.depth,
        body_bytes: options.load.body_bytes,
        duration_s: options.load.duration.as_secs_f64(),
        errors: sums.errors,
        server_cpu_s: sums.server_cpu_s,
        generator_cpu_s: sums.generator_cpu_s,
        generator_bound: sums.is_generator_bound,
        systems,
        machine: Machine::this(""),
    })
}

/// Over all systems.
#[derive(Default)]
struct Sums {
    errors: u64,
    server_cpu_s: f64,
    generator_cpu_s: f64,
    is_generator_bound: bool,
}

/// One system's three runs.
async fn measure(
    entrant: Entrant,
    options: &PeersOptions,
    sums: &mut Sums,
    shutdown: &CancellationToken,
) -> anyhow::Result<SystemReport> {
    let load = Load {
        server: entrant.server(),
        ..options.load.clone()
    };
    let held = Load {
        connections: options.idle_connections,
        duration: options.idle,
        ..load.clone()
    };
    let name = entrant.name();
    eprintln!("{name}: {} idle connections", held.connections);
    let live = Live::new(held.connections, options.idle.as_secs())?;
    let idle = Box::pin(idle(held, false, live, shutdown.clone())).await?;
    sums.errors += idle.common.errors;
    eprintln!("{name}: with one message under way each");
    let singly = Load {
        depth: 1,
        warm_up: Duration::ZERO,
        duration: PROBE.min(load.duration),
        ..load.clone()
    };
    let singly = run(&singly, Pace::Window, sums, shutdown).await?;
    let depth = depth_for(&load, singly.whole_run_per_s);
    eprintln!("{name}: as fast as it can, at most {depth} messages under way each");
    let windows = Load {
        depth,
        ..load.clone()
    };
    let max = run(&windows, Pace::Window, sums, shutdown).await?;
    let msgs_per_s = max.whole_run_per_s;
    let rate_per_s = (msgs_per_s / 2.0).max(RATE_MIN_PER_S);
    eprintln!("{name}: at {rate_per_s:.0} messages a second, half of that");
    let half = run(&load, Pace::PerSecond(rate_per_s), sums, shutdown).await?;
    Ok(SystemReport {
        system: name,
        version: entrant.version(),
        durability: entrant.durability(),
        ack_means: entrant.ack_means(),
        settings: max.common.machine.settings.clone(),
        process_bytes_per_connection: idle.process_bytes_per_connection,
        msgs_per_s,
        depth,
        sluice_ratio: None,
        max: RunReport::of(&max),
        half: HalfReport {
            rate_per_s,
            ack: half.ack,
            recv: half.recv,
            run: RunReport::of(&half),
        },
    })
}

/// How many messages each connection has under way: as many as are asked for, unless a
/// system this fast with one each would need more than half of the run for them. Then
/// they would only queue, and few rounds would fit into the run.
fn depth_for(load: &Load, singly_per_s: f64) -> u32 {
    let in_a_part = singly_per_s * (load.duration / 2).min(UNDER_WAY_MAX).as_secs_f64();
    let each = in_a_part / load.connections.max(1) as f64;
    (each as u32).clamp(1, load.depth.max(1))
}

async fn run(
    load: &Load,
    pace: Pace,
    sums: &mut Sums,
    shutdown: &CancellationToken,
) -> anyhow::Result<ChatReport> {
    let seconds = (load.warm_up + load.duration).as_secs();
    let live = Live::new(load.connections, seconds)?;
    let report = Box::pin(chat(load.clone(), pace, live, shutdown.clone())).await?;
    sums.errors += report.common.errors;
    sums.server_cpu_s += report.common.server_cpu_s;
    sums.generator_cpu_s += report.common.generator_cpu_s;
    sums.is_generator_bound |= report.common.generator_bound;
    Ok(report)
}

// === impl Entrant ===

impl Entrant {
    /// All there are, Sluice first.
    pub const ALL: [Self; 5] = [
        Self::Sluice,
        Self::Peer(Peer::Mosquitto),
        Self::Peer(Peer::Nats),
        Self::Peer(Peer::JetStream),
        Self::Peer(Peer::Ejabberd),
    ];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether it can be measured here.
    pub fn is_installed(self) -> bool {
        self.missing_package().is_none()
    }

    fn version(self) -> String {
        match self {
            Self::Sluice => env!("CARGO_PKG_VERSION").to_owned(),
            Self::Peer(peer) => peer.version(),
        }
    }

    fn missing_package(self) -> Option<&'static str> {
        match self {
            Self::Sluice => None,
            Self::Peer(peer) => peer.missing_package(),
        }
    }

    fn server(self) -> Server {
        match self {
            Self::Sluice => Server::Start,
            Self::Peer(peer) => Server::Peer(peer),
        }
    }

    fn durability(self) -> Durability {
        match self {
            Self::Sluice => Durability::Synced,
            Self::Peer(peer) => peer.durability(),
        }
    }

    fn ack_means(self) -> &'static str {
        match self {
            Self::Sluice => SLUICE_ACK_MEANS,
            Self::Peer(peer) => peer.ack_means(),
        }
    }
}

// === impl RunReport ===

impl RunReport {
    fn of(report: &ChatReport) -> Self {
        let common = &report.common;
        let cores = |cpu_s: f64| cpu_s / common.duration_s.max(f64::MIN_POSITIVE);
        Self {
            server_cores: cores(common.server_cpu_s),
            generator_cores: cores(common.generator_cpu_s),
            generator_bound: common.generator_bound,
            errors: common.errors,
            trouble: common.trouble.clone(),
        }
    }

    /// Cores of the server and of the generator; a star where the generator was bound.
    fn text(&self) -> String {
        let star = if self.generator_bound { "*" } else { "" };
        format!(
            "{:.2} + {:.2}{star}",
            self.server_cores, self.generator_cores
        )
    }
}

// === impl PeersReport ===

impl PeersReport {
    /// The comparison in Markdown, which is for people, too.
    pub fn markdown(&self) -> String {
        let mut rows = vec![
            COLUMNS.map(str::to_owned),
            COLUMNS.map(|_| "---".to_owned()),
        ];
        rows.extend(self.systems.iter().map(SystemReport::row));
        let mut text = format!(
            "{} connections in pairs, at most {} messages under way each, {} bytes a message, \
             {:.0} s a run; {} idle connections. {} × {}, Linux {}, {} build.\n\n",
            self.connections,
            self.depth,
            self.body_bytes,
            self.duration_s,
            self.idle_connections,
            self.machine.cores,
            self.machine.cpu,
            self.machine.kernel,
            self.machine.build,
        );
        for row in rows {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text.push_str("\nWhat an ack means:\n\n");
        for system in &self.systems {
            text.push_str(&format!("- {}: {}\n", system.title(), system.ack_means));
        }
        text.push_str(
            "\n\"Synced\" survives the loss of power, \"written\" the server's being killed, \"memory\" \
             neither; \"none\" reaches only who is there. Highest rate: closed windows, all \
             messages of a run by the time until the last was acked and received. Latencies: at half of that rate, open loop, from when a message was due. CPU: \
             cores of the server + of the generator, on the same machine; * where the generator was \
             what held it back. Idle connections: Sluice's page caches are set to 4 and 1 MiB \
             then, so that what logins touch isn't taken for the connections'; the others run as \
             they do else.\n",
        );
        text
    }
}

const COLUMNS: [&str; 9] = [
    "system",
    "at the ack",
    "bytes an idle connection",
    "messages/s, highest (under way each)",
    "Sluice: times as many",
    "CPU then",
    "ack p50 / p99 / p99.9",
    "receive p50 / p99 / p99.9",
    "CPU then",
];

// === impl SystemReport ===

impl SystemReport {
    fn title(&self) -> String {
        format!("{} {}", self.system, self.version)
    }

    fn row(&self) -> [String; COLUMNS.len()] {
        let ratio = self.sluice_ratio.map(|it| match it {
            1.0.. => format!("{it:.1}×"),
            _ => format!("{it:.2}×"),
        });
        let errors = match self.max.errors + self.half.run.errors {
            0 => String::new(),
            errors => format!(" ({errors} errors)"),
        };
        [
            self.title(),
            self.durability.text().to_owned(),
            format!("{:.0}", self.process_bytes_per_connection),
            format!("{:.0} ({}){errors}", self.msgs_per_s, self.depth),
            ratio.unwrap_or_default(),
            self.max.text(),
            self.half.ack.text(),
            self.half.recv.text(),
            self.half.run.text(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use sluice_load::LoadTransport;

    use super::*;

    #[test]
    fn a_slow_system_has_fewer_messages_under_way() {
        let load = Load {
            transport: LoadTransport::Tcp,
            connections: 200,
            depth: 32,
            body_bytes: 64,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            server: Server::Start,
        };
        assert_eq!(depth_for(&load, 0.0), 1);
        assert_eq!(depth_for(&load, 400.0), 10);
        assert_eq!(depth_for(&load, 20_000.0), 32);
    }
}
