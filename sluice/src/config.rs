//! The configuration file: one table a room, each with its own defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;
use sluice_protocol::limits::PARTITIONS_DEFAULT;

/// The annotated defaults, for people to copy and change.
pub const ANNOTATED: &str = include_str!("../sluice.toml");

/// All that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Holds everything that must survive.
    pub data_dir: PathBuf,
    /// Where the HTTP APIs listen.
    pub http_address: SocketAddr,
    /// Partitions of the conversation space. Fixed with the first start on a data folder.
    pub partitions: u16,
    /// Client connections.
    pub gateway: sluice_gateway::Config,
    /// Users, messages and groups.
    pub services: sluice_services::Config,
    /// The embedded store.
    pub store: sluice_store::SqliteConfig,
    /// The bus inside the process.
    pub bus: sluice_bus::MemoryBusConfig,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("sluice-data"),
            http_address: (Ipv4Addr::LOCALHOST, 8080).into(),
            partitions: PARTITIONS_DEFAULT,
            gateway: Default::default(),
            services: Default::default(),
            store: Default::default(),
            bus: Default::default(),
        }
    }
}

impl Config {
    /// Reads a file, or takes the defaults.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotated_file_holds_the_defaults() {
        let annotated: Config = toml::from_str(ANNOTATED).unwrap();
        assert_eq!(
            format!("{annotated:#?}"),
            format!("{:#?}", Config::default())
        );
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Config>("[gateway]\nlisten = 1").unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
    }
}
