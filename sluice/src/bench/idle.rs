//! `sluice bench idle`: what an idle, logged-in connection costs.
//!
//! Streams are held by generator processes, as many as open files demand; datagram
//! sessions, of which there may be a million, by this one.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use sluice_load::{
    KernelMemory, LoadTransport, Login, Outcome, ProcessMemory, Swarm, SwarmOptions, Work,
    process_cpu_ms,
};
use tokio_util::sync::CancellationToken;

use super::{
    OPENING_MAX, PATIENCE,
    generator::{Findings, Generators},
    latencies::RecvLatencies,
    live::Live,
    load::Load,
    report::Common,
    subject::{NO_LIMITS, Part, Server, Subject, SubjectOptions},
};
use crate::cli::Stopped;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct IdleReport {
    /// What all reports have; it lasts while the connections are held.
    #[serde(flatten)]
    pub common: Common,
    /// Growth of the processes that clients are connected to (PSS), by the number of
    /// connections.
    pub process_bytes_per_connection: f64,
    /// Growth of the kernel's slabs by the number of sockets, of which each
    /// connection has two on this machine.
    pub kernel_bytes_per_connection: f64,
    /// Connections that were sent a message in the end, and got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed: Option<u64>,
    /// Of these messages.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub recv: Option<RecvLatencies>,
}

/// Memory at a moment.
struct Reading {
    /// Of each part of the system.
    parts_bytes: Vec<u64>,
    kernel_bytes: u64,
}

/// That datagram sessions come from.
const SOURCE_ADDRESSES: usize = 20_000;
/// Of the server that is measured. The store's page caches fill up to their bounds with what
/// logins touch, however many these are: small ones aren't taken for the sessions' own.
const SETTINGS: &str = "[store.sqlite]\nwriter_cache_mib = 4\nreader_cache_mib = 1\n";
/// The first connections of each process warm it up, so that what it sets up once isn't
/// counted.
const WARM_UP_CONNECTIONS: usize = 64;
/// And of few they are at most this part.
const WARM_UP_SHARE: usize = 4;
/// Messages to each in turn: slow enough for a cluster that shares its cores with all this.
const PUSHES_PER_S: f64 = 2_000.0;
const WARM_UP_REST: Duration = Duration::from_secs(1);

