//! Starts a gateway: listeners, loops, lanes, the way down, the directory, admin.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use sluice_bus::{Bus, BusError, Directory};
use sluice_codec::{Framing, datagram::ServerKeys};
use sluice_protocol::Incarnation;
use sluice_trace::Tracer;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    admin::Admin,
    bus_health::BusHealth,
    clock::Clock,
    config::{Config, ConfigError, TcpEncryption},
    datagram::{DatagramPort, DatagramSocket},
    downlink::Downlink,
    event_loop::EventLoop,
    lane::{LaneTasks, Lanes},
    listener::Listener,
    mailbox::Mailbox,
    metrics,
    pipeline::{Handler, Pipeline},
    registration::{Registration, Unbinder, unbind_all},
    session_check::SessionCheck,
    shared::{Shared, SharedParts},
    token::TokenVerifier,
};

/// What a gateway works with.
pub struct GatewayParts {
    /// Settings.
    pub config: Config,
    /// Public keys of login tokens.
    pub keys: TokenVerifier,
    /// For datagram sessions and encrypted TCP; without them there is neither.
    pub datagram_keys: Option<ServerKeys>,
    /// Where services are.
    pub bus: Arc<dyn Bus>,
    /// Who is connected where.
    pub directory: Arc<dyn Directory>,
    /// This life of this gateway, issued by the store and never used before.
    pub incarnation: Incarnation,
    /// Partitions of the conversation space: the same in every node.
    pub partitions: u16,
    /// What messages are followed by; the same as the services' in one process.
    pub tracer: Tracer,
    /// Ends the gateway at once; to end it well, [`Gateway::drain`] it.
    pub shutdown: CancellationToken,
}

/// A running gateway.
pub struct Gateway {
    addresses: BoundAddresses,
    /// Until it is taken.
    admin: Option<(TcpListener, axum::Router)>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) loops: Vec<Mailbox>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) tasks: Tasks,
    pub(crate) ready: Arc<AtomicBool>,
    /// Ends the gateway's tasks; a child of the caller's token.
    pub(crate) stop: CancellationToken,
    /// Dropping a gateway without draining it ends it at once.
    _stop_on_drop: DropGuard,
}

