//! What a message costs a cluster, by kind of process: counted by the kernel, Redis
//! and MariaDB themselves, from the first send to the last arrival.

use anyhow::Context;
use serde::Serialize;
use sluice_engines::{MariaDb, Redis};
use sluice_load::ProcessMemory;
use tokio::sync::watch;

use super::replay::Load;
use crate::cluster::{Cluster, Kind};

/// Per message of the log, deliveries and acks included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Costs {
    /// CPU time of all gateways, in microseconds.
    pub cpu_us_per_message_gateway: f64,
    /// Of all processes of services.
    pub cpu_us_per_message_service: f64,
    /// Of all Redis servers.
    pub cpu_us_per_message_redis: f64,
    /// Of all MariaDB servers.
    pub cpu_us_per_message_mariadb: f64,
    /// Of this process: all clients and the oracle.
    pub cpu_us_per_message_clients: f64,
    /// Commands, those inside scripts included.
    pub redis_commands_per_message: f64,
    /// Statements, commits and preparations included.
    pub sql_statements_per_message: f64,
    /// Transactions.
    pub sql_commits_per_message: f64,
}

/// Counters at a moment.
#[derive(Debug, Clone, Copy)]
struct Counted {
    gateway_ms: u64,
    service_ms: u64,
    redis_ms: u64,
    mariadb_ms: u64,
    clients_ms: u64,
    redis_commands: u64,
    sql_statements: u64,
    sql_commits: u64,
}

/// Counts while people talk.
pub async fn count(
    cluster: &Cluster,
    mut load: watch::Receiver<Load>,
    messages: usize,
) -> anyhow::Result<Costs> {
    // The sender lives as long as the run.
    let _ = load.wait_for(|load| *load == Load::On).await;
    let before = Counted::now(cluster).await?;
    let _ = load.wait_for(|load| *load == Load::Over).await;
    let after = Counted::now(cluster).await?;
    let per_message = |read: fn(&Counted) -> u64| {
        read(&after).saturating_sub(read(&before)) as f64 / messages.max(1) as f64
    };
    Ok(Costs {
        cpu_us_per_message_gateway: per_message(|it| it.gateway_ms * 1_000),
        cpu_us_per_message_service: per_message(|it| it.service_ms * 1_000),
        cpu_us_per_message_redis: per_message(|it| it.redis_ms * 1_000),
        cpu_us_per_message_mariadb: per_message(|it| it.mariadb_ms * 1_000),
        cpu_us_per_message_clients: per_message(|it| it.clients_ms * 1_000),
        redis_commands_per_message: per_message(|it| it.redis_commands),
        sql_statements_per_message: per_message(|it| it.sql_statements),
        sql_commits_per_message: per_message(|it| it.sql_commits),
    })
}

// === impl Costs ===

impl Costs {
    /// Rows of the table for people.
    pub(super) fn rows(&self) -> [(&'static str, String); 3] {
        [
            (
                "CPU a message: gateways / services / Redis / MariaDB / clients (µs)",
                format!(
                    "{:.0} / {:.0} / {:.0} / {:.0} / {:.0}",
                    self.cpu_us_per_message_gateway,
                    self.cpu_us_per_message_service,
                    self.cpu_us_per_message_redis,
                    self.cpu_us_per_message_mariadb,
                    self.cpu_us_per_message_clients
                ),
            ),
            (
                "Redis commands a message",
                format!("{:.1}", self.redis_commands_per_message),
            ),
            (
                "SQL statements / commits a message",
                format!(
                    "{:.2} / {:.2}",
                    self.sql_statements_per_message, self.sql_commits_per_message
                ),
            ),
        ]
    }
}

// === impl Counted ===

impl Counted {
    async fn now(cluster: &Cluster) -> anyhow::Result<Self> {
        let cpu_ms = |kind| {
            let used = cluster.pids(kind).into_iter().map(ProcessMemory::of);
            used.flatten().map(|process| process.cpu_ms).sum()
        };
        let mut counted = Self {
            gateway_ms: cpu_ms(Kind::Gateway),
            service_ms: cpu_ms(Kind::Service),
            redis_ms: cpu_ms(Kind::Redis),
            mariadb_ms: cpu_ms(Kind::MariaDb),
            clients_ms: ProcessMemory::of(std::process::id())?.cpu_ms,
            redis_commands: 0,
            sql_statements: 0,
            sql_commits: 0,
        };
        for redis in cluster.redis() {
            counted.redis_commands += commands(redis).await?;
        }
        for mariadb in cluster.mariadb() {
            let (statements, commits) = statements(mariadb).await?;
            counted.sql_statements += statements;
            counted.sql_commits += commits;
        }
        Ok(counted)
    }
}

async fn commands(redis: &Redis) -> anyhow::Result<u64> {
    let said = redis.command(&["info", "stats"]).await?;
    let line = (said.lines()).find_map(|line| line.strip_prefix("total_commands_processed:"));
    let count = line.and_then(|count| count.trim().parse().ok());
    count.context("Redis doesn't say how many commands it ran")
}

async fn statements(mariadb: &MariaDb) -> anyhow::Result<(u64, u64)> {
    let said = mariadb
        .execute("SHOW GLOBAL STATUS WHERE variable_name IN ('Questions', 'Com_commit')")
        .await?;
    let counter = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let count = line.and_then(|count| count.trim().parse().ok());
        count.with_context(|| format!("MariaDB doesn't say {name}"))
    };
    Ok((counter("Questions")?, counter("Com_commit")?))
}
