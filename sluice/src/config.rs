//! The configuration: a file with one table a room, each key with its own
//! default, and over it the environment (`environment`).

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use sluice_protocol::limits::PARTITIONS_DEFAULT;

use crate::environment;
pub use crate::http::Bounds;

/// The annotated defaults, for people to copy and change. Settings of engines
/// that are off by default stand behind a `#` without a space.
pub const ANNOTATED: &str = include_str!("../sluice.toml");

/// All that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Holds everything of this process that must survive.
    pub data_dir: PathBuf,
    /// Where the HTTP APIs listen.
    pub http_address: SocketAddr,
    /// Partitions of the conversation space. Fixed with the first start on a store.
    pub partitions: u16,
    /// What runs in a process of its own.
    pub roles: RoleAddresses,
    /// Keys of login tokens.
    pub tokens: Tokens,
    /// Keys of the UDP port.
    pub datagrams: Datagrams,
    /// What `GET /endpoints` tells clients.
    pub endpoints: Endpoints,
    /// What HTTP clients may take.
    pub http: Bounds,
    /// Client connections.
    pub gateway: sluice_gateway::Config,
    /// Users, messages and groups.
    pub services: sluice_services::Config,
    /// What must survive.
    pub store: StoreConfig,
    /// Where gateways and services meet.
    pub bus: BusConfig,
}

/// Where services listen that run without a gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleAddresses {
    /// HTTP APIs of `sluice service --only user`.
    pub user_http_address: SocketAddr,
    /// HTTP APIs of `sluice service --only message,group`, or one of them.
    pub message_http_address: SocketAddr,
    /// Health and metrics of `sluice service`.
    pub service_admin_address: SocketAddr,
}

/// Keys of login tokens.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    /// The signing key itself, PKCS#8 in PEM. Goes before the file.
    pub key: Secret,
    /// Its file; empty: `token-key.pem` in the data folder.
    pub key_file: PathBuf,
    /// Further public keys, each in PEM or the path of a PEM file, whose tokens
    /// gateways take.
    pub public_keys: Vec<String>,
}

/// Keys of the UDP port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datagrams {
    /// The secret keys themselves, in base64 with commas between, the one for new
    /// sessions first. Goes before the file.
    pub keys: Secret,
    /// Their file; empty: `datagram-key` in the data folder.
    pub key_file: PathBuf,
    /// This gateway among those that share the keys; empty: host name and port.
    pub node: String,
}

/// Where clients connect, if not at the gateway of the same process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    /// `host:port` for TCP clients, perhaps of a balancer; empty: as it listens.
    pub tcp: String,
    /// Likewise for WebSocket clients.
    pub ws: String,
    /// Likewise for UDP clients.
    pub udp: String,
    /// What clients pin, of UDP and of encrypted TCP; empty: by the keys, where this
    /// process has them.
    #[serde(alias = "udp_pins")]
    pub pins: String,
    /// Each gateway's own addresses, for clients that choose among them.
    pub gateways: Vec<GatewayEndpoint>,
}

/// Where clients of one gateway connect.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayEndpoint {
    /// `host:port` for TCP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Likewise for WebSocket clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<String>,
    /// Likewise for UDP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<String>,
}

/// What must survive, and where.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// In the data folder, unless `mysql` is set.
    pub sqlite: sluice_store::SqliteConfig,
    /// On servers.
    pub mysql: Option<sluice_store::MysqlConfig>,
}

/// Where gateways and services meet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// Inside this process, unless `redis` is set.
    pub memory: sluice_bus::MemoryBusConfig,
    /// On Redis.
    pub redis: Option<sluice_bus::RedisConfig>,
}

/// What no log shows.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("sluice-data"),
            http_address: (Ipv4Addr::LOCALHOST, 8080).into(),
            partitions: PARTITIONS_DEFAULT,
            roles: RoleAddresses::default(),
            tokens: Tokens::default(),
            datagrams: Datagrams::default(),
            endpoints: Endpoints::default(),
            http: Bounds::default(),
            gateway: Default::default(),
            services: Default::default(),
            store: StoreConfig::default(),
            bus: BusConfig::default(),
        }
    }
}

