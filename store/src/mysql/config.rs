//! Where the servers are and which shards they hold.

use std::fmt;

use serde::Deserialize;

use crate::StoreError;

/// More shards than this have no use.
const SHARDS_MAX: u16 = 4_096;

/// How the store on MySQL or MariaDB is set up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlConfig {
    /// Logical shards. Settled by the first start; a multiple or divisor of the
    /// number of partitions keeps a partition's batch on one server.
    pub shards: u16,
    /// Who holds which of them. The first is home: it issues the store's numbers.
    pub servers: Vec<MysqlServer>,
    /// Connections to each server …
    pub connections_max: u32,
    /// … those kept free for accounts: logins and the bearers of HTTP calls …
    pub account_connections_max: u32,
    /// … and those kept free for the owners of partitions.
    pub owner_connections_max: u32,
    /// How long a request may wait for a connection.
    pub acquire_timeout_ms: u64,
    /// How long one try of a request may take.
    pub request_timeout_ms: u64,
    /// How long a read waits for a replica to catch up; then the server itself
    /// answers.
    pub replica_wait_ms: u64,
    /// How long a try to read from a replica may take in all.
    pub replica_timeout_ms: u64,
    /// How often a transaction is tried when it met a deadlock, a lock held for
    /// too long or a lost connection.
    pub attempts_max: u32,
    /// Commits of this process that may wait for a server or run on it; one more is
    /// answered with [`StoreError::Overloaded`].
    pub queue_max_requests: usize,
    /// Entries after which a transaction takes no further commit.
    pub batch_max_entries: usize,
    /// Users that commits remember as existing.
    pub known_users_max: usize,
}

/// A server and its shards.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MysqlServer {
    /// `mysql://user:password@host:port/database`; the database must be there.
    /// With `?ssl-mode=VERIFY_IDENTITY` (and `&ssl-ca=/path/ca.pem` for a CA of
    /// one's own) the connection is encrypted and the server is who it says.
    pub url: String,
    /// Such as `0-31` or `0-15,32,40-63`.
    pub shards: String,
    /// URLs of its replicas, which answer history and sync once they have caught
    /// up. MariaDB only, with GTIDs and a binary log on the server.
    #[serde(default)]
    pub replicas: Vec<String>,
}

// === impl MysqlConfig ===

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            shards: 64,
            servers: Vec::new(),
            connections_max: 16,
            account_connections_max: 8,
            owner_connections_max: 8,
            acquire_timeout_ms: 3_000,
            request_timeout_ms: 10_000,
            replica_wait_ms: 20,
            replica_timeout_ms: 500,
            attempts_max: 8,
            queue_max_requests: 4_096,
            batch_max_entries: 1_024,
            known_users_max: 131_072,
        }
    }
}

impl MysqlConfig {
    /// All shards on one server.
    pub fn single(url: impl Into<String>) -> Self {
        let config = Self::default();
        let server = MysqlServer {
            url: url.into(),
            shards: format!("0-{}", config.shards - 1),
            replicas: Vec::new(),
        };
        Self {
            servers: vec![server],
            ..config
        }
    }

    /// The server (its place in the list) of each shard.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`] when a shard has no server, or two.
    pub(super) fn placement(&self) -> Result<Vec<usize>, StoreError> {
        let bad = |what: String| Err(StoreError::BadConfig(what));
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return bad(format!("shards must be 1 to {SHARDS_MAX}"));
        }
        let mut placement = vec![None; usize::from(self.shards)];
        for (at, server) in self.servers.iter().enumerate() {
            for range in server.shards.split(',') {
                let Some((from, to)) = parse_range(range) else {
                    return bad(format!("shards {:?}: say 0-31 or 0-15,40", server.shards));
                };
                for shard in from..=to {
                    match placement.get_mut(usize::from(shard)) {
                        Some(place @ None) => *place = Some(at),
                        Some(Some(_)) => return bad(format!("shard {shard} has two servers")),
                        None => return bad(format!("there is no shard {shard}")),
                    }
                }
            }
        }
        let placed = placement.iter().enumerate().map(|(shard, place)| {
            place.ok_or_else(|| StoreError::BadConfig(format!("shard {shard} has no server")))
        });
        placed.collect()
    }
}

// === impl MysqlServer ===

/// Without the URLs: they hold passwords.
impl fmt::Debug for MysqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlServer")
            .field("shards", &self.shards)
            .field("replicas", &self.replicas.len())
            .finish_non_exhaustive()
    }
}

fn parse_range(range: &str) -> Option<(u16, u16)> {
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let mut config = MysqlConfig::single("mysql://sluice:hush@db/sluice");
        config.servers[0].replicas = vec!["mysql://sluice:hush@replica/sluice".into()];
        assert!(!format!("{config:?}").contains("hush"));
    }

    fn config(shards: u16, ranges: &[&str]) -> MysqlConfig {
        MysqlConfig {
            shards,
            servers: (ranges.iter())
                .map(|range| MysqlServer {
                    url: "mysql://localhost/x".to_owned(),
                    shards: (*range).to_owned(),
                    replicas: Vec::new(),
                })
                .collect(),
            ..MysqlConfig::default()
        }
    }

    #[test]
    fn each_shard_has_one_server() {
        assert_eq!(
            config(5, &["0-1, 4", "2-3"]).placement().unwrap(),
            [0, 0, 1, 1, 0]
        );
        for ranges in [&["0-3"][..], &["0-4", "4"], &["0-5"], &["4-0"], &["x"], &[]] {
            let refused = config(5, ranges).placement();
            assert!(
                matches!(refused, Err(StoreError::BadConfig(_))),
                "{ranges:?}"
            );
        }
    }
}
