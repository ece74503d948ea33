//! A cluster for one run, of the demo or a bench: Redis and MariaDB in private
//! folders, gateways and services as processes, all on free ports; gone when it is
//! dropped.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use sluice_client::Endpoint;
use sluice_engines::{GuardedFolder, MariaDb, Redis, RedisCluster};
use tokio::process::Command;

use crate::{
    endpoints::Addresses,
    server_process::{CONFIG, Process},
    token_keys,
};

/// What a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Gateway processes.
    pub gateways: usize,
    /// Processes that run all services each.
    pub services: usize,
    /// Three masters instead of one server.
    pub redis_cluster: bool,
    /// MariaDB servers, among which the shards are divided.
    pub mariadb: usize,
}

/// What can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A gateway.
    Gateway,
    /// A process of services.
    Service,
    /// A Redis server.
    Redis,
    /// A MariaDB server.
    MariaDb,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are to end.
    gateways: Vec<Member>,
    services: Vec<Member>,
    redis: Vec<Redis>,
    mariadb: Vec<MariaDb>,
    shape: Shape,
    folder: Arc<GuardedFolder>,
}

/// A role's process that can be started again where it was.
#[derive(Debug)]
struct Member {
    program: PathBuf,
    role: &'static str,
    /// Its own among the members.
    name: String,
    /// With the configuration of all; takes all along when it goes.
    folder: Arc<GuardedFolder>,
    /// Where it listens, from its first start on.
    addresses: Addresses,
    process: Option<Process>,
}

const MEMBERS_MAX: usize = 64;
const RESTART_TRIES: u32 = 5;
const RESTART_PAUSE: Duration = Duration::from_millis(500);

