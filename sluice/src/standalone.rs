//! Everything in one process: the bus and the directory in memory, the store in
//! a folder, gateway and services side by side.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Json, Router, routing::get};
use serde::Serialize;
use sluice_bus::{Bus, Directory, MemoryBus, MemoryDirectory, MemoryDirectoryConfig};
use sluice_gateway::{Gateway, TokenVerifier};
use sluice_services::{Parts, Services, TokenSigner};
use sluice_store::{SqliteStore, Store};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    http::{self, Bounds},
};

/// Name of the signing key's file in the data folder.
pub const TOKEN_KEY_FILE: &str = "token-key.pem";

/// A running system.
pub struct Standalone {
    /// Where it listens.
    pub addresses: Addresses,
    bus: Arc<dyn Bus>,
    gateway: Gateway,
    services: Services,
    http: JoinHandle<()>,
    shutdown: CancellationToken,
}

/// Where a system listens; also the answer of `GET /endpoints`.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// HTTP APIs.
    pub http: SocketAddr,
    /// Health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// TCP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<SocketAddr>,
    /// WebSocket clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<SocketAddr>,
}

/// For the last batches after the gateway has drained.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Standalone ===

impl Standalone {
    /// Opens the store, starts the services, then the gateway: clients get in
    /// when all behind it stands.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        make_private_folder(&config.data_dir).with_context(|| {
            format!(
                "cannot create the data folder {}",
                config.data_dir.display()
            )
        })?;
        let listener = TcpListener::bind(config.http_address)
            .await
            .with_context(|| {
                format!(
                    "cannot listen on {} for HTTP; choose another --http",
                    config.http_address
                )
            })?;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.data_dir, &config.store)?);
        store.open_layout(config.partitions).await?;
        let signer = open_signer(&config.data_dir)?;
        let bus: Arc<dyn Bus> = MemoryBus::new(config.bus);
        let directory: Arc<dyn Directory> = MemoryDirectory::new(MemoryDirectoryConfig::default());

        // Recorders of the other rooms look for it from here on.
        sluice_gateway::install_metrics();

        let shutdown = CancellationToken::new();
        let parts = Parts {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            directory: Arc::clone(&directory),
            signer: Arc::clone(&signer),
            partitions: config.partitions,
            worker: store.issue_worker_id().await?,
            incarnation: store.issue_incarnation().await?,
        };
        let services = Services::start(config.services, parts, shutdown.clone()).await?;
        let keys = TokenVerifier::from_pem([signer.public_key_pem()])?;
        let gateway = Gateway::start(
            config.gateway,
            keys,
            Arc::clone(&bus),
            directory,
            store.issue_incarnation().await?,
            config.partitions,
            shutdown.child_token(),
        )
        .await?;
        let bound = gateway.addresses();
        let addresses = Addresses {
            http: listener.local_addr()?,
            admin: bound.admin,
            tcp: bound.tcp,
            ws: bound.ws,
        };
        // Where the admin API is concerns no client.
        let answer = Addresses {
            admin: None,
            ..addresses.clone()
        };
        let router: Router = services
            .router()
            .route("/endpoints", get(move || async move { Json(answer) }));
        let stop = shutdown.clone();
        let http = tokio::spawn(http::serve(listener, router, Bounds::default(), stop));
        Ok(Self {
            addresses,
            bus,
            gateway,
            services,
            http,
            shutdown,
        })
    }

    /// The bus inside, for backends that run beside it.
    pub fn bus(&self) -> Arc<dyn Bus> {
        Arc::clone(&self.bus)
    }

    /// Lets clients go, stores what is under way, and ends.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.gateway.drain().await;
        self.shutdown.cancel();
        tokio::time::timeout(STOP_TIMEOUT, self.services.stopped())
            .await
            .context("the services did not stop in time")?;
        // Ends by itself, within a bound.
        let _ = self.http.await;
        Ok(())
    }
}

/// Everybody's messages are in there: for this user's eyes only.
fn make_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// The key that signs tokens, made at the first start.
pub fn open_signer(data_dir: &Path) -> anyhow::Result<Arc<TokenSigner>> {
    let path = data_dir.join(TOKEN_KEY_FILE);
    let signer = TokenSigner::open_or_create(&path)
        .with_context(|| format!("the token key {}", path.display()))?;
    Ok(Arc::new(signer))
}
