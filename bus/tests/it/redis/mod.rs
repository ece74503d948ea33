//! The implementations on Redis: the contracts on a real server and on a real
//! cluster of three masters, and what is Redis' own.

use std::sync::atomic::{AtomicU32, Ordering};

use sluice_bus::{RedisConfig, RedisMode};
use sluice_engines::{Redis, RedisCluster};
use tokio::sync::OnceCell;

mod directory;
mod directory_faults;
mod stream_faults;
mod streams;
mod tls;

/// A corner of the one server that tests share; it ends with this process.
pub(crate) async fn on_one_server() -> RedisConfig {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let server = SERVER.get_or_init(async || Redis::start().await.unwrap());
    corner_of(vec![server.await.url()], RedisMode::Single)
}

/// A corner of the cluster that tests share.
pub(crate) async fn on_cluster() -> RedisConfig {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    let cluster = CLUSTER.get_or_init(async || RedisCluster::start().await.unwrap());
    corner_of(cluster.await.urls(), RedisMode::Cluster)
}

/// A configuration with keys that nobody else uses.
pub(crate) fn corner_of(urls: Vec<String>, mode: RedisMode) -> RedisConfig {
    static CORNERS: AtomicU32 = AtomicU32::new(0);
    let corner = CORNERS.fetch_add(1, Ordering::Relaxed);
    RedisConfig {
        mode,
        urls,
        key_prefix: format!("corner {corner}:"),
        ..RedisConfig::default()
    }
}
