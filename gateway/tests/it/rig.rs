//! Starts a gateway with everything it needs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sha2::{Digest, Sha256};
use sluice_bus::{
    Bus, Directory, MemoryBus, MemoryBusConfig, MemoryDirectory, MemoryDirectoryConfig,
};
use sluice_codec::datagram::{ServerKey, ServerKeys};
use sluice_gateway::{Config, Gateway, GatewayParts, Handler, TokenVerifier};
use sluice_protocol::Incarnation;
use sluice_trace::Tracer;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, faulty_directory::FaultyDirectory, services::Services};

pub(crate) const PARTITIONS: u16 = 4;
const PRIVATE: &str = include_str!("../keys/private.pem");
const PUBLIC: &str = include_str!("../keys/public.pem");

/// A gateway under test with what it is connected to.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) incarnation: Incarnation,
    pub(crate) directory: Arc<MemoryDirectory>,
    /// The gateway's own way to it.
    pub(crate) way: Arc<FaultyDirectory>,
    pub(crate) services: Services,
    pub(crate) tcp: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Random ports, two loops, no exempt addresses.
pub(crate) fn config() -> Config {
    let any_port = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let mut config = Config {
        tcp_address: any_port,
        ws_address: any_port,
        udp_address: any_port,
        admin_address: any_port,
        event_loops: 2,
        connections_per_loop_max: 10_000,
        ..Config::default()
    };
    config.push.ack_flush_ms = 50;
    config.limits.address_limit_exempt.clear();
    config.requests.services = vec!["echo".into(), "silent".into()];
    config
}

// === impl Rig ===

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        Self::start_on(config, MemoryBusConfig::default()).await
    }

    pub(crate) async fn start_on(config: Config, bus_config: MemoryBusConfig) -> Self {
        let bus = MemoryBus::new(bus_config);
        Self::start_parts(config, Arc::clone(&bus) as Arc<dyn Bus>, bus, Vec::new()).await
    }

    /// With a bus of its own for the gateway, and handlers for its pipeline.
    pub(crate) async fn start_parts(
        config: Config,
        gateway_bus: Arc<dyn Bus>,
        bus: Arc<MemoryBus>,
        handlers: Vec<Arc<dyn Handler>>,
    ) -> Self {
        static INCARNATIONS: AtomicU32 = AtomicU32::new(1);
        let incarnation = Incarnation(INCARNATIONS.fetch_add(1, Ordering::Relaxed));
        let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
        let way = FaultyDirectory::new(Arc::clone(&directory));
        let parts = GatewayParts {
            config,
            keys: TokenVerifier::from_pem([PUBLIC]).unwrap(),
            datagram_keys: Some(ServerKeys::new(vec![datagram_key()], "test").unwrap()),
            bus: gateway_bus,
            directory: Arc::clone(&way) as Arc<dyn Directory>,
            incarnation,
            partitions: PARTITIONS,
            tracer: Tracer::new(),
            shutdown: CancellationToken::new(),
        };
        let mut gateway = Gateway::start_with(parts, handlers).await.unwrap();
        let (listener, router) = gateway.take_admin().unwrap();
        // Ends with the test's runtime.
        tokio::spawn(async { axum::serve(listener, router).await });
        let services = Services::start(bus, Arc::clone(&directory) as Arc<dyn Directory>);
        let addresses = gateway.addresses();
        Self {
            tcp: addresses.tcp.unwrap(),
            ws: addresses.ws.unwrap(),
            udp: addresses.udp.unwrap(),
            admin: addresses.admin.unwrap(),
            gateway,
            incarnation,
            directory,
            way,
            services,
        }
    }

    /// A TCP connection that has said nothing yet.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.tcp).await
    }

    /// A logged-in TCP client.
    pub(crate) async fn login(&self, user: &str) -> Client {
        let mut client = self.connect().await;
        client.login(user, "phone").await;
        client
    }
}

/// Of the UDP port and encrypted TCP.
pub(crate) fn datagram_key() -> ServerKey {
    ServerKey::from_secret([7; 32])
}

/// A token as the user service signs it.
pub(crate) fn token(user: &str) -> String {
    token_with(json!({"iss": "sluice", "sub": user, "ep": 1, "exp": now_ms() / 1000 + 3600}))
}

pub(crate) fn token_with(claims: serde_json::Value) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let body: String = PUBLIC.lines().filter(|l| !l.starts_with('-')).collect();
    let digest = Sha256::digest(STANDARD.decode(body).unwrap());
    let kid = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    let header = Header {
        kid: Some(kid.collect()),
        ..Header::new(Algorithm::EdDSA)
    };
    let key = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

pub(crate) fn now_ms() -> u64 {
    let span = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(span.as_millis()).unwrap()
}

/// Waits until it holds; fails after ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
