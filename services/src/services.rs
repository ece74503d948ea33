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
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Snowflake, TokenSigner,
    consumer::{Work, consume},
    downlink::Downlink,
    http::{self, Api, Calls},
    message,
    node::Node,
    query::Queries,
    receipts::Receipts,
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
    tasks: TaskTracker,
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
            standings: Standings::new(config.standings_cached_max, config.standing_ttl_ms),
            store: parts.store,
            bus: parts.bus,
            directory: parts.directory,
            partitions: parts.partitions,
            worker: parts.worker,
            share: AtomicUsize::new(0),
            config,
        });
        let roles = node.config.roles;
        let calls = Arc::new(Calls::new(&node, parts.incarnation));
        let api = Api::new(node.clone(), parts.signer, calls.clone())
            .map_err(ServicesError::BadConfig)?;
        let answers = http::own_answers(&node, parts.incarnation).await?;

        let tasks = TaskTracker::new();
        let listening = http::listen(node.clone(), calls, answers, shutdown.clone());
        tasks.spawn(listening);
        if roles.message {
            tasks.spawn(message::own_share(node.clone(), shutdown.clone()));
            spawn_consumers(&tasks, &node, Queries, Stream::Query, &shutdown);
            spawn_consumers(&tasks, &node, Receipts, Stream::Ack, &shutdown);
        }
        if roles.user {
            spawn_consumers(&tasks, &node, Sessions, Stream::Session, &shutdown);
        }
        tasks.close();
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
    pub async fn stopped(self) {
        self.tasks.wait().await;
        self.node.downlink.stop().await;
    }
}

fn spawn_consumers<W: Work>(
    tasks: &TaskTracker,
    node: &Arc<Node>,
    work: W,
    stream: impl Fn(Partition) -> Stream,
    shutdown: &CancellationToken,
) {
    let work = Arc::new(work);
    for partition in (0..SHARED_PARTITIONS).map(Partition) {
        tasks.spawn(consume(
            node.clone(),
            work.clone(),
            stream(partition),
            shutdown.clone(),
        ));
    }
}
