//! What is under measure: a process of its own, one that runs already, or a cluster;
//! its users, and their logins by minted tokens.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_client::{DeviceId, HttpApi, UserId};
use sluice_load::{LoadTransport, Login, Protocol};
use sluice_protocol::{ClientMsgId, ConversationId, MessageId, limits::PARTITIONS_DEFAULT};
use sluice_store::{Commit, Content, NewEntry, NewUser, Outcome, SqliteConfig, SqliteStore, Store};

use super::peer::{Peer, PeerServer};
use crate::{
    cluster::{Cluster, Kind, Shape},
    config::Config,
    endpoints::Addresses,
    engines,
    server_process::{ServerProcess, this_program},
    token_keys::open_signer,
};

/// A server of this machine that runs already.
#[derive(Debug, Clone)]
pub struct RunningServer {
    /// Its HTTP API.
    pub http: String,
    /// Its data folder, for the key that signs tokens and for its process.
    pub data_dir: PathBuf,
}

/// What is measured.
#[derive(Debug, Clone, Default)]
pub enum Server {
    /// A process of its own, started for the run.
    #[default]
    Start,
    /// One that runs already.
    Running(RunningServer),
    /// A cluster, started for the run.
    Cluster(Shape),
    /// Another system, started for the run.
    Peer(Peer),
}

/// What server is wanted.
#[derive(Default)]
pub(super) struct SubjectOptions<'a> {
    /// Which.
    pub(super) server: Server,
    /// Users to make.
    pub(super) users: usize,
    /// All of them in a group, which the first founds.
    pub(super) in_group: bool,
    /// Configuration of what is started.
    pub(super) settings: &'a str,
}

/// What is being measured.
pub(super) struct Subject {
    /// What runs of it, Sluice's own processes first.
    pub(super) parts: Vec<Part>,
    /// Where clients connect, one of each gateway.
    gateways: Vec<Addresses>,
    /// One a user, in their order.
    pub(super) logins: Vec<Login>,
    /// That all are in, if that was wanted.
    pub(super) group: Option<ConversationId>,
    /// What clients speak, where that isn't Sluice's own.
    pub(super) protocol: Option<Protocol>,
    /// Of what was started, beside the defaults; a running one's aren't known.
    pub(super) settings: String,
    started: Started,
}

/// One of its processes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// `server`, `gateway`, `service`, `redis`, `mariadb` or `backend`.
    pub(super) role: &'static str,
    pub(super) pid: u32,
}

/// What ends with the run.
enum Started {
    Nothing,
    Server(Box<ServerProcess>),
    Cluster(Box<Cluster>),
    Peer(Box<PeerServer>),
}

const TOKEN_LIFETIME_MS: u64 = 3_600_000;
const GROUP_NAME: &str = "bench";
const DEVICE: &str = "bench";
/// Users made at once.
const SIDE_BY_SIDE: usize = 512;
/// Tokens, some 30 µs each.
const SIGNED_AT_ONCE: usize = 1_000;
/// The load comes from this machine, as fast as it can: limits meant for strangers
/// would only measure themselves.
pub(super) const NO_LIMITS: &str = "[gateway.limits]\npackets_per_s = 0\n\
    connections_per_address = 0\nconnects_per_address_per_s = 0\n\
    failed_logins_per_address_per_min = 0\n";

// === impl Subject ===

impl Subject {
    /// Starts a server, unless one runs already, and makes its users.
    pub(super) async fn prepare(options: SubjectOptions<'_>) -> anyhow::Result<Self> {
        let users = user_ids(options.users)?;
        match &options.server {
            Server::Running(server) => Self::find(server, &users, options.in_group).await,
            Server::Start => Self::start(&users, &options).await,
            Server::Peer(peer) => Self::start_peer(*peer, &users).await,
            // A large future, for which all callers would hold room.
            Server::Cluster(shape) => Box::pin(Self::start_cluster(*shape, &users, &options)).await,
        }
    }

