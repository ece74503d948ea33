//! `sluice bench idle`: what an idle, logged-in connection costs.

use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use sluice_load::{
    Crowd, CrowdOptions, KernelMemory, LoadError, LoadTransport, Login, ProcessMemory, Swarm,
    SwarmOptions,
};
use tokio_util::sync::CancellationToken;

use super::{
    OPENING_MAX, PATIENCE,
    load::Load,
    report::Machine,
    subject::{Subject, SubjectOptions},
};
use crate::cli::Stopped;

/// Where a server takes connections of a transport.
#[derive(Clone)]
enum Way {
    Stream(CrowdOptions),
    Datagram(SwarmOptions),
}

/// Those that are held.
enum Held {
    Crowd(Box<Crowd>),
    Swarm(Box<Swarm>),
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct IdleReport {
    /// `idle`.
    pub workload: &'static str,
    /// `tcp`, `ws` or `udp`.
    pub transport: &'static str,
    /// Connections held.
    pub connections: usize,
    /// How long they were held.
    pub duration_s: f64,
    /// CPU of the server's process while they were held.
    pub server_cpu_s: f64,
    /// CPU of this process while they were held.
    pub generator_cpu_s: f64,
    /// Whether this process was short of CPU, so that the figures are its own.
    pub generator_bound: bool,
    /// Connections lost while they were held.
    pub errors: usize,
    /// Growth of the server's proportional set size by the number of connections.
    pub process_bytes_per_connection: f64,
    /// Growth of the kernel's slabs by the number of sockets, of which each
    /// connection has two on this machine.
    pub kernel_bytes_per_connection: f64,
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
}

/// That datagram sessions come from.
const SOURCE_ADDRESSES: usize = 20_000;
/// Of the server that is measured. The store's page caches fill up to their bounds with what
/// logins touch, however many these are: small ones aren't taken for the sessions' own.
const SETTINGS: &str = "[store.sqlite]\nwriter_cache_mib = 4\nreader_cache_mib = 1\n";
/// Where no progress bar is drawn, a line tells how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// A first crowd warms the server up, so that what it sets up once isn't counted.
const WARM_UP_CONNECTIONS: usize = 64;

/// Measures idle connections, after they were held for the load's duration.
pub async fn idle(
    load: Load,
    progress: ProgressBar,
    shutdown: CancellationToken,
) -> anyhow::Result<IdleReport> {
    progress.set_message("adding users");
    let users = load.connections + WARM_UP_CONNECTIONS;
    let server = Subject::prepare(SubjectOptions {
        running: load.server.clone(),
        users,
        settings: SETTINGS,
        ..SubjectOptions::default()
    });
    let server = server.await?;
    let way = Way::of(&server, load.transport)?;
    let (pid, settings, logins) = (server.pid, server.settings.clone(), server.logins.clone());
    let measuring = tokio::task::spawn_blocking(move || {
        measure(
            way,
            &logins,
            load.duration,
            (pid, &settings),
            &progress,
            &shutdown,
        )
    });
    let report = measuring.await??;
    server.stop().await?;
    Ok(report)
}

fn measure(
    way: Way,
    logins: &[Login],
    hold: Duration,
    (server, settings): (u32, &str),
    progress: &ProgressBar,
    shutdown: &CancellationToken,
) -> anyhow::Result<IdleReport> {
    let (warm_up, logins) = logins.split_at(WARM_UP_CONNECTIONS.min(logins.len()));
    progress.set_message("logging in");
    let go_on = || !shutdown.is_cancelled();
    let mut told_at = Instant::now();
    let told = |held: usize| {
        progress.set_position(held as u64);
        if progress.is_hidden() && told_at.elapsed() > TOLD_EVERY {
            told_at = Instant::now();
            eprintln!("{held} of {} logged in", logins.len());
        }
        go_on()
    };
    // Held until the end: its going would be taken off the growth.
    let mut warm = way.open(warm_up, |_| go_on())?;
    warm.hold(Duration::from_secs(1), go_on)?;
    let (before, kernel_before) = (ProcessMemory::of(server)?, KernelMemory::now()?);
    let mut crowd = way.open(logins, told)?;
    progress.set_message("holding");
    let (server_start, own_start) = (
        ProcessMemory::of(server)?,
        ProcessMemory::of(std::process::id())?,
    );
    let started = Instant::now();
    let errors = crowd.hold(hold, go_on)?;
    let duration_s = started.elapsed().as_secs_f64();
    if !go_on() {
        return Err(Stopped("the end").into());
    }
    let (after, kernel_after) = (ProcessMemory::of(server)?, KernelMemory::now()?);
    let own_end = ProcessMemory::of(std::process::id())?;
    progress.finish_and_clear();
    let count = crowd.len().max(1) as f64;
    let growth = |before: u64, after: u64| after as f64 - before as f64;
    let generator_cpu_s = growth(own_start.cpu_ms, own_end.cpu_ms) / 1000.0;
    Ok(IdleReport {
        workload: "idle",
        transport: way.name(),
        connections: crowd.len(),
        duration_s,
        server_cpu_s: growth(server_start.cpu_ms, after.cpu_ms) / 1000.0,
        generator_cpu_s,
        generator_bound: generator_cpu_s > duration_s * 0.9,
        errors,
        process_bytes_per_connection: growth(before.pss_bytes, after.pss_bytes) / count,
        kernel_bytes_per_connection: growth(kernel_before.slab_bytes, kernel_after.slab_bytes)
            / (2.0 * count),
        machine: Machine::this(settings),
    })
}

// === impl Way ===

impl Way {
    fn of(server: &Subject, transport: LoadTransport) -> anyhow::Result<Self> {
        let address = server.address(transport)?;
        if transport != LoadTransport::Udp {
            return Ok(Self::Stream(CrowdOptions {
                address,
                transport,
                opening_max: OPENING_MAX,
                patience: PATIENCE,
            }));
        }
        let pins = server.addresses.pins.as_ref();
        let pins = pins.context("the server tells no pins")?;
        Ok(Self::Datagram(SwarmOptions {
            address,
            pins: pins.parse()?,
            addresses: SOURCE_ADDRESSES,
            opening_max: OPENING_MAX,
            patience: PATIENCE,
        }))
    }

    fn open(
        &self,
        logins: &[Login],
        progress: impl FnMut(usize) -> bool,
    ) -> Result<Held, LoadError> {
        match self {
            Self::Stream(options) => {
                Crowd::open(*options, logins, progress).map(|it| Held::Crowd(Box::new(it)))
            }
            Self::Datagram(options) => {
                Swarm::open(options.clone(), logins, progress).map(|it| Held::Swarm(Box::new(it)))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Stream(options) => options.transport.name(),
            Self::Datagram(_) => "udp",
        }
    }
}

// === impl Held ===

impl Held {
    fn hold(&mut self, span: Duration, go_on: impl FnMut() -> bool) -> Result<usize, LoadError> {
        match self {
            Self::Crowd(crowd) => crowd.hold(span, go_on),
            Self::Swarm(swarm) => swarm.hold(span, go_on),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Crowd(crowd) => crowd.len(),
            Self::Swarm(swarm) => swarm.len(),
        }
    }
}
