//! Redis Cluster: three masters without replicas.

use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::{EngineError, Redis, RedisSettings, redis};

/// Three private redis-servers that share the 16,384 slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, each of which can be killed and restarted.
    pub masters: Vec<Redis>,
}

const MASTERS: usize = 3;
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

// === impl RedisCluster ===

impl RedisCluster {
    /// Starts the masters and waits until each of them calls the cluster whole.
    /// They keep an append-only file.
    pub async fn start() -> Result<Self, EngineError> {
        let mut masters = Vec::with_capacity(MASTERS);
        for _ in 0..MASTERS {
            let settings = RedisSettings {
                aof: true,
                cluster: true,
                arguments: ["--cluster-node-timeout", "2000"].map(String::from).into(),
            };
            masters.push(Redis::with(settings).await?);
        }
        let cluster = Self { masters };
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(cluster.masters.iter().map(|m| m.address().to_string()));
        redis::run(create.arg("--cluster-yes")).await?;
        let deadline = Instant::now() + FORM_TIMEOUT;
        for master in &cluster.masters {
            while !(master.command(&["cluster", "info"]).await?).contains("cluster_state:ok") {
                if Instant::now() > deadline {
                    return Err(redis::failed("the cluster did not form in time".into()));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(cluster)
    }

    /// `redis://127.0.0.1:port` of each master.
    pub fn urls(&self) -> Vec<String> {
        self.masters.iter().map(Redis::url).collect()
    }
}
