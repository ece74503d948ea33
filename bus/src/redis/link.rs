//! [`RedisLink`]: commands and scripts on one server, behind Sentinel, or on a cluster.
//!
//! How it is used:
//!
//! ```text
//! let link = RedisLink::open(&config)?;                    // no I/O yet
//! let key = link.key("d:{ann}");                           // with the prefix
//! static SCRIPT: LazyLock<Lua> = LazyLock::new(|| Lua::new("return redis.call('GET', KEYS[1])"));
//! let name: Option<String> = link.script(&SCRIPT, &[&key], |call| { call.arg(1); }).await?;
//! let size: u64 = link.run(&key, redis::cmd("HLEN").arg(&key)).await?;
//! let mut changes = link.pubsub().await?;                  // a connection of its own
//! ```
//!
//! In a cluster the first key says which node is asked, and all keys of one
//! call must lie in one slot: give them the same `{tag}`. Nothing is repeated
//! that a server may have done: [`BusError::Unavailable`] means it did not,
//! [`BusError::Unknown`] that it may have, or may yet. Redirections (`MOVED`,
//! `ASK`) are followed here; a caller needn't know the mode. Calls share one
//! connection a server and must not block; who blocks asks for a
//! [`RedisLink::node_apart`].

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;
use parking_lot::RwLock;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, Script, ServerErrorKind, TlsMode, Value,
    aio::PubSub,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::{
    config::{RedisConfig, RedisMode},
    node::{Failure, Node, Source},
    slot::{slot, slot_ranges},
};
use crate::BusError;

/// Redirections that one call follows: a slot on its way has two, then it has arrived.
const REDIRECTS_MAX: u32 = 5;
/// Before a command is tried again that a moving slot couldn't take.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// A script, sent by its hash; by its text where the server doesn't know it.
pub(crate) struct Lua {
    text: &'static str,
    hash: String,
}

/// The way to Redis. Cheap to share; makes its connections when they are needed.
pub(crate) struct RedisLink {
    config: RedisConfig,
    servers: Servers,
}

enum Servers {
    One(Arc<Node>),
    Cluster(Cluster),
}

/// The nodes of a cluster and who has which slot, as far as is known.
struct Cluster {
    seeds: Vec<ConnectionInfo>,
    known: RwLock<Known>,
    refresh: Mutex<()>,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<String, Arc<Node>>,
    /// Last slot of a range (inclusive) and its node's address, sorted.
    ranges: Vec<(u16, String)>,
    /// What the last one said that couldn't tell.
    trouble: Option<String>,
}

// === impl Lua ===

impl Lua {
    pub(crate) fn new(text: &'static str) -> Self {
        let hash = Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }

    fn call(&self, by_hash: bool, keys: &[&str], args: &dyn Fn(&mut Cmd)) -> Cmd {
        let mut call = if by_hash {
            let mut call = redis::cmd("EVALSHA");
            call.arg(&self.hash);
            call
        } else {
            let mut call = redis::cmd("EVAL");
            call.arg(self.text);
            call
        };
        call.arg(keys.len());
        for key in keys {
            call.arg(*key);
        }
        args(&mut call);
        call
    }
}

// === impl RedisLink ===

impl RedisLink {
    /// Takes the configuration; connects later.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when the configuration makes no sense.
    pub(crate) fn open(config: &RedisConfig) -> Result<Arc<Self>, BusError> {
        config.checked()?;
        let servers = servers(config).map_err(|error| {
            // The URL isn't shown: it may hold a password.
            BusError::Unavailable(format!("{error}; say redis://host:port"))
        })?;
        let config = config.clone();
        Ok(Arc::new(Self { config, servers }))
    }