impl Config {
    /// Reads a file, or takes the defaults; `SLUICE__` variables go before both.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let mut table = toml::Table::new();
        if let Some(path) = path {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            let in_file = || format!("in the configuration {}", path.display());
            // By itself first, so that an error names its line.
            toml::from_str::<Self>(&text).with_context(in_file)?;
            table = toml::from_str(&text).with_context(in_file)?;
        }
        environment::overlay(&mut table, &every_key(), std::env::vars())?;
        let config =
            Self::deserialize(table).context("in the SLUICE__ variables of the environment")?;
        config.check()?;
        Ok(config)
    }

    /// Whether the rooms can work with these values; before anything is opened.
    fn check(&self) -> anyhow::Result<()> {
        if self.partitions == 0 {
            bail!("configuration: partitions must be above 0");
        }
        let mut checked = vec![
            (
                "gateway",
                self.gateway.check().map_err(|error| error.to_string()),
            ),
            ("http", self.http.check()),
            ("services", self.services.check()),
            ("store.sqlite", self.store.sqlite.check()),
            ("bus.memory", self.bus.memory.check()),
        ];
        if let Some(redis) = &self.bus.redis {
            checked.push(("bus.redis", redis.check()));
        }
        for (table, result) in checked {
            result.map_err(|broken| anyhow!("configuration: [{table}] {broken}"))?;
        }
        Ok(())
    }
}

// === impl RoleAddresses ===

impl Default for RoleAddresses {
    fn default() -> Self {
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            user_http_address: here(8090),
            message_http_address: here(8100),
            service_admin_address: here(8082),
        }
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "set" })
    }
}

/// The annotated file with nothing switched off: which keys there are, and of
/// what type.
fn every_key() -> toml::Table {
    let mut text = String::new();
    for line in ANNOTATED.lines() {
        let setting = line.strip_prefix('#').filter(|rest| {
            let first = rest.chars().next();
            first.is_some_and(|first| first != ' ')
        });
        text.push_str(setting.unwrap_or(line));
        text.push('\n');
    }
    // A test holds it to be TOML.
    toml::from_str(&text).unwrap_or_default()
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
    fn what_is_switched_off_in_it_holds_the_defaults_too() {
        let all = Config::deserialize(every_key()).unwrap();
        assert_eq!(all.bus.redis, Some(sluice_bus::RedisConfig::default()));
        let mut mysql = all.store.mysql.unwrap();
        assert_eq!(mysql.servers.len(), 1);
        mysql.servers = Vec::new();
        assert_eq!(mysql, sluice_store::MysqlConfig::default());
    }

    #[test]
    fn a_value_that_nothing_could_work_with_is_named() {
        for (text, told) in [
            ("partitions = 0", "partitions"),
            ("[http]\nhead_timeout_ms = 0", "[http] head_timeout_ms"),
            ("[services]\ndevices_max = 0", "[services] devices_max"),
            (
                "[store.sqlite]\nreader_threads = 0",
                "[store.sqlite] reader_threads",
            ),
            (
                "[bus.memory]\nstream_max_entries = 0",
                "[bus.memory] stream_max_entries",
            ),
            (
                "[gateway.push]\nwindow_max = 0",
                "configuration: [gateway] push.window_max",
            ),
        ] {
            let error = toml::from_str::<Config>(text).unwrap().check().unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    /// Rows of a table of SPEC.md: settings, in backticks, and their values.
    fn told_by_spec(heading: &str) -> Vec<(String, String)> {
        const SPEC: &str = include_str!("../../protocol/SPEC.md");
        let section = SPEC.split(&format!("\n### {heading}")).nth(1).unwrap();
        let section = section.split("\n### ").next().unwrap();
        let mut told = Vec::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split(" | ").collect();
            let keys = cells[0].split('`').skip(1).step_by(2);
            let values = cells[1].split(", ").map(|it| it.replace([',', '`'], ""));
            let values: Vec<String> = values.collect();
            assert_eq!(keys.clone().count(), values.len(), "{row}");
            told.extend(keys.map(str::to_owned).zip(values));
        }
        told
    }

    #[test]
    fn the_specification_tells_the_defaults() {
        let annotated: toml::Table = toml::from_str(ANNOTATED).unwrap();
        let of_gateway = told_by_spec("11.2").into_iter();
        let of_gateway = of_gateway.map(|(key, value)| (format!("gateway.{key}"), value));
        let told: Vec<_> = of_gateway.chain(told_by_spec("11.3")).collect();
        assert!(told.len() > 35, "{told:?}");
        for (key, value) in told {
            let mut path = key.split('.');
            let table = path.next().and_then(|name| annotated.get(name));
            let found = path.fold(table, |table, name| table?.get(name));
            let found = found.map(|it| it.to_string().replace('"', ""));
            assert_eq!(found, Some(value), "{key}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Config>("[gateway]\nlisten = 1").unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
    }

    #[test]
    fn the_token_key_is_not_shown() {
        let config: Config = toml::from_str("[tokens]\nkey = \"hush\"").unwrap();
        assert!(!format!("{config:?}").contains("hush"));
    }
}
