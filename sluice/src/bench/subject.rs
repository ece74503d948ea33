//! The server under measure: a process of its own, or one that runs already; its
//! users, and their logins by minted tokens.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_client::{DeviceId, HttpApi, UserId};
use sluice_load::{LoadTransport, Login};
use sluice_protocol::{ClientMsgId, ConversationId, MessageId, limits::PARTITIONS_DEFAULT};
use sluice_store::{Commit, Content, NewEntry, NewUser, Outcome, SqliteConfig, SqliteStore, Store};

use crate::{
    endpoints::Addresses,
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

/// What server is wanted.
#[derive(Default)]
pub(super) struct SubjectOptions<'a> {
    /// `None`: start one.
    pub(super) running: Option<RunningServer>,
    /// Users to make.
    pub(super) users: usize,
    /// All of them in a group, which the first founds.
    pub(super) in_group: bool,
    /// Configuration of the one that is started.
    pub(super) settings: &'a str,
}

/// A server that is being measured.
pub(super) struct Subject {
    pub(super) pid: u32,
    pub(super) addresses: Addresses,
    /// One a user, in their order.
    pub(super) logins: Vec<Login>,
    /// That all are in, if that was wanted.
    pub(super) group: Option<ConversationId>,
    /// Of the one that was started, beside the defaults; a running one's aren't known.
    pub(super) settings: String,
    started: Option<ServerProcess>,
}

const TOKEN_LIFETIME_MS: u64 = 3_600_000;
const GROUP_NAME: &str = "bench";
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
        match options.running {
            Some(server) => Self::found(server, &users, options.in_group).await,
            None => Self::start(&users, options.in_group, options.settings).await,
        }
    }

    async fn found(
        server: RunningServer,
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
            pid,
            addresses,
            logins,
            group,
            settings: String::new(),
            started: None,
        })
    }

    async fn start(users: &[UserId], in_group: bool, settings: &str) -> anyhow::Result<Self> {
        let folder = ServerProcess::folder()?;
        let data_dir = ServerProcess::data_dir(&folder);
        let group = fill_store(&data_dir, users, in_group).await?;
        // The key exists before the server does, so that both have the same.
        let logins = logins(&data_dir, users).await?;
        let process = ServerProcess::start_with(&this_program()?, folder, settings).await?;
        Ok(Self {
            pid: process.pid().context("the server has ended by itself")?,
            addresses: Addresses::of(&process.addresses.http).await?,
            logins,
            group,
            settings: settings.to_owned(),
            started: Some(process),
        })
    }

    /// Where it takes connections of a transport.
    pub(super) fn address(&self, transport: LoadTransport) -> anyhow::Result<SocketAddr> {
        let address = match transport {
            LoadTransport::Tcp => &self.addresses.tcp,
            LoadTransport::WebSocket => &self.addresses.ws,
            LoadTransport::Udp => &self.addresses.udp,
        };
        let address = address
            .as_ref()
            .context("the server has no such transport")?;
        Ok(address.parse()?)
    }

    /// Whether it is this run's own, to be pinned and configured as wanted.
    pub(super) fn is_own(&self) -> bool {
        self.started.is_some()
    }

    /// Ends it, if this run has started it.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.started {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }
}

fn user_ids(count: usize) -> anyhow::Result<Vec<UserId>> {
    let run = rand::random::<u32>();
    (0..count)
        .map(|user| Ok(UserId::parse(&format!("bench-{run:08x}-{user}"))?))
        .collect()
}

/// Straight into the store of a server that hasn't started: no password to hash, and
/// no bound on a group.
async fn fill_store(
    data_dir: &Path,
    users: &[UserId],
    in_group: bool,
) -> anyhow::Result<Option<ConversationId>> {
    std::fs::create_dir_all(data_dir)?;
    let store = Arc::new(SqliteStore::open(data_dir, &SqliteConfig::default())?);
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
        [founder, members @ ..] if in_group => Ok(Some(found(&*store, founder, members).await?)),
        _ => Ok(None),
    }
}

async fn found(
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
    let device = DeviceId::parse("bench")?;
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
