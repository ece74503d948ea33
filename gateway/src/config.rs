//! What can be set about a gateway: the table `[gateway]` of `sluice.toml`.

mod defaults;

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use sluice_bus::BATCH_MAX_BYTES;
use sluice_codec::{
    FRAME_MAX_BYTES_CEILING,
    datagram::config::{DATAGRAM_MAX_BYTES, DATAGRAM_MIN_BYTES},
};
use sluice_protocol::limits::FRAME_MAX_BYTES;

/// Settings of a gateway. Every bound has its unit in its name; the defaults
/// are what a single node ships with.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where TCP clients connect; `None` (in a file: `off`) for no TCP. Port 0 picks a free one.
    #[serde(deserialize_with = "address_or_off")]
    pub tcp_address: Option<SocketAddr>,
    /// Where WebSocket clients connect; `None` for no WebSocket.
    #[serde(deserialize_with = "address_or_off")]
    pub ws_address: Option<SocketAddr>,
    /// Where UDP clients connect; `None` for no UDP. Port 0 picks a free one.
    #[serde(deserialize_with = "address_or_off")]
    pub udp_address: Option<SocketAddr>,
    /// Whether TCP clients may encrypt (SPEC, 17), or must.
    pub tcp_encryption: TcpEncryption,
    /// Health, metrics and the list of connections; `None` for no admin HTTP.
    #[serde(deserialize_with = "address_or_off")]
    pub admin_address: Option<SocketAddr>,
    /// Bearer token for `/metrics` and `/admin`; empty: none is asked for.
    pub admin_token: AdminToken,
    /// Event loops, each a thread; 0: one a core.
    pub event_loops: u16,
    /// Channels of one event loop at once; past it a connection is told
    /// `overloaded` and closed.
    pub connections_per_loop_max: u32,
    /// Limits on one address and one connection.
    pub limits: Limits,
    /// Time limits on channels.
    pub timeouts: Timeouts,
    /// Output, pushes and their retransmission.
    pub push: PushConfig,
    /// Sessions over UDP.
    pub datagrams: DatagramConfig,
    /// Queues towards the bus.
    pub lanes: LaneConfig,
    /// Requests for backends.
    pub requests: RequestConfig,
    /// Registration in the directory.
    pub directory: DirectoryConfig,
    /// Leaving.
    pub drain: DrainConfig,
}

/// Whether TCP clients encrypt by the server's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcpEncryption {
    /// They can't.
    Off,
    /// Each as it likes, on one port.
    #[default]
    Optional,
    /// All must; others get `encryption_required`.
    Required,
}

/// Limits on one address and one connection. 0 means no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest frame after login, in bytes.
    pub frame_max_bytes: usize,
    /// Packets a second from one connection, in the long run.
    pub packets_per_s: u32,
    /// Packets at once after a quiet time.
    pub packets_burst: u32,
    /// Connections at once from one address.
    pub connections_per_address: u32,
    /// New connections a second from one address, in the long run.
    pub connects_per_address_per_s: u32,
    /// New connections at once after a quiet time.
    pub connects_per_address_burst: u32,
    /// Failed logins a minute from one address; then its logins are refused.
    pub failed_logins_per_address_per_min: u32,
    /// Addresses that are remembered; past it the quietest are forgotten.
    pub addresses_max: usize,
    /// Addresses without limits: by default this machine itself.
    pub address_limit_exempt: Vec<IpAddr>,
    /// Sends and requests of one connection that may be without an answer.
    pub unanswered_max: u32,
    /// Pulls and lists of one connection that may be without an answer.
    pub pulls_pending_max: usize,
    /// Nonces of connects with a verified token remembered; past it connections are closed as `overloaded`
    /// before they log in.
    pub replay_entries_max: usize,
    /// How far a connect packet's time may be off.
    pub connect_skew_max_ms: u64,
}

/// Time limits on channels.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From accept to `Connect`, and again from `Connect` to its answer.
    pub login_ms: u64,
    /// From a frame's first byte to its last.
    pub frame_ms: u64,
    /// A client pings after this long without a packet; twice as long without a
    /// sign of life, and it is closed.
    pub heartbeat_interval_ms: u32,
    /// Output over its high-water mark that does not shrink for this long.
    pub slow_reader_ms: u64,
    /// For the last packets of a closing channel to be taken.
    pub closing_ms: u64,
    /// The bus may fail for so long before `/readyz` says so.
    pub bus_ms: u64,
}