    async fn find(
        server: &RunningServer,
        users: &[UserId],
        in_group: bool,
    ) -> anyhow::Result<Self> {
        let pid = SqliteStore::holder(&server.data_dir).with_context(|| {
            format!("no server keeps its data in {}", server.data_dir.display())
        })?;
        let addresses = Addresses::of(&server.http).await?;
        register(&addresses.http, users).await?;
        let logins = logins(&server.data_dir, users).await?;
        let mut group = None;
        if let ([founder, ..], [_, members @ ..], true) = (&logins[..], users, in_group) {
            let api = HttpApi::new(&addresses.http)?;
            group = Some(
                api.create_group(&founder.token, GROUP_NAME, members)
                    .await?,
            );
        }
        Ok(Self {
            parts: vec![Part::server(pid)],
            gateways: vec![addresses],
            logins,
            group,
            protocol: None,
            settings: String::new(),
            started: Started::Nothing,
        })
    }

    async fn start(users: &[UserId], options: &SubjectOptions<'_>) -> anyhow::Result<Self> {
        let folder = ServerProcess::folder()?;
        let data_dir = ServerProcess::data_dir(&folder);
        std::fs::create_dir_all(&data_dir)?;
        let store = Arc::new(SqliteStore::open(&data_dir, &SqliteConfig::default())?);
        let group = fill_store(store, users, options.in_group).await?;
        // The key exists before the server does, so that both have the same.
        let logins = logins(&data_dir, users).await?;
        let program = this_program()?;
        let process = ServerProcess::start_with(&program, folder, options.settings).await?;
        let pid = process.pid().context("the server has ended by itself")?;
        Ok(Self {
            parts: vec![Part::server(pid)],
            gateways: vec![Addresses::of(&process.addresses.http).await?],
            logins,
            group,
            protocol: None,
            settings: options.settings.to_owned(),
            started: Started::Server(Box::new(process)),
        })
    }

    async fn start_cluster(
        shape: Shape,
        users: &[UserId],
        options: &SubjectOptions<'_>,
    ) -> anyhow::Result<Self> {
        let mut cluster = Cluster::lay_out(shape, options.settings).await?;
        let config = Config::read(Some(&cluster.config_file()))?;
        let partitions = config.partitions;
        let store = engines::open_store(&config.store, &config.data_dir, partitions).await?;
        // Users that a crash would take along are no loss: the run ends with it.
        for mariadb in cluster.mariadb() {
            mariadb.sync_commits(false).await?;
        }
        let group = fill_store(store, users, options.in_group).await?;
        for mariadb in cluster.mariadb() {
            mariadb.sync_commits(true).await?;
        }
        let logins = logins(cluster.data_dir(), users).await?;
        cluster.start_roles(&this_program()?).await?;
        let parts = Kind::ALL.into_iter().flat_map(|kind| {
            let pids = cluster.pids(kind).into_iter();
            pids.map(move |pid| Part {
                role: kind.name(),
                pid,
            })
        });
        Ok(Self {
            parts: parts.collect(),
            gateways: cluster.gateways().cloned().collect(),
            logins,
            group,
            protocol: None,
            settings: options.settings.to_owned(),
            started: Started::Cluster(Box::new(cluster)),
        })
    }

    async fn start_peer(peer: Peer, users: &[UserId]) -> anyhow::Result<Self> {
        let device = DeviceId::parse(DEVICE)?;
        let logins = users.iter().map(|user| Login {
            user: user.clone(),
            device: device.clone(),
            token: format!("{:032x}", rand::random::<u128>()),
        });
        let logins: Vec<Login> = logins.collect();
        let server = PeerServer::start(peer, &logins).await?;
        Ok(Self {
            parts: vec![Part::server(server.pid())],
            gateways: vec![Addresses::of_tcp(server.address())],
            logins,
            group: None,
            protocol: Some(peer.protocol()),
            settings: peer.settings(),
            started: Started::Peer(Box::new(server)),
        })
    }

    /// Where it takes connections of a transport, one of each gateway.
    pub(super) fn addresses(&self, transport: LoadTransport) -> anyhow::Result<Vec<SocketAddr>> {
        let gateways = self.gateways.iter();
        gateways
            .map(|gateway| {
                let address = match transport {
                    LoadTransport::Tcp => &gateway.tcp,
                    LoadTransport::WebSocket => &gateway.ws,
                    LoadTransport::Udp => &gateway.udp,
                };
                let address = address
                    .as_ref()
                    .context("the server has no such transport")?;
                Ok(address.parse()?)
            })
            .collect()
    }

    /// What clients pin over UDP; gateways of one system share their keys.
    pub(super) fn pins(&self) -> Option<&String> {
        self.gateways.first()?.pins.as_ref()
    }

