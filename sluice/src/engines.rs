//! Opens what the configuration names: the bus and the directory in this
//! process or on Redis, the store in a folder or on MySQL.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use sluice_bus::{
    Bus, Directory, MemoryBus, MemoryDirectory, MemoryDirectoryConfig, RedisBus, RedisDirectory,
};
use sluice_store::{MysqlStore, SqliteStore, Store};

use crate::config::{BusConfig, Config, StoreConfig};

/// Fails where processes with these settings could not meet.
pub fn check_shared(config: &Config) -> anyhow::Result<()> {
    if config.bus.redis.is_none() || config.store.mysql.is_none() {
        bail!(
            "gateways and services in processes of their own need [bus.redis] and [store.mysql] \
             in the configuration; `sluice serve` runs all in one process without them"
        );
    }
    Ok(())
}

/// The two ports of the bus.
pub async fn open_bus(config: &BusConfig) -> anyhow::Result<(Arc<dyn Bus>, Arc<dyn Directory>)> {
    let Some(redis) = &config.redis else {
        let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
        return Ok((MemoryBus::new(config.memory.clone()), directory));
    };
    let bus = RedisBus::open(redis).context("the bus on Redis")?;
    let directory = RedisDirectory::open(redis).context("the directory on Redis")?;
    Ok((bus, directory))
}

/// The store, its tables made and its layout checked.
pub async fn open_store(
    config: &StoreConfig,
    data_dir: &Path,
    partitions: u16,
) -> anyhow::Result<Arc<dyn Store>> {
    let store: Arc<dyn Store> = match &config.mysql {
        Some(mysql) => Arc::new(
            MysqlStore::connect(mysql)
                .await
                .context("the store on MySQL")?,
        ),
        None => {
            make_private_folder(data_dir)
                .with_context(|| format!("cannot create the data folder {}", data_dir.display()))?;
            Arc::new(SqliteStore::open(data_dir, &config.sqlite)?)
        }
    };
    store.open_layout(partitions).await?;
    Ok(store)
}

/// Everybody's messages are in there: for this user's eyes only.
pub fn make_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
