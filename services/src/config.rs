//! What can be set, as the table `[services]` of `sluice.toml`.

use serde::Deserialize;
use sluice_bus::DevicePolicy;
use sluice_protocol::limits::{DEVICES_MAX, RECALL_WINDOW_MS};

/// Settings of the services. Every bound names its unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which services run in this process.
    pub roles: Roles,
    /// Entries that a partition's owner takes from the bus at once.
    pub message_batch_max_entries: usize,
    /// After this long without a sign of life the other nodes share a node's
    /// partitions among themselves.
    pub owner_ttl_ms: u64,
    /// Entries that a consumer of logins, reads or acks takes at once.
    pub shared_batch_max_entries: usize,
    /// Pulls of one user that are worked on in a consumer's batch; more get `Busy`.
    pub pulls_per_user_max: usize,
    /// Pages of one user's conversation list read at once, for HTTP and pulls
    /// together; more get `Busy` or 429.
    pub lists_per_user_max: usize,
    /// Whether this process keeps what it has read of groups, users and logs. Off,
    /// every question goes to the store: slower, with the same answers.
    pub caches: bool,
    /// Newest entries of groups that this process keeps in memory, for the pulls
    /// of their members.
    pub recent_cached_max_bytes: u64,
    /// Groups whose members one partition's owner keeps in memory.
    pub groups_cached_max: usize,
    /// Users and pairs whose status and blocks this process keeps in memory.
    pub standings_cached_max: usize,
    /// A mute or block set by another process holds here at once; after this span,
    /// should word of it be lost.
    pub standing_ttl_ms: u64,
    /// Within this span a sender may recall a message.
    pub recall_window_ms: u64,
    /// Which sessions of a user may live side by side.
    pub device_policy: DeviceRule,
    /// Live devices of one user.
    pub devices_max: usize,
    /// Life of a token from login.
    pub token_lifetime_ms: u64,
    /// Memory of one password hash.
    pub argon2_memory_kib: u32,
    /// Passes of one password hash over its memory.
    pub argon2_iterations: u32,
    /// Password hashes computed at once; more logins and registrations wait.
    pub password_hashes_at_once_max: usize,
    /// Logins and registrations that wait for that; over it, 503.
    pub password_waits_max: usize,
    /// One that waited this long gets 503.
    pub password_wait_ms: u64,
    /// Those of one address that hash or wait; over it, 429. Addresses in
    /// `http.address_limit_exempt` are free of it.
    pub password_hashes_per_address_max: usize,
    /// Wrong or right, this many logins a user id and minute; over it, 429.
    pub logins_per_user_per_minute: u32,
    /// User ids whose login attempts are counted.
    pub login_table_max_users: usize,
    /// People whom one user adds to groups in an hour, by this process; over it, 429.
    pub additions_per_user_per_hour: u32,
    /// User ids whose additions are counted.
    pub additions_table_max_users: usize,
    /// Bearer token of the admin routes; they don't exist while it is empty.
    pub admin_token: AdminToken,
    /// HTTP calls of one user that only look (GET), at once; over it, 429.
    pub http_reads_per_user_max: usize,
    /// Those of all users; over it, 503.
    pub http_reads_max: usize,
    /// HTTP calls of one user that change something, at once; over it, 429.
    pub http_changes_per_user_max: usize,
    /// HTTP calls that wait for a partition's owner at once; over it, 503.
    pub http_pending_max: usize,
    /// An HTTP call that waited this long for a partition's owner gets 504.
    pub http_timeout_ms: u64,
    /// For the whole body of an HTTP call; over it, 408.
    pub http_body_timeout_ms: u64,
    /// Batches that wait for one gateway's stream; over it they are dropped
    /// and the gateway tells its clients to resync.
    pub downlink_queue_max_batches: usize,
    /// For this long a batch for a gateway is tried while the bus is away.
    pub downlink_retry_ms: u64,
}

/// Which services run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Accounts, logins and sessions.
    pub user: bool,
    /// Messages, receipts and pulls; owns partitions.
    pub message: bool,
    /// The HTTP API of groups; their changes run at the partitions' owners.
    pub group: bool,
}

/// [`DevicePolicy`] as it is written in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceRule {
    /// One session a device id.
    #[default]
    EachDevice,
    /// One session a platform class.
    EachPlatform,
    /// One session in all.
    Single,
}

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct AdminToken(String);