/// Where a gateway listens, ports resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BoundAddresses {
    /// TCP clients.
    pub tcp: Option<SocketAddr>,
    /// WebSocket clients.
    pub ws: Option<SocketAddr>,
    /// UDP clients.
    pub udp: Option<SocketAddr>,
    /// Admin HTTP.
    pub admin: Option<SocketAddr>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't be.
    #[error("[gateway]")]
    Config(#[from] ConfigError),
    /// An address can't be listened on.
    #[error("cannot listen on {address} for clients; choose another address")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// An event loop can't be set up.
    #[error("cannot set up an event loop")]
    Loop(#[source] io::Error),
    /// The down stream or the lease can't be had.
    #[error("the bus or the directory")]
    Bus(#[from] BusError),
}

/// The gateway's tokio tasks.
pub(crate) struct Tasks(JoinSet<()>);

// === impl Gateway ===

impl Gateway {
    /// Starts a gateway with the shipped pipeline. Returns when clients can log
    /// in. Call it within a tokio runtime, after [`crate::install_metrics`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(parts: GatewayParts) -> Result<Self, StartError> {
        Self::start_with(parts, Vec::new()).await
    }

    /// As [`Gateway::start`], with handlers of one's own in the pipeline
    /// ([`Pipeline::standard`] says where).
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_with(
        parts: GatewayParts,
        handlers: Vec<Arc<dyn Handler>>,
    ) -> Result<Self, StartError> {
        let recorder = metrics::install();
        let stop = parts.shutdown.child_token();
        let stop_on_drop = stop.clone().drop_guard();
        let config = &parts.config;
        config.check()?;
        let stream_keys = stream_keys(config, parts.datagram_keys.as_ref())?;
        let (addresses, ports, admin_listener) = listen(config, parts.datagram_keys).await?;
        let clock = Clock::start();
        let health = Arc::new(BusHealth::new(clock, config.timeouts.bus_ms));
        let mut tasks = JoinSet::new();
        let lanes = Lanes::open(
            &parts.bus,
            parts.partitions,
            &config.requests,
            LaneTasks {
                config: &config.lanes,
                clock,
                health: &health,
                tracer: &parts.tracer,
                shutdown: &stop,
                tasks: &mut tasks,
            },
        );
        let (unbinder, ended) = Unbinder::new(config.directory.unbind_queue_max);
        let shared = Arc::new(Shared::new(SharedParts {
            config: parts.config,
            clock,
            incarnation: parts.incarnation,
            lanes,
            verifier: parts.keys,
            unbinder,
            pipeline: Pipeline::standard(handlers),
            stream_keys,
            tracer: parts.tracer.clone(),
        }));
        let (event_loops, loops) = build_loops(&shared, ports).map_err(StartError::Loop)?;
        let registration = Registration {
            directory: Arc::clone(&parts.directory),
            incarnation: parts.incarnation,
            loops: loops.clone(),
            config: shared.config.directory.clone(),
            shutdown: stop.clone(),
        };
        registration.register().await?;
        let recheck = Arc::new(Notify::new());
        let session_check = SessionCheck {
            shared: Arc::clone(&shared),
            loops: loops.clone(),
            recheck: Arc::clone(&recheck),
            shutdown: stop.clone(),
        };
        let downlink = Downlink {
            bus: parts.bus,
            incarnation: parts.incarnation,
            loops: loops.clone(),
            recheck,
            health: Arc::clone(&health),
            tracer: parts.tracer,
            shutdown: stop.clone(),
        };
        let reader = downlink.own().await?;
        tasks.spawn(downlink.run(reader));
        tasks.spawn(registration.run());
        tasks.spawn(session_check.run());
        let directory = Arc::clone(&parts.directory);
        tasks.spawn(unbind_all(directory, ended, stop.clone()));
        let ready = Arc::new(AtomicBool::new(true));
        let admin = admin_listener.map(|listener| {
            let admin = Admin {
                loops: loops.clone().into(),
                ready: Arc::clone(&ready),
                health,
                token: shared.config.admin_token.as_str().into(),
                metrics: recorder,
            };
            (listener, admin.router())
        });
        let threads = run_loops(event_loops, &stop).map_err(StartError::Loop)?;
        // Not one of the tasks, which end when the gateway is dropped: it is what
        // ends the loops then.
        tokio::spawn(stop_loops(stop.clone(), loops.clone()));
        Ok(Self {
            addresses,
            admin,
            shared,
            directory: parts.directory,
            loops,
            threads,
            tasks: Tasks(tasks),
            ready,
            stop,
            _stop_on_drop: stop_on_drop,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// The admin HTTP and where it listens, once, for the binary to serve within
    /// its bounds, until the gateway has ended.
    pub fn take_admin(&mut self) -> Option<(TcpListener, axum::Router)> {
        self.admin.take()
    }

    /// False once it drains.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Resolves when the gateway has ended, by its shutdown token or because a
    /// loop has failed.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("incarnation", &self.shared.incarnation)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

// === impl Tasks ===

impl Tasks {
    /// Waits until all have ended.
    pub(crate) async fn join_next_all(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// What one loop listens on.
#[derive(Default)]
struct LoopPorts {
    listeners: Vec<Listener>,
    datagrams: Option<DatagramPort>,
}

/// For TCP clients that encrypt.
fn stream_keys(
    config: &Config,
    keys: Option<&ServerKeys>,
) -> Result<Option<ServerKeys>, ConfigError> {
    match config.tcp_encryption {
        TcpEncryption::Off => Ok(None),
        TcpEncryption::Optional => Ok(keys.cloned()),
        TcpEncryption::Required => {
            let keys = keys.ok_or(ConfigError("tcp_encryption = \"required\" needs keys"))?;
            Ok(Some(keys.clone()))
        }
    }
}

async fn listen(
    config: &Config,
    datagram_keys: Option<ServerKeys>,
) -> Result<(BoundAddresses, Vec<LoopPorts>, Option<TcpListener>), StartError> {
    let count = loop_count(config);
    let mut bound = BoundAddresses::default();
    let mut by_loop: Vec<LoopPorts> = (0..count).map(|_| LoopPorts::default()).collect();
    let transports = [
        (config.tcp_address, Framing::Tcp, &mut bound.tcp),
        (config.ws_address, Framing::WebSocket, &mut bound.ws),
    ];
    for (address, framing, resolved) in transports {
        let Some(address) = address else { continue };
        let (at, listeners) = Listener::bind_all(address, framing, count)
            .map_err(|source| StartError::Listen { address, source })?;
        *resolved = Some(at);
        for (own, listener) in by_loop.iter_mut().zip(listeners) {
            own.listeners.push(listener);
        }
    }
    if let (Some(address), Some(keys)) = (config.udp_address, datagram_keys) {
        let (at, sockets) = DatagramSocket::bind_all(address, count)
            .map_err(|source| StartError::Listen { address, source })?;
        bound.udp = Some(at);
        for ((own, socket), index) in by_loop.iter_mut().zip(sockets).zip(0..=u8::MAX) {
            own.datagrams = Some(DatagramPort::new(socket, keys.clone(), index));
        }
    }
    let Some(address) = config.admin_address else {
        return Ok((bound, by_loop, None));
    };
    let of_admin = |source| StartError::Listen { address, source };
    let admin = TcpListener::bind(address).await.map_err(of_admin)?;
    bound.admin = Some(admin.local_addr().map_err(of_admin)?);
    Ok((bound, by_loop, Some(admin)))
}

fn loop_count(config: &Config) -> u16 {
    match config.event_loops {
        0 => std::thread::available_parallelism()
            .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX)),
        count => count,
    }
}

fn build_loops(
    shared: &Arc<Shared>,
    ports: Vec<LoopPorts>,
) -> io::Result<(Vec<EventLoop>, Vec<Mailbox>)> {
    let mut event_loops = Vec::new();
    let mut mailboxes = Vec::new();
    for (ports, index) in ports.into_iter().zip(0..) {
        let LoopPorts {
            listeners,
            datagrams,
        } = ports;
        let shared = Arc::clone(shared);
        let (event_loop, mailbox) =
            EventLoop::new(index, shared, listeners, datagrams, rand::random())?;
        event_loops.push(event_loop);
        mailboxes.push(mailbox);
    }
    for event_loop in &mut event_loops {
        event_loop.join(&mailboxes);
    }
    Ok((event_loops, mailboxes))
}

fn run_loops(
    event_loops: Vec<EventLoop>,
    stop: &CancellationToken,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for (event_loop, index) in event_loops.into_iter().zip(0..) {
        let stop = stop.clone();
        let thread = std::thread::Builder::new().name(format!("sluice-loop-{index}"));
        threads.push(thread.spawn(move || {
            // A gateway that has lost a loop, by an error or a panic, is no gateway.
            let stop_when_lost = stop.drop_guard();
            match event_loop.run() {
                Ok(()) => drop(stop_when_lost.disarm()),
                Err(error) => tracing::error!(%error, index, "an event loop has failed"),
            }
        })?);
    }
    Ok(threads)
}

/// When the gateway is ended without a drain, its loops still end.
async fn stop_loops(stop: CancellationToken, loops: Vec<Mailbox>) {
    stop.cancelled().await;
    for mailbox in &loops {
        // A loop that has ended takes no more mail, and needs none.
        for _ in 0..100 {
            if mailbox.offer(crate::mailbox::Mail::Stop).is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}
