//! Where Redis is, and the bounds of what we do there.

use std::{fmt, time::Duration};

use serde::Deserialize;

use crate::BusError;

/// How the servers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// A master found by asking Sentinels.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// How to reach Redis, and the bounds of streams and leases on it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// How the servers stand to each other.
    pub mode: RedisMode,
    /// `redis://host:port` of the server, of the Sentinels, or of some of the
    /// cluster's nodes. A user or password in it counts too, but not for Sentinel.
    /// `rediss://` encrypts and checks the certificate, by the system's CAs or
    /// those of the file that the variable `SSL_CERT_FILE` names.
    pub urls: Vec<String>,
    /// The master's name at the Sentinels.
    pub sentinel_master: String,
    /// User for `AUTH`; none is Redis' `default`.
    pub username: Option<String>,
    /// Password for `AUTH`.
    pub password: Option<String>,
    /// Stands before every key, so that several systems can share a Redis. No braces.
    pub key_prefix: String,
    /// To make a connection.
    pub connect_timeout_ms: u64,
    /// For an answer. When it passes, the outcome of a write is unknown.
    pub response_timeout_ms: u64,
    /// Replicas that must have a batch before an append counts as done; 0: none.
    pub wait_replicas: u32,
    /// How long to wait for them. Too few by then: the outcome is unknown.
    pub wait_timeout_ms: u64,
    /// Entries that one stream holds, read and unacknowledged ones included.
    pub stream_max_entries: u64,
    /// How often an append to a full stream looks for room.
    pub full_poll_ms: u64,
    /// A reader's lease on its stream; it is renewed every third of this.
    pub lease_ttl_ms: u64,
    /// How often who waits for a lease asks for it.
    pub lease_poll_ms: u64,
    /// How long a read sleeps at most before it looks by itself.
    pub block_ms: u64,
    /// Entries of a shared stream whose consumer has been silent for so long go
    /// to another.
    pub claim_idle_ms: u64,
    /// Deliveries after which an entry is taken for poison and set aside.
    pub deliveries_max: u32,
    /// Entries that the dead-letter list of one stream holds; the oldest go first.
    pub dead_letters_max_entries: u64,
}

// === impl RedisConfig ===

impl RedisConfig {
    /// Whether the values make sense together.
    ///
    /// # Errors
    /// Says what doesn't.
    pub fn check(&self) -> Result<(), String> {
        if self.urls.is_empty() {
            return Err("urls is empty".into());
        }
        if self.key_prefix.contains(['{', '}']) {
            return Err("key_prefix contains a brace".into());
        }
        if self.mode == RedisMode::Sentinel && self.sentinel_master.is_empty() {
            return Err("sentinel_master is empty".into());
        }
        let positive = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("response_timeout_ms", self.response_timeout_ms),
            ("stream_max_entries", self.stream_max_entries),
            ("full_poll_ms", self.full_poll_ms),
            ("lease_poll_ms", self.lease_poll_ms),
            ("block_ms", self.block_ms),
            ("claim_idle_ms", self.claim_idle_ms),
            ("deliveries_max", u64::from(self.deliveries_max)),
            ("dead_letters_max_entries", self.dead_letters_max_entries),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0"));
        }
        if self.lease_ttl_ms < 300 {
            return Err("lease_ttl_ms is below 300".into());
        }
        Ok(())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    pub(crate) fn checked(&self) -> Result<(), BusError> {
        let refused = |why| BusError::Unavailable(format!("configuration of Redis: {why}"));
        self.check().map_err(refused)
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            urls: vec!["redis://127.0.0.1:6379".into()],
            sentinel_master: "mymaster".into(),
            username: None,
            password: None,
            key_prefix: "sluice:".into(),
            connect_timeout_ms: 2_000,
            response_timeout_ms: 2_000,
            wait_replicas: 0,
            wait_timeout_ms: 200,
            stream_max_entries: 16_384,
            full_poll_ms: 20,
            lease_ttl_ms: 5_000,
            lease_poll_ms: 250,
            block_ms: 1_000,
            claim_idle_ms: 5_000,
            deliveries_max: 16,
            dead_letters_max_entries: 10_000,
        }
    }
}

/// Shows neither the password nor the user part of a URL.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(|url| without_user(url)).collect();
        f.debug_struct("RedisConfig")
            .field("mode", &self.mode)
            .field("urls", &urls)
            .field("sentinel_master", &self.sentinel_master)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("key_prefix", &self.key_prefix)
            .field("lease_ttl_ms", &self.lease_ttl_ms)
            .field("stream_max_entries", &self.stream_max_entries)
            .finish_non_exhaustive()
    }
}

/// `redis://user:password@host` as `redis://host`.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_logs() {
        let config = RedisConfig {
            urls: vec!["redis://me:hush@db:6379/".into()],
            password: Some("hush".into()),
            ..RedisConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("hush") && shown.contains("redis://db:6379/"),
            "{shown}"
        );
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(RedisConfig::default().check(), Ok(()));
        let braces = RedisConfig {
            key_prefix: "{a}".into(),
            ..RedisConfig::default()
        };
        assert!(braces.check().is_err());
        let nowhere = RedisConfig {
            urls: Vec::new(),
            ..RedisConfig::default()
        };
        assert!(nowhere.check().is_err());
    }
}