/// Output, pushes and their retransmission.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// Output of a channel above this stops its reading and its pushes.
    pub output_high_bytes: usize,
    /// Below this it goes on.
    pub output_low_bytes: usize,
    /// Above this, answers included, the channel is closed as a slow reader.
    pub output_max_bytes: usize,
    /// Unacked pushes of one connection; past it pushes are dropped and one
    /// `Overflow` tells the client to pull.
    pub window_max: usize,
    /// Bytes of entries in that window.
    pub window_max_bytes: usize,
    /// First retransmission before an RTT is known.
    pub rto_initial_ms: u32,
    /// Least wait before a retransmission.
    pub rto_min_ms: u32,
    /// Longest wait between two tries.
    pub rto_max_ms: u32,
    /// Times that a push is written, the first one included.
    pub tries_max: u8,
    /// Span over which clients spread their checks after a `Resync`.
    pub resync_delay_max_ms: u32,
    /// Delivered cursors are gathered for this long.
    pub ack_flush_ms: u64,
    /// Delivered cursors gathered at once in a loop; past it they are sent early.
    pub ack_cursors_max: usize,
    /// What a closed connection had unacked waits so long for its client to come
    /// back; 0: not at all, and the client pulls.
    pub legacy_ms: u64,
    /// Bytes of that in one loop; past it the oldest is dropped.
    pub legacy_max_bytes: usize,
}

/// Sessions over UDP. When to ping is the client's to say: the server never does.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatagramConfig {
    /// A client is gone when it owes an answer and nothing has come from it for
    /// so long.
    pub silence_ms: u32,
    /// And when nothing at all has come for so long.
    pub idle_ms: u32,
    /// Largest datagram that is tried, in bytes of UDP payload: from 1,200, which every
    /// path carries, to 1,452.
    pub datagram_max_bytes: u16,
}

/// Queues towards the bus.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneConfig {
    /// Entries in one lane.
    pub entries_max: usize,
    /// Bytes in one lane.
    pub bytes_max: usize,
    /// What `Busy` tells a client at least; up to twice as long, at random.
    pub retry_after_ms: u32,
    /// First wait before a failed append is repeated; doubles.
    pub append_retry_min_ms: u64,
    /// Longest wait before a failed append is repeated.
    pub append_retry_max_ms: u64,
}

/// Requests for backends.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestConfig {
    /// Services that clients may ask. Others are `unknown_service`.
    pub services: Vec<String>,
    /// Requests of one connection that wait for an answer.
    pub pending_max: usize,
    /// When the client names no time.
    pub timeout_default_ms: u32,
    /// Whatever the client names.
    pub timeout_max_ms: u32,
}

/// Registration in the directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryConfig {
    /// After this long without renewal this gateway counts as dead.
    pub lease_ttl_ms: u64,
    /// All binds are said again this often.
    pub reassert_interval_ms: u64,
    /// All sessions are checked this often: one that a logout, a ban or a change
    /// of password should have ended may have missed its kick.
    pub session_check_interval_ms: u64,
    /// Unbinds that wait; past it one is dropped, and the stale route stays
    /// until the device logs in again or this gateway ends.
    pub unbind_queue_max: usize,
}

/// Leaving.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Clients reconnect after a random time up to this.
    pub reconnect_delay_max_ms: u32,
    /// For clients to finish and leave by themselves.
    pub grace_ms: u64,
}

/// A bearer token that is not shown in logs.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct AdminToken(String);

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) &'static str);

// === impl Config ===

