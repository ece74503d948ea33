//! Starts the chosen services on their ports and stops them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use sluice_bus::{Bus, BusError, Directory, Stream};
use sluice_protocol::{Incarnation, Partition, WorkerId, limits::SHARED_PARTITIONS};
use sluice_store::{Store, StoreError};
use sluice_trace::Tracer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Snowflake, TokenSigner,
    consumer::{Work, consume},
    down_reader::{self, DownReader},
    downlink::Downlink,
    http::{self, Api, Calls},
    message,
    node::Node,
    peers,
    query::Queries,
    receipts::Receipts,
    recent::RecentLogs,
    seats::Seats,
    session::Sessions,
    standing::Standings,
};

/// What the services work on; made by the binary.
pub struct Parts {
    /// What must survive.
    pub store: Arc<dyn Store>,
    /// Where gateways are met.
    pub bus: Arc<dyn Bus>,
    /// Who is connected where.
    pub directory: Arc<dyn Directory>,
    /// Signs the tokens.
    pub signer: Arc<TokenSigner>,
    /// Partitions of the conversation space, as `Store::open_layout` took them.
    pub partitions: u16,
    /// From `Store::issue_worker_id`: names this process in ids, leases and counters.
    pub worker: WorkerId,
    /// From `Store::issue_incarnation`: the HTTP API's own life; answers to its
    /// calls come to `down:{incarnation}`.
    pub incarnation: Incarnation,
    /// What messages are followed by; the same as the gateway's in one process.
    pub tracer: Tracer,
}

/// Why the services don't start.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A setting is out of its range.
    #[error("services: {0}")]
    BadConfig(String),
}

/// Running services. They stop by the token they were started with; then
/// [`Services::stopped`] waits for their last batches.
pub struct Services {
    router: Router,
    node: Arc<Node>,
    tasks: Vec<Named>,
}

/// A task, and what it is called where one asks why nothing ends.
struct Named {
    name: String,
    task: JoinHandle<()>,
}

// === impl Services ===

impl Services {
    /// Starts the roles of the config; returns when their tasks run.
    ///
    /// # Errors
    /// [`ServicesError`]: nothing runs.
    pub async fn start(
        config: Config,
        parts: Parts,
        shutdown: CancellationToken,
    ) -> Result<Self, ServicesError> {
        let newest = parts.store.newest_message_id().await?;
        let node = Arc::new(Node {
            downlink: Downlink::new(
                parts.bus.clone(),
                parts.worker,
                config.downlink_queue_max_batches,
                Duration::from_millis(config.downlink_retry_ms),
            ),
            snowflake: Snowflake::new(parts.worker, newest),
            standings: Standings::new(
                config.standings_cached_max,
                if config.caches {
                    config.standing_ttl_ms
                } else {
                    0
                },
            ),
            recent: RecentLogs::new(if config.caches {
                config.recent_cached_max_bytes
            } else {
                0
            }),
            lists: Seats::new(config.lists_per_user_max, lists_max(&config)),
            owners_store: parts.store.for_owners(),
            store: parts.store,
            bus: parts.bus,
            directory: parts.directory,
            partitions: parts.partitions,
            worker: parts.worker,
            incarnation: parts.incarnation,
            tracer: parts.tracer,
            share: AtomicUsize::new(0),
            config,
        });
        let roles = node.config.roles;
        let calls = Arc::new(Calls::new(&node));
        let resume_secret = parts.signer.resume_secret();
        let api = Api::new(node.clone(), parts.signer, calls.clone())
            .map_err(ServicesError::BadConfig)?;
        let down = down_reader::own(&node).await?;

        let reading = DownReader::new(node.clone(), calls).run(down, shutdown.clone());
        let announcing = peers::announce(node.clone(), shutdown.clone());
        let mut tasks = vec![
            Named::spawn("down", reading),
            Named::spawn("announcements", announcing),
        ];
        if roles.message {
            let owning = message::own_share(node.clone(), shutdown.clone());
            tasks.push(Named::spawn("owners", owning));
            tasks.extend(consumers(&node, Queries, Stream::Query, &shutdown));
            tasks.extend(consumers(&node, Receipts, Stream::Ack, &shutdown));
        }
        if roles.user {
            tasks.extend(consumers(
                &node,
                Sessions::new(resume_secret),
                Stream::Session,
                &shutdown,
            ));
        }
        Ok(Self {
            router: http::router(Arc::new(api), roles),
            node,
            tasks,
        })
    }

    /// The HTTP API of the roles that run here, for the binary to serve.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Partitions whose owner this node is, or is about to be.
    pub fn partitions(&self) -> usize {
        self.node.share.load(Ordering::Relaxed)
    }

    /// Waits until all work has ended after the shutdown token was cancelled.
    /// May be given up and asked again.
    pub async fn stopped(&mut self) {
        for Named { task, .. } in &mut self.tasks {
            if !task.is_finished() {
                // A panic in there has been reported.
                let _ = task.await;
            }
        }
        self.node.downlink.stop().await;
    }

    /// What still runs, by name.
    pub fn unfinished(&self) -> Vec<&str> {
        let running = self.tasks.iter().filter(|it| !it.task.is_finished());
        let mut names: Vec<_> = running.map(|it| it.name.as_str()).collect();
        if !self.node.downlink.is_idle() {
            names.push("downlink");
        }
        names
    }
}

// === impl Named ===

impl Named {
    fn spawn(name: &str, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name: name.to_owned(),
            task: tokio::spawn(task),
        }
    }
}

/// Lists that can be under way: in each of the streams' batches, and of HTTP.
fn lists_max(config: &Config) -> usize {
    config
        .shared_batch_max_entries
        .saturating_mul(SHARED_PARTITIONS.into())
        .saturating_add(config.http_reads_max)
}

fn consumers<W: Work>(
    node: &Arc<Node>,
    work: W,
    stream: impl Fn(Partition) -> Stream,
    shutdown: &CancellationToken,
) -> impl Iterator<Item = Named> {
    let work = Arc::new(work);
    let streams = (0..SHARED_PARTITIONS).map(move |partition| stream(Partition(partition)));
    streams.map(move |stream| {
        let name = stream.to_string();
        let consuming = consume(node.clone(), work.clone(), stream, shutdown.clone());
        Named::spawn(&name, consuming)
    })
}