    /// Process ids of its parts, in their order.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.pid).collect()
    }

    /// The one process of a server that was started for this run alone, to be pinned
    /// as wanted.
    pub(super) fn own_server(&self) -> Option<u32> {
        match &self.started {
            Started::Server(process) => process.pid(),
            Started::Nothing | Started::Cluster(_) | Started::Peer(_) => None,
        }
    }

    /// Ends what this run has started.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.started {
            Started::Server(process) => process.stop().await,
            Started::Cluster(cluster) => cluster.stop().await,
            // Killed: what it keeps goes with it.
            Started::Peer(server) => {
                drop(server);
                Ok(())
            }
            Started::Nothing => Ok(()),
        }
    }
}

// === impl Part ===

impl Part {
    fn server(pid: u32) -> Self {
        let role = "server";
        Self { role, pid }
    }

    /// Whether clients are connected to it.
    pub(super) fn holds_connections(&self) -> bool {
        matches!(self.role, "server" | "gateway")
    }

    /// Whether it is Sluice, and not what Sluice stands on.
    pub(super) fn is_sluice(&self) -> bool {
        matches!(self.role, "server" | "gateway" | "service")
    }
}

fn user_ids(count: usize) -> anyhow::Result<Vec<UserId>> {
    let run = rand::random::<u32>();
    (0..count)
        .map(|user| Ok(UserId::parse(&format!("bench-{run:08x}-{user}"))?))
        .collect()
}

/// Straight into the store of what hasn't started: no password to hash, and no bound on
/// a group.
async fn fill_store(
    store: Arc<dyn Store>,
    users: &[UserId],
    in_group: bool,
) -> anyhow::Result<Option<ConversationId>> {
    stream::iter(users)
        .map(|user| {
            let store = Arc::clone(&store);
            let user = NewUser {
                id: user.clone(),
                username: user.to_string(),
                // No password has this hash: these users log in by minted tokens only.
                password_hash: "-".to_owned(),
                created_ms: now_ms(),
            };
            async move { store.create_user(user).await }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    match users {
        [founder, members @ ..] if in_group => {
            Ok(Some(found_group(&*store, founder, members).await?))
        }
        _ => Ok(None),
    }
}

async fn found_group(
    store: &dyn Store,
    founder: &UserId,
    members: &[UserId],
) -> anyhow::Result<ConversationId> {
    store.open_layout(PARTITIONS_DEFAULT).await?;
    // Below all that the server will issue.
    let conversation = ConversationId::group(MessageId(1));
    let partition = conversation.partition(PARTITIONS_DEFAULT);
    let commit = Commit {
        partition,
        epoch: store.take_partition(partition).await?,
        entries: vec![NewEntry {
            conversation: conversation.clone(),
            sender: founder.clone(),
            client_msg_id: ClientMsgId::new(now_ms(), rand::random()),
            predecessor: None,
            message_id: MessageId(1),
            server_time_ms: now_ms(),
            content: Content::GroupCreated {
                name: GROUP_NAME.to_owned(),
                members: members.to_vec(),
            },
        }],
    };
    match store.commit(commit).await?.as_slice() {
        [Outcome::Stored(_)] => Ok(conversation),
        other => bail!("the store makes no group: {other:?}"),
    }
}

/// By HTTP, where the store is another process's.
async fn register(http: &str, users: &[UserId]) -> anyhow::Result<()> {
    let api = HttpApi::new(http)?;
    let password = format!("{:032x}", rand::random::<u128>());
    for user in users {
        api.register(user, &password, None).await?;
    }
    Ok(())
}

async fn logins(data_dir: &Path, users: &[UserId]) -> anyhow::Result<Vec<Login>> {
    let signer = open_signer(data_dir)?;
    let device = DeviceId::parse(DEVICE)?;
    let mut logins = Vec::with_capacity(users.len());
    for some in users.chunks(SIGNED_AT_ONCE) {
        for user in some {
            let (token, _) = signer.sign(user, 0, now_ms(), TOKEN_LIFETIME_MS)?;
            logins.push(Login {
                user: user.clone(),
                device: device.clone(),
                token,
            });
        }
        // Whoever wants to stop the command is heard.
        tokio::task::yield_now().await;
    }
    Ok(logins)
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as u64
}