impl Config {
    /// Looks for settings that can't be or that contradict each other.
    ///
    /// # Errors
    /// The first that was found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (limits, push) = (&self.limits, &self.push);
        let rules = [
            (
                self.connections_per_loop_max > 0,
                "connections_per_loop_max must be above 0",
            ),
            (
                limits.frame_max_bytes >= FRAME_MAX_BYTES
                    && limits.frame_max_bytes <= FRAME_MAX_BYTES_CEILING,
                "limits.frame_max_bytes must be from 64 KiB to 16 MiB",
            ),
            (
                push.output_low_bytes < push.output_high_bytes
                    && push.output_high_bytes < push.output_max_bytes,
                "push.output_low_bytes, output_high_bytes and output_max_bytes must rise in this order",
            ),
            (
                push.window_max > 0 && push.tries_max > 0,
                "push.window_max and push.tries_max must be above 0",
            ),
            (
                push.rto_min_ms > 0 && push.rto_min_ms <= push.rto_max_ms,
                "push.rto_min_ms must be above 0 and at most push.rto_max_ms",
            ),
            (
                self.lanes.entries_max > 0 && self.lanes.bytes_max >= BATCH_MAX_BYTES,
                "lanes.entries_max must be above 0 and lanes.bytes_max at least 512 KiB",
            ),
            (
                self.requests
                    .services
                    .iter()
                    .all(|name| is_service_name(name)),
                "requests.services: a name is 1 to 64 letters, digits, '-', '_' or '.'",
            ),
            (
                self.requests.timeout_default_ms > 0
                    && self.requests.timeout_default_ms <= self.requests.timeout_max_ms,
                "requests.timeout_default_ms must be above 0 and at most requests.timeout_max_ms",
            ),
            (
                self.timeouts.heartbeat_interval_ms > 0,
                "timeouts.heartbeat_interval_ms must be above 0",
            ),
            (
                self.datagrams.silence_ms >= 1_000
                    && self.datagrams.silence_ms <= self.datagrams.idle_ms,
                "datagrams.silence_ms must be at least 1000 and at most datagrams.idle_ms",
            ),
            (
                // Clients ping after one and a half intervals at the latest.
                u64::from(self.datagrams.idle_ms)
                    >= 2 * u64::from(self.timeouts.heartbeat_interval_ms),
                "datagrams.idle_ms must be at least twice timeouts.heartbeat_interval_ms",
            ),
            (
                (DATAGRAM_MIN_BYTES..=DATAGRAM_MAX_BYTES)
                    .contains(&self.datagrams.datagram_max_bytes),
                "datagrams.datagram_max_bytes must be from 1200 to 1452",
            ),
            (
                self.all_spans_ms().all(|span_ms| span_ms <= SPAN_MAX_MS),
                "no time may be longer than a year",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(ConfigError(broken)),
            None => Ok(()),
        }
    }

    fn all_spans_ms(&self) -> impl Iterator<Item = u64> {
        let timeouts = &self.timeouts;
        [
            timeouts.login_ms,
            timeouts.frame_ms,
            timeouts.slow_reader_ms,
            timeouts.closing_ms,
            timeouts.bus_ms,
            self.push.ack_flush_ms,
            self.push.legacy_ms,
            self.lanes.append_retry_min_ms,
            self.lanes.append_retry_max_ms,
            self.directory.lease_ttl_ms,
            self.directory.reassert_interval_ms,
            self.directory.session_check_interval_ms,
            self.drain.grace_ms,
            self.limits.connect_skew_max_ms,
        ]
        .into_iter()
    }
}

const SPAN_MAX_MS: u64 = 366 * 24 * 3600 * 1000;

// === impl AdminToken ===

impl AdminToken {
    /// The token; empty where there is none.
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
        f.write_str(if self.0.is_empty() { "none" } else { "set" })
    }
}

/// Names become parts of stream names, where other characters have a meaning.
/// An address, or the word `off`.
fn address_or_off<'de, D: serde::Deserializer<'de>>(
    source: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(source)?;
    if text == "off" {
        return Ok(None);
    }
    let address = text.parse().map(Some);
    address.map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is neither an address and a port, such as 127.0.0.1:8901, nor \"off\""
        ))
    })
}

fn is_service_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_nonsense_does_not() {
        assert_eq!(Config::default().check(), Ok(()));
        let mut config = Config::default();
        config.push.output_low_bytes = config.push.output_high_bytes;
        assert!(config.check().is_err());
        let mut config = Config::default();
        config.timeouts.login_ms = u64::MAX;
        assert!(config.check().is_err());
        let wrong: [fn(&mut Config); 5] = [
            |config| config.datagrams.silence_ms = 999,
            |config| config.datagrams.silence_ms = 90_001,
            |config| config.timeouts.heartbeat_interval_ms = 45_001,
            |config| config.datagrams.datagram_max_bytes = 1_199,
            |config| config.datagrams.datagram_max_bytes = 1_453,
        ];
        for spoil in wrong {
            let mut config = Config::default();
            spoil(&mut config);
            let broken = config.check().unwrap_err().to_string();
            assert!(broken.starts_with("datagrams."), "{broken}");
        }
    }

    #[test]
    fn the_admin_token_is_not_shown() {
        let config = Config {
            admin_token: "hush".into(),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
