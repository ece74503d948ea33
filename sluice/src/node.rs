//! A process of the system: a gateway, services, or both, on the engines that
//! the configuration names.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use axum::{Json, Router, routing::get};
use serde::Serialize;
use sluice_bus::{Bus, Directory};
use sluice_gateway::{BoundAddresses, Gateway, GatewayParts};
use sluice_services::{Parts, Roles, Services, TokenSigner};
use sluice_store::Store;
use sluice_trace::Tracer;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    allocator,
    config::{Config, GatewayEndpoint},
    datagram_keys, engines, http, metric_help, timelines,
    token_keys::{self, Absent},
};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything: a system of its own, or a node of a cluster that does both.
    All,
    /// Holds connections. Opens the store for its incarnation only.
    Gateway,
    /// Runs these services.
    Services(Roles),
}

/// A running process of the system.
pub struct Node {
    /// Where it listens.
    pub addresses: Addresses,
    bus: Arc<dyn Bus>,
    gateway: Option<Gateway>,
    services: Option<Services>,
    http: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

/// Where a process listens.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Addresses {
    /// HTTP APIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// TCP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<SocketAddr>,
    /// WebSocket clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<SocketAddr>,
    /// UDP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<SocketAddr>,
    /// What clients pin, of UDP and of encrypted TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pins: Option<String>,
}

/// The answer of `GET /endpoints`.
#[derive(Debug, Clone, Serialize)]
struct EndpointsAnswer {
    http: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ws: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pins: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gateways: Vec<GatewayEndpoint>,
}

/// What gateway and services are built on.
struct Ground {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    directory: Arc<dyn Directory>,
    tracer: Tracer,
    shutdown: CancellationToken,
}

/// For the last batches after the gateway has drained.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Role ===

impl Role {
    fn has_gateway(self) -> bool {
        matches!(self, Role::All | Role::Gateway)
    }

    /// The services that run, as far as the role says.
    fn services(self, config: &Config) -> Option<Roles> {
        match self {
            Role::All => Some(config.services.roles),
            Role::Services(roles) => Some(roles),
            Role::Gateway => None,
        }
    }

    fn http_address(self, config: &Config) -> SocketAddr {
        match self {
            Role::Services(only) if only.user && !only.message && !only.group => {
                config.roles.user_http_address
            }
            Role::Services(only) if !only.user => config.roles.message_http_address,
            _ => config.http_address,
        }
    }
}

// === impl Node ===

impl Node {
    /// Opens the engines, starts the services, then the gateway: clients get in
    /// when all behind it stands. `http` goes before the configured address.
    pub async fn start(
        role: Role,
        config: Config,
        http: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        if role != Role::All {
            engines::check_shared(&config)?;
        }
        // Ports first: one that is taken is told before anything is written.
        let roles = role.services(&config);
        let address = http.unwrap_or_else(|| role.http_address(&config));
        let listener = match roles {
            Some(_) => Some(listen(address, "HTTP").await?),
            None => None,
        };
        let admin = match role {
            Role::Services(_) => Some(listen(config.roles.service_admin_address, "admin").await?),
            _ => None,
        };
        // Recorders of the other rooms look for it from here on.
        let metrics = sluice_gateway::install_metrics();
        metric_help::describe();

        let signer = open_signer(role, &config)?;
        let (bus, directory) = engines::open_bus(&config.bus).await?;
        let partitions = config.partitions;
        let ground = Ground {
            store: engines::open_store(&config.store, &config.data_dir, partitions).await?,
            bus: Arc::clone(&bus),
            directory,
            tracer: Tracer::new(),
            shutdown: CancellationToken::new(),
        };
        tokio::spawn(sluice_gateway::keep_up_metrics(ground.shutdown.clone()));
        tokio::spawn(allocator::trim_when_calm(ground.shutdown.clone()));
        let mut services = None;
        if let (Some(roles), Some(signer)) = (roles, &signer) {
            services = Some(ground.start_services(&config, roles, signer).await?);
        }
        let mut gateway = None;
        if role.has_gateway() {
            gateway = Some(ground.start_gateway(&config, signer.as_deref()).await?);
        }

        let bound = gateway.as_ref().map(Gateway::addresses).unwrap_or_default();
        let mut addresses = Addresses {
            http: None,
            admin: bound.admin,
            tcp: bound.tcp,
            ws: bound.ws,
            udp: bound.udp,
            pins: None,
        };
        if datagram_keys::are_used(&config.gateway) && gateway.is_some() {
            let pins = datagram_keys::pins(&config)?;
            addresses.pins = pins.map(|pins| pins.to_string());
        }
        let mut tasks = Vec::new();
        if let Some((listener, router)) = gateway.as_mut().and_then(Gateway::take_admin) {
            let (bounds, stop) = (config.http.clone(), ground.shutdown.clone());
            let token = config.gateway.admin_token.as_str();
            let router = router.merge(timelines::router(ground.tracer.clone(), token));
            tasks.push(tokio::spawn(http::serve(listener, router, bounds, stop)));
        }
        if let (Some(listener), Some(services)) = (listener, &services) {
            let http = listener.local_addr()?;
            addresses.http = Some(http);
            let answer = EndpointsAnswer::new(http, bound, &config)?;
            let router: Router = services
                .router()
                .route("/endpoints", get(move || async move { Json(answer) }));
            let stop = ground.shutdown.clone();
            tasks.push(tokio::spawn(http::serve(
                listener,
                router,
                config.http.clone(),
                stop,
            )));
        }
        if let Some(listener) = admin {
            addresses.admin = Some(listener.local_addr()?);
            let admin = Admin {
                bus: Arc::clone(&bus),
                store: Arc::clone(&ground.store),
                token: config.services.admin_token.as_str().into(),
                metrics,
                tracer: ground.tracer.clone(),
            };
            tasks.push(tokio::spawn(admin.serve(
                listener,
                config.http.clone(),
                ground.shutdown.clone(),
            )));
        }
        Ok(Self {
            addresses,
            bus,
            gateway,
            services,
            http: tasks,
            shutdown: ground.shutdown,
        })
    }