    /// A key's name with the prefix. A `{tag}` in it decides about the slot.
    pub(crate) fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.config.key_prefix)
    }

    /// Runs one command that touches only keys in the slot of `key`.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        key: &str,
        command: &Cmd,
    ) -> Result<T, BusError> {
        parsed(self.routed(key, command).await?)
    }

    /// Runs a script on `keys` (all in one slot); `args` adds its arguments.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        script: &Lua,
        keys: &[&str],
        args: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<T, BusError> {
        let key = keys.first().copied().unwrap_or_default();
        let call = script.call(true, keys, &args);
        let answer = match self.routed(key, &call).await {
            Err(failure) if failure.is(ServerErrorKind::NoScript) => {
                let call = script.call(false, keys, &args);
                self.routed(key, &call).await
            }
            answer => answer,
        };
        parsed(answer?)
    }

    /// As [`RedisLink::script`]; then waits until `wait_replicas` have what it
    /// wrote, as configured. Too few in time is [`BusError::Unknown`].
    pub(crate) async fn script_kept<T: FromRedisValue>(
        &self,
        script: &Lua,
        keys: &[&str],
        args: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<T, BusError> {
        if self.config.wait_replicas == 0 {
            return self.script(script, keys, args).await;
        }
        let key = keys.first().copied().unwrap_or_default();
        let mut by_hash = true;
        for _ in 0..REDIRECTS_MAX {
            let node = self.node(key).await?;
            // One pipeline: WAIT speaks of what its own connection wrote.
            let mut both = Pipeline::new();
            both.add_command(script.call(by_hash, keys, &args));
            both.cmd("WAIT")
                .arg(self.config.wait_replicas)
                .arg(self.config.wait_timeout_ms);
            both.ignore_errors();
            let mut answers = node.run_all(&both).await?.into_iter();
            let written = answers.next();
            let replicas = answers.next().and_then(Result::ok);
            match written {
                Some(Ok(value)) => {
                    let replicas = replicas.map_or(Ok(0), redis::from_redis_value::<u32>);
                    let enough = replicas.unwrap_or(0) >= self.config.wait_replicas;
                    return if enough {
                        parsed(value)
                    } else {
                        Err(BusError::Unknown("too few replicas have it".into()))
                    };
                }
                Some(Err(error)) => {
                    let failure = Failure::Refused(error);
                    if failure.is(ServerErrorKind::NoScript) {
                        by_hash = false;
                    } else if failure.is(ServerErrorKind::Moved) {
                        self.refresh(key).await;
                    } else {
                        return Err(failure.into());
                    }
                }
                None => return Err(BusError::Unknown("no answer".into())),
            }
        }
        Err(BusError::Unavailable("redirected too often".into()))
    }

    /// A connection of its own to the server that has `key`, whose commands may
    /// block for `block_ms`. After an error ask anew: the key may have moved.
    pub(crate) async fn node_apart(&self, key: &str, block_ms: u64) -> Result<Node, BusError> {
        Ok(self.node(key).await?.apart(block_ms))
    }

    /// A connection to subscribe with. In a cluster any node passes on what is
    /// published on any other.
    pub(crate) async fn pubsub(&self) -> Result<PubSub, BusError> {
        let node = self.node("").await?;
        let client = node.client().await?;
        let connecting = client.get_async_pubsub();
        match tokio::time::timeout(self.config.connect_timeout(), connecting).await {
            Ok(Ok(pubsub)) => Ok(pubsub),
            Ok(Err(error)) => {
                self.refresh("").await;
                Err(BusError::Unavailable(error.to_string()))
            }
            Err(_) => Err(BusError::Unavailable("no connection in time".into())),
        }
    }

    async fn routed(&self, key: &str, command: &Cmd) -> Result<Value, Failure> {
        let Servers::Cluster(cluster) = &self.servers else {
            return self.node(key).await?.run(command).await;
        };
        let mut node = self.node(key).await?;
        let mut redirects = 0;
        loop {
            let failure = match node.run(command).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            redirects += 1;
            let redirected = match &failure {
                Failure::Refused(error) => error.redirect_node(),
                _ => None,
            };
            match redirected {
                _ if redirects > REDIRECTS_MAX => return Err(failure),
                Some((address, _)) if failure.is(ServerErrorKind::Ask) => {
                    let asked = cluster.node_at(address, &self.config)?;
                    let mut both = Pipeline::new();
                    both.cmd("ASKING").ignore();
                    both.add_command(command.clone());
                    let mut answers = asked.run_all(&both).await?;
                    match answers.pop() {
                        Some(Ok(value)) => return Ok(value),
                        Some(Err(error)) => return Err(Failure::Refused(error)),
                        None => return Err(Failure::Unknown("no answer".into())),
                    }
                }
                Some((address, _)) => {
                    node = cluster.node_at(address, &self.config)?;
                    self.refresh(key).await;
                }
                None if failure.is(ServerErrorKind::TryAgain) => {
                    tokio::time::sleep(TRY_AGAIN_PAUSE).await;
                }
                None => {
                    // The node may be dead and another have its slots by now.
                    self.refresh(key).await;
                    return Err(failure);
                }
            }
        }
    }

    async fn node(&self, key: &str) -> Result<Arc<Node>, Failure> {
        let cluster = match &self.servers {
            Servers::One(node) => return Ok(Arc::clone(node)),
            Servers::Cluster(cluster) => cluster,
        };
        if let Some(node) = cluster.known.read().of(slot(key)) {
            return Ok(node);
        }
        self.refresh(key).await;
        let known = cluster.known.read().of(slot(key));
        known.ok_or_else(|| {
            let trouble = cluster.known.read().trouble.clone();
            Failure::NotSent(trouble.unwrap_or_else(|| "no node of the cluster answers".into()))
        })
    }

    /// Asks the cluster who has which slot.
    async fn refresh(&self, _key: &str) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.refresh(&self.config).await;
        }
    }
}