/// Measures idle connections, after they were held for the load's duration. In the end
/// each is sent a message, if that is wanted: then they are an even number of streams.
pub async fn idle(
    load: Load,
    push_each: bool,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<IdleReport> {
    live.doing("adding users");
    let settings = match load.server {
        Server::Cluster(_) => NO_LIMITS,
        Server::Start | Server::Running(_) | Server::Peer(_) => SETTINGS,
    };
    let subject = Subject::prepare(SubjectOptions {
        server: load.server.clone(),
        users: load.connections,
        settings,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    let holders = subject.parts.iter().filter(|it| it.holds_connections());
    let first = (WARM_UP_CONNECTIONS * holders.count()).min(load.connections / WARM_UP_SHARE);
    let (before, after, findings) = match load.transport {
        LoadTransport::Udp => hold_datagrams(&load, first, &subject, live, &shutdown).await?,
        LoadTransport::Tcp | LoadTransport::WebSocket => {
            let push_each_per_s = push_each.then_some(PUSHES_PER_S);
            let work = Work::Idle {
                first,
                push_each_per_s,
            };
            hold_streams(&load, &work, &subject, &mut live, &shutdown).await?
        }
    };
    let counted = (load.connections - first).max(1) as f64;
    let mut common = Common::new("idle", &load, &subject, &findings);
    // What was due and found no room is a connection that wasn't sent anything.
    common.errors += common.unsent;
    for (figures, bytes) in common.processes.iter_mut().zip(&after.parts_bytes) {
        figures.process_bytes = *bytes;
    }
    let growth = after.of_holders(&subject) - before.of_holders(&subject);
    let kernel_growth = after.kernel_bytes as f64 - before.kernel_bytes as f64;
    let report = IdleReport {
        common,
        process_bytes_per_connection: growth / counted,
        kernel_bytes_per_connection: kernel_growth / (2.0 * counted),
        pushed: push_each.then_some(findings.counts.received),
        recv: push_each.then(|| RecvLatencies::of(&findings.recv)),
    };
    if let Err(error) = subject.stop().await {
        // It tells a million sessions to go; what was measured stands.
        eprintln!("it was killed in the end: {error:#}");
    }
    Ok(report)
}

/// Readings with the first only and with all, and what came of it.
async fn hold_streams(
    load: &Load,
    work: &Work,
    subject: &Subject,
    live: &mut Live,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Reading, Reading, Findings)> {
    let jobs = load.jobs(subject, work)?;
    let mut generators = Generators::start(jobs, live, shutdown).await?;
    generators.ready().await?;
    tokio::time::sleep(WARM_UP_REST).await;
    let before = Reading::now(subject)?;
    generators.go().await?;
    generators.ready().await?;
    generators.doing("holding");
    generators.go().await?;
    generators.ready().await?;
    let after = Reading::now(subject)?;
    generators.doing("ending");
    generators.go().await?;
    let findings = generators.finish().await?;
    Ok((before, after, findings))
}

/// Likewise.
async fn hold_datagrams(
    load: &Load,
    first: usize,
    subject: &Subject,
    live: Live,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Reading, Reading, Findings)> {
    let pins = subject.pins().context("the server tells no pins")?;
    let addresses = subject.addresses(load.transport)?;
    let address = addresses.first().context("the server has no address")?;
    let options = SwarmOptions {
        address: *address,
        pins: pins.parse()?,
        addresses: SOURCE_ADDRESSES,
        opening_max: OPENING_MAX,
        patience: PATIENCE,
    };
    let holding = Holding {
        options,
        logins: subject.logins.clone(),
        first,
        hold: load.duration,
        parts: subject.parts.clone(),
    };
    let shutdown = shutdown.clone();
    tokio::task::spawn_blocking(move || holding.run(live, &shutdown)).await?
}

/// Datagram sessions to be held by a thread of this process.
struct Holding {
    options: SwarmOptions,
    logins: Vec<Login>,
    first: usize,
    hold: Duration,
    parts: Vec<Part>,
}

// === impl Holding ===

impl Holding {
    fn run(
        self,
        mut live: Live,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(Reading, Reading, Findings)> {
        let go_on = || !shutdown.is_cancelled();
        let (first, others) = self.logins.split_at(self.first.min(self.logins.len()));
        live.doing("logging in");
        // Held until the end: its going would be taken off the growth.
        let mut warm = Swarm::open(self.options.clone(), first, |_| go_on())?;
        warm.hold(WARM_UP_REST, go_on)?;
        let before = Reading::of(&self.parts)?;
        let mut swarm = Swarm::open(self.options.clone(), others, |held| {
            live.logged_in(first.len() + held);
            go_on()
        })?;
        live.doing("holding");
        let cpu_ms = || -> Vec<u64> {
            let parts = self.parts.iter();
            parts
                .map(|part| process_cpu_ms(part.pid).unwrap_or_default())
                .collect()
        };
        let (parts_ms, own_ms) = (cpu_ms(), process_cpu_ms(std::process::id())?);
        let started = Instant::now();
        let lost = swarm.hold(self.hold, go_on)?;
        let measured_s = started.elapsed().as_secs_f64();
        if !go_on() {
            return Err(Stopped("the end").into());
        }
        let used_s = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1_000.0;
        let parts_s = parts_ms.iter().zip(cpu_ms());
        let outcome = Outcome {
            measured_s,
            server_cpu_s: parts_s.map(|(then, now)| used_s(*then, now)).collect(),
            generator_cpu_s: used_s(own_ms, process_cpu_ms(std::process::id())?),
            ..Outcome::default()
        };
        let after = Reading::of(&self.parts)?;
        live.finish();
        let mut findings = Findings {
            outcomes: vec![outcome],
            ..Findings::default()
        };
        findings.counts.disconnects = lost as u64;
        Ok((before, after, findings))
    }
}

// === impl Reading ===

impl Reading {
    fn now(subject: &Subject) -> anyhow::Result<Self> {
        Self::of(&subject.parts)
    }

    fn of(parts: &[Part]) -> anyhow::Result<Self> {
        let bytes = |part: &Part| ProcessMemory::of(part.pid).map(|memory| memory.pss_bytes);
        Ok(Self {
            parts_bytes: parts.iter().map(bytes).collect::<Result<_, _>>()?,
            kernel_bytes: KernelMemory::now()?.slab_bytes,
        })
    }

    /// Of the processes that clients are connected to.
    fn of_holders(&self, subject: &Subject) -> f64 {
        let parts = subject.parts.iter().zip(&self.parts_bytes);
        let holders = parts.filter(|(part, _)| part.holds_connections());
        holders.map(|(_, bytes)| *bytes as f64).sum()
    }
}

// === impl IdleReport ===

impl IdleReport {
    /// For people.
    pub fn table(&self) -> String {
        let bytes = |bytes: f64| format!("{bytes:.0} bytes a connection");
        let kernel = format!("{:.0} bytes a socket", self.kernel_bytes_per_connection);
        let mut figures = vec![
            ("process memory", bytes(self.process_bytes_per_connection)),
            ("kernel memory", kernel),
        ];
        if let (Some(pushed), Some(recv)) = (self.pushed, self.recv) {
            figures.push(("pushed to", pushed.to_string()));
            figures.push(("push p50 / p99 / p99.9", recv.text()));
        }
        self.common.table(&figures)
    }
}