    /// The bus inside, for backends that run beside it.
    pub fn bus(&self) -> Arc<dyn Bus> {
        Arc::clone(&self.bus)
    }

    /// Resolves when the gateway has failed; never without one.
    pub async fn failed(&self) {
        match &self.gateway {
            Some(gateway) => gateway.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Lets clients go, stores what is under way, and ends.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(gateway) = self.gateway {
            gateway.drain().await;
        }
        self.shutdown.cancel();
        if let Some(mut services) = self.services {
            let stopped = tokio::time::timeout(STOP_TIMEOUT, services.stopped()).await;
            if stopped.is_err() {
                let running = services.unfinished().join(", ");
                bail!("these parts of the services did not stop in time: {running}");
            }
        }
        for task in self.http {
            // Ends by itself, within a bound.
            let _ = task.await;
        }
        Ok(())
    }
}

// === impl Ground ===

impl Ground {
    async fn start_services(
        &self,
        config: &Config,
        roles: Roles,
        signer: &Arc<TokenSigner>,
    ) -> anyhow::Result<Services> {
        let mut settings = config.services.clone();
        settings.roles = roles;
        let parts = Parts {
            store: Arc::clone(&self.store),
            bus: Arc::clone(&self.bus),
            directory: Arc::clone(&self.directory),
            signer: Arc::clone(signer),
            partitions: config.partitions,
            worker: self.store.issue_worker_id().await?,
            incarnation: self.store.issue_incarnation().await?,
            tracer: self.tracer.clone(),
        };
        Ok(Services::start(settings, parts, self.shutdown.clone()).await?)
    }

    async fn start_gateway(
        &self,
        config: &Config,
        signer: Option<&TokenSigner>,
    ) -> anyhow::Result<Gateway> {
        let parts = GatewayParts {
            config: config.gateway.clone(),
            keys: token_keys::verifier(&config.tokens, signer)?,
            datagram_keys: datagram_keys::of_gateway(config)?,
            bus: Arc::clone(&self.bus),
            directory: Arc::clone(&self.directory),
            incarnation: self.store.issue_incarnation().await?,
            partitions: config.partitions,
            tracer: self.tracer.clone(),
            shutdown: self.shutdown.child_token(),
        };
        Ok(Gateway::start(parts).await?)
    }
}

// === impl EndpointsAnswer ===

impl EndpointsAnswer {
    /// Where the admin API is concerns no client.
    fn new(http: SocketAddr, bound: BoundAddresses, config: &Config) -> anyhow::Result<Self> {
        let told = &config.endpoints;
        let told_or_bound = |told: &str, bound: Option<SocketAddr>| match told {
            "" => bound.map(|address| address.to_string()),
            told => Some(told.to_owned()),
        };
        let pins = datagram_keys::pins(config)?;
        Ok(Self {
            http,
            tcp: told_or_bound(&told.tcp, bound.tcp),
            ws: told_or_bound(&told.ws, bound.ws),
            // Without pins nobody can connect there.
            udp: told_or_bound(&told.udp, bound.udp).filter(|_| pins.is_some()),
            pins: pins.map(|pins| pins.to_string()),
            gateways: told.gateways.clone(),
        })
    }
}

/// A node of a cluster must not make a key that the others don't have; a
/// gateway alone does with public keys.
fn open_signer(role: Role, config: &Config) -> anyhow::Result<Option<Arc<TokenSigner>>> {
    match role {
        Role::All => token_keys::signer(config, Absent::Make).map(Some),
        Role::Services(_) => token_keys::signer(config, Absent::Fail).map(Some),
        Role::Gateway if config.tokens.public_keys.is_empty() => {
            token_keys::signer(config, Absent::Fail).map(Some)
        }
        Role::Gateway => Ok(None),
    }
}

async fn listen(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {what}; choose another address"))
}