// === impl Cluster ===

impl Cluster {
    fn node_at(&self, address: &str, config: &RedisConfig) -> Result<Arc<Node>, Failure> {
        if let Some(node) = self.known.read().nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let unknown = || Failure::NotSent(format!("no such address: {address}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let port = port.parse().map_err(|_| unknown())?;
        let Some(seed) = self.seeds.first() else {
            return Err(unknown());
        };
        let info = seed.clone().set_addr(beside(seed.addr(), host, port));
        let client = Client::open(info).map_err(|_| unknown())?;
        let node = Arc::new(Node::new(Arc::new(Source::Fixed(client)), config));
        let mut known = self.known.write();
        let there = known.nodes.entry(address.to_owned()).or_insert(node);
        Ok(Arc::clone(there))
    }

    /// One at a time; who comes while another asks waits and uses its answer.
    async fn refresh(&self, config: &RedisConfig) {
        let Ok(_alone) = self.refresh.try_lock() else {
            drop(self.refresh.lock().await);
            return;
        };
        let mut addresses: Vec<String> = self.known.read().nodes.keys().cloned().collect();
        let seeds = self.seeds.iter().map(|seed| seed.addr().to_string());
        addresses.extend(seeds);
        for address in addresses {
            let Ok(node) = self.node_at(&address, config) else {
                continue;
            };
            let answer = match node.run(redis::cmd("CLUSTER").arg("SLOTS")).await {
                Ok(answer) => answer,
                Err(failure) => {
                    let why = BusError::from(failure);
                    let trouble = format!("no node of the cluster answers; {address}: {why}");
                    self.known.write().trouble = Some(trouble);
                    continue;
                }
            };
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let ranges = slot_ranges(answer, host);
            if ranges.is_empty() {
                continue;
            }
            for (_, address) in &ranges {
                let _ = self.node_at(address, config);
            }
            let mut known = self.known.write();
            known
                .nodes
                .retain(|a, _| ranges.iter().any(|(_, b)| a == b));
            known.ranges = ranges;
            return;
        }
    }
}

impl Known {
    fn of(&self, slot: u16) -> Option<Arc<Node>> {
        let at = self.ranges.partition_point(|(last, _)| *last < slot);
        let (_, address) = self.ranges.get(at)?;
        self.nodes.get(address).cloned()
    }
}

fn servers(config: &RedisConfig) -> Result<Servers, redis::RedisError> {
    let infos: Result<Vec<_>, _> = config.urls.iter().map(|url| info(url, config)).collect();
    let infos = infos?;
    let source = match config.mode {
        RedisMode::Cluster => {
            return Ok(Servers::Cluster(Cluster {
                seeds: infos,
                known: RwLock::default(),
                refresh: Mutex::default(),
            }));
        }
        RedisMode::Single => {
            let first = config.urls.first().map(String::as_str).unwrap_or_default();
            Source::Fixed(Client::open(info(first, config)?)?)
        }
        RedisMode::Sentinel => {
            let urls = config.urls.iter().map(String::as_str).collect();
            let mut node = SentinelNodeConnectionInfo::default()
                .set_redis_connection_info(credentials(RedisConnectionInfo::default(), config));
            if config.urls.iter().any(|url| url.starts_with("rediss://")) {
                node = node.set_tls_mode(TlsMode::Secure);
            }
            let name = config.sentinel_master.clone();
            let kind = SentinelServerType::Master;
            Source::Sentinel(Mutex::new(SentinelClient::build::<&str>(
                urls,
                name,
                Some(node),
                kind,
            )?))
        }
    };
    let node = Node::new(Arc::new(source), config);
    Ok(Servers::One(Arc::new(node)))
}

/// Another address, spoken to in the same way.
fn beside(seed: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let host = host.to_owned();
    match seed {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

fn info(url: &str, config: &RedisConfig) -> Result<ConnectionInfo, redis::RedisError> {
    let info = url.into_connection_info()?;
    let settings = credentials(info.redis_settings().clone(), config);
    Ok(info.set_redis_settings(settings))
}

fn credentials(settings: RedisConnectionInfo, config: &RedisConfig) -> RedisConnectionInfo {
    let settings = match &config.username {
        Some(username) => settings.set_username(username),
        None => settings,
    };
    match &config.password {
        Some(password) => settings.set_password(password),
        None => settings,
    }
}

/// An answer of another shape than asked for: it was done, but what?
fn parsed<T: FromRedisValue>(value: Value) -> Result<T, BusError> {
    redis::from_redis_value(value).map_err(|error| BusError::Unknown(error.to_string()))
}