// === impl Config ===

impl Config {
    /// Whether the services can work with these values.
    ///
    /// # Errors
    /// Names the first that they can't.
    pub fn check(&self) -> Result<(), String> {
        let wanted = [
            ("message_batch_max_entries", self.message_batch_max_entries),
            ("shared_batch_max_entries", self.shared_batch_max_entries),
            ("groups_cached_max", self.groups_cached_max),
            ("standings_cached_max", self.standings_cached_max),
            ("devices_max", self.devices_max),
            (
                "password_hashes_at_once_max",
                self.password_hashes_at_once_max,
            ),
            (
                "password_hashes_per_address_max",
                self.password_hashes_per_address_max,
            ),
            ("login_table_max_users", self.login_table_max_users),
            (
                "additions_per_user_per_hour",
                self.additions_per_user_per_hour as usize,
            ),
            ("additions_table_max_users", self.additions_table_max_users),
            ("pulls_per_user_max", self.pulls_per_user_max),
            ("lists_per_user_max", self.lists_per_user_max),
            ("http_reads_per_user_max", self.http_reads_per_user_max),
            ("http_reads_max", self.http_reads_max),
            ("http_changes_per_user_max", self.http_changes_per_user_max),
            ("http_pending_max", self.http_pending_max),
            (
                "downlink_queue_max_batches",
                self.downlink_queue_max_batches,
            ),
            (
                "logins_per_user_per_minute",
                self.logins_per_user_per_minute as usize,
            ),
            ("argon2_iterations", self.argon2_iterations as usize),
            ("http_timeout_ms", self.http_timeout_ms as usize),
            ("http_body_timeout_ms", self.http_body_timeout_ms as usize),
            ("token_lifetime_ms", self.token_lifetime_ms as usize),
            ("owner_ttl_ms", self.owner_ttl_ms as usize),
        ];
        match wanted.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must be above 0")),
            None => Ok(()),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            roles: Roles::default(),
            message_batch_max_entries: 256,
            owner_ttl_ms: 5000,
            shared_batch_max_entries: 128,
            pulls_per_user_max: 16,
            lists_per_user_max: 2,
            caches: true,
            recent_cached_max_bytes: 16 << 20,
            groups_cached_max: 1024,
            standings_cached_max: 65_536,
            standing_ttl_ms: 10_000,
            recall_window_ms: RECALL_WINDOW_MS,
            device_policy: DeviceRule::default(),
            devices_max: DEVICES_MAX,
            token_lifetime_ms: 24 * 3600 * 1000,
            // OWASP's recommended minimum for Argon2id.
            argon2_memory_kib: 19 * 1024,
            argon2_iterations: 2,
            password_hashes_at_once_max: 4,
            password_waits_max: 128,
            password_wait_ms: 1000,
            password_hashes_per_address_max: 8,
            logins_per_user_per_minute: 10,
            login_table_max_users: 65_536,
            additions_per_user_per_hour: 1000,
            additions_table_max_users: 65_536,
            admin_token: AdminToken::default(),
            http_reads_per_user_max: 8,
            http_reads_max: 256,
            http_changes_per_user_max: 64,
            http_pending_max: 4096,
            http_timeout_ms: 10_000,
            http_body_timeout_ms: 30_000,
            downlink_queue_max_batches: 1024,
            downlink_retry_ms: 2000,
        }
    }
}

// === impl Roles ===

impl Default for Roles {
    fn default() -> Self {
        Self {
            user: true,
            message: true,
            group: true,
        }
    }
}

// === impl DeviceRule ===

impl From<DeviceRule> for DevicePolicy {
    fn from(rule: DeviceRule) -> Self {
        match rule {
            DeviceRule::EachDevice => DevicePolicy::EachDevice,
            DeviceRule::EachPlatform => DevicePolicy::EachPlatform,
            DeviceRule::Single => DevicePolicy::Single,
        }
    }
}

// === impl AdminToken ===

impl AdminToken {
    /// The token itself; empty when there is none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AdminToken {
    fn from(token: &str) -> Self {
        Self(token.to_owned())
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0.as_str() {
            "" => "none",
            _ => "set",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_token_is_not_shown() {
        let config = Config {
            admin_token: "hush".into(),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