// === impl Shape ===

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shape = Shape {
            gateways: 1,
            services: 1,
            redis_cluster: false,
            mariadb: 1,
        };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let count = || match value.parse() {
                Ok(count) if (1..=MEMBERS_MAX).contains(&count) => Ok(count),
                _ => Err(format!("{name}={value}: a number from 1 to {MEMBERS_MAX}")),
            };
            match (name, value) {
                ("gateways", _) => shape.gateways = count()?,
                ("services", _) => shape.services = count()?,
                ("mariadb", _) => shape.mariadb = count()?,
                ("redis", "single") => shape.redis_cluster = false,
                ("redis", "cluster") => shape.redis_cluster = true,
                _ => {
                    return Err(format!(
                        "{part:?}: a cluster is gateways=N,services=N[,redis=cluster][,mariadb=N]"
                    ));
                }
            }
        }
        Ok(shape)
    }
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Gateway, Kind::Service, Kind::Redis, Kind::MariaDb];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Service => "service",
            Kind::Redis => "redis",
            Kind::MariaDb => "mariadb",
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts the engines, then the services, then the gateways.
    pub async fn start(program: &Path, shape: Shape) -> anyhow::Result<Self> {
        let mut cluster = Self::lay_out(shape, "").await?;
        cluster.start_roles(program).await?;
        Ok(cluster)
    }

    /// Starts the engines and writes the configuration, with these settings as well.
    pub async fn lay_out(shape: Shape, settings: &str) -> anyhow::Result<Self> {
        let folder = Arc::new(GuardedFolder::new("sluice-cluster-")?);
        let (redis, mode) = if shape.redis_cluster {
            (RedisCluster::start().await?.masters, "cluster")
        } else {
            (vec![Redis::durable().await?], "single")
        };
        let mut mariadb = Vec::new();
        for _ in 0..shape.mariadb {
            mariadb.push(MariaDb::start().await?);
        }
        token_keys::open_signer(folder.path())?;
        let urls: Vec<String> = redis.iter().map(Redis::url).collect();
        let text = configuration(folder.path(), mode, &urls, &mariadb);
        std::fs::write(config_file(&folder), text + settings)?;
        Ok(Self {
            shape,
            gateways: Vec::new(),
            services: Vec::new(),
            redis,
            mariadb,
            folder,
        })
    }

    /// Starts the services, then the gateways.
    pub async fn start_roles(&mut self, program: &Path) -> anyhow::Result<()> {
        for number in 0..self.shape.services {
            let member = Member::start(program, "service", number, &self.folder).await?;
            self.services.push(member);
        }
        for number in 0..self.shape.gateways {
            let member = Member::start(program, "gateway", number, &self.folder).await?;
            self.gateways.push(member);
        }
        Ok(())
    }

    /// What all its processes read.
    pub fn config_file(&self) -> PathBuf {
        config_file(&self.folder)
    }

    /// Where its keys are.
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where the gateways listen, one by one.
    pub fn gateways(&self) -> impl Iterator<Item = &Addresses> {
        self.gateways.iter().map(|gateway| &gateway.addresses)
    }

    /// The HTTP API of the first node that has one.
    pub fn http(&self) -> anyhow::Result<String> {
        let first = self.services.first().context("no services run")?;
        Ok(first.addresses.http.clone())
    }

    /// Where clients connect, one of each gateway.
    pub fn endpoints(&self) -> anyhow::Result<Vec<Endpoint>> {
        let gateways = self.gateways.iter();
        gateways
            .map(|gateway| gateway.addresses.endpoint())
            .collect()
    }

    /// Highest resident memory of gateways and services together, in MB, since
    /// each was last started.
    pub fn rss_peak_mb(&self) -> f64 {
        let members = self.gateways.iter().chain(&self.services);
        let processes = members.filter_map(|member| member.process.as_ref());
        processes.map(Process::rss_peak_mb).sum()
    }

    /// The processes of a kind that run.
    pub fn pids(&self, kind: Kind) -> Vec<u32> {
        let members = |members: &[Member]| {
            let processes = members.iter().filter_map(|member| member.process.as_ref());
            processes.filter_map(Process::pid).collect()
        };
        match kind {
            Kind::Gateway => members(&self.gateways),
            Kind::Service => members(&self.services),
            Kind::Redis => self.redis.iter().map(Redis::pid).collect(),
            Kind::MariaDb => self.mariadb.iter().map(MariaDb::pid).collect(),
        }
    }

    /// Its Redis servers.
    pub fn redis(&self) -> &[Redis] {
        &self.redis
    }

    /// Its MariaDB servers.
    pub fn mariadb(&self) -> &[MariaDb] {
        &self.mariadb
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Gateway => self.gateways.len(),
            Kind::Service => self.services.len(),
            Kind::Redis => self.redis.len(),
            Kind::MariaDb => self.mariadb.len(),
        }
    }

    /// Kills one of them without a word.
    pub async fn kill(&mut self, kind: Kind, which: usize) -> anyhow::Result<()> {
        let gone = "there is no such process";
        match kind {
            Kind::Gateway => self.gateways.get_mut(which).context(gone)?.kill().await?,
            Kind::Service => self.services.get_mut(which).context(gone)?.kill().await?,
            Kind::Redis => self.redis.get_mut(which).context(gone)?.kill()?,
            Kind::MariaDb => self.mariadb.get_mut(which).context(gone)?.kill()?,
        }
        Ok(())
    }

    /// Starts one that was killed again, on its ports and data. What it needs may
    /// be busy with its own restart, so a failure is tried again, a few times.
    pub async fn restart(&mut self, kind: Kind, which: usize) -> anyhow::Result<()> {
        let mut tries_left = RESTART_TRIES;
        loop {
            tries_left -= 1;
            match self.try_restart(kind, which).await {
                Err(error) if tries_left > 0 => {
                    tracing::warn!(kind = kind.name(), which, "not started again: {error:#}");
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_restart(&mut self, kind: Kind, which: usize) -> anyhow::Result<()> {
        let gone = "there is no such process";
        match kind {
            Kind::Gateway => {
                let gateway = self.gateways.get_mut(which);
                gateway.context(gone)?.restart().await
            }
            Kind::Service => {
                let service = self.services.get_mut(which);
                service.context(gone)?.restart().await
            }
            Kind::Redis => Ok(self.redis.get_mut(which).context(gone)?.restart().await?),
            Kind::MariaDb => Ok(self.mariadb.get_mut(which).context(gone)?.restart().await?),
        }
    }

    /// Stops one of them where it stands, its connections open.
    pub async fn pause(&self, kind: Kind, which: usize) -> anyhow::Result<()> {
        let gone = "there is no such process";
        match kind {
            Kind::Gateway => self.gateways.get(which).context(gone)?.pause().await,
            Kind::Service => self.services.get(which).context(gone)?.pause().await,
            Kind::Redis => Ok(self.redis.get(which).context(gone)?.pause()?),
            Kind::MariaDb => Ok(self.mariadb.get(which).context(gone)?.pause()?),
        }
    }

    /// Lets one that was paused go on.
    pub async fn resume(&self, kind: Kind, which: usize) -> anyhow::Result<()> {
        let gone = "there is no such process";
        match kind {
            Kind::Gateway => self.gateways.get(which).context(gone)?.resume().await,
            Kind::Service => self.services.get(which).context(gone)?.resume().await,
            Kind::Redis => Ok(self.redis.get(which).context(gone)?.resume()?),
            Kind::MariaDb => Ok(self.mariadb.get(which).context(gone)?.resume()?),
        }
    }

    /// Asks all to end, gateways first, and waits for them.
    pub async fn stop(self) -> anyhow::Result<()> {
        for members in [self.gateways, self.services] {
            let stops = members.into_iter().filter_map(|member| member.process);
            let ended = futures_util::future::join_all(stops.map(Process::stop)).await;
            ended.into_iter().collect::<anyhow::Result<()>>()?;
        }
        Ok(())
    }
}

// === impl Member ===

impl Member {
    async fn start(
        program: &Path,
        role: &'static str,
        number: usize,
        folder: &Arc<GuardedFolder>,
    ) -> anyhow::Result<Self> {
        let any = || "127.0.0.1:0".to_owned();
        let mut member = Self {
            program: program.to_owned(),
            role,
            name: format!("{role}-{number}"),
            folder: Arc::clone(folder),
            addresses: Addresses {
                http: any(),
                admin: Some(any()),
                tcp: Some(any()),
                ws: Some(any()),
                udp: Some(any()),
                pins: None,
                gateways: Vec::new(),
            },
            process: None,
        };
        member.restart().await?;
        Ok(member)
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg(self.role).arg("--config");
        command.arg(config_file(&self.folder));
        let addresses = &self.addresses;
        let http = (self.role == "service").then_some(&addresses.http);
        let gateway = self.role == "gateway";
        let listening = [
            ("--http", http),
            ("--admin", addresses.admin.as_ref()),
            ("--tcp", addresses.tcp.as_ref().filter(|_| gateway)),
            ("--ws", addresses.ws.as_ref().filter(|_| gateway)),
            ("--udp", addresses.udp.as_ref().filter(|_| gateway)),
        ];
        for (flag, address) in listening {
            if let Some(address) = address {
                command.arg(flag).arg(address);
            }
        }
        let process = Process::start(&mut command, &self.name, &self.folder).await;
        let process = process.with_context(|| format!("a {} of the cluster", self.role))?;
        self.addresses = process.addresses.clone();
        self.process = Some(process);
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("the {} is dead already", self.role)
        };
        Ok(process.kill().await?)
    }

    async fn pause(&self) -> anyhow::Result<()> {
        self.running()?.pause().await
    }

    async fn resume(&self) -> anyhow::Result<()> {
        self.running()?.resume().await
    }

    fn running(&self) -> anyhow::Result<&Process> {
        let process = self.process.as_ref();
        process.with_context(|| format!("the {} is dead", self.role))
    }
}

fn config_file(folder: &GuardedFolder) -> PathBuf {
    folder.path().join("sluice.toml")
}

/// What all processes of the cluster share.
fn configuration(folder: &Path, mode: &str, urls: &[String], mariadb: &[MariaDb]) -> String {
    const SHARDS: usize = 64;
    let count = mariadb.len();
    let server = |(index, server): (usize, &MariaDb)| {
        let (first, end) = (index * SHARDS / count, (index + 1) * SHARDS / count);
        let url = server.url("sluice");
        format!("{{ url = {url:?}, shards = \"{first}-{}\" }}", end - 1)
    };
    let servers: Vec<String> = mariadb.iter().enumerate().map(server).collect();
    format!(
        "data_dir = {folder:?}\n\
         {CONFIG}\n\
         [bus.redis]\nmode = {mode:?}\nurls = {urls:?}\n\
         [store.mysql]\nshards = {SHARDS}\nservers = [{}]\n",
        servers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read() {
        let shape: Shape = "gateways=3,services=2,redis=cluster,mariadb=2"
            .parse()
            .unwrap();
        let expected = Shape {
            gateways: 3,
            services: 2,
            redis_cluster: true,
            mariadb: 2,
        };
        assert_eq!(shape, expected);
        for wrong in ["gateways=0", "services=x", "redis=ring", "nodes=3"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }
}
