//! Spans and bounds of a session.

use sluice_protocol::{limits::HOLE_PATIENCE_MS, packet::Platform};

/// Spans and bounds of a session. The defaults suit a phone and a desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// What kind of device this is.
    pub platform: Platform,
    /// Free text for the server's logs, at most 64 bytes.
    pub agent: String,
    /// Sends that may wait for their ack; one more is refused with `Full`.
    pub outbox_max_sends: usize,
    /// Questions that may wait for their answer.
    pub calls_max: usize,
    /// Events that wait for the application before entries are left on the server.
    pub events_max: usize,
    /// Entries of one timeline that wait for an earlier one.
    pub held_max_entries: usize,
    /// A connection must be made within this span.
    pub connect_timeout_ms: u64,
    /// A login must be answered within this span.
    pub login_timeout_ms: u64,
    /// A send is sent again after this span without an ack (then 2, 4, … times it).
    pub ack_timeout_ms: u64,
    /// A missing seq is pulled after this span.
    pub hole_patience_ms: u64,
    /// Pushes are acked at the latest after this span, many at once.
    pub push_ack_delay_ms: u64,
    /// Inbox and heads are checked this often, give or take a half.
    pub heads_interval_ms: u64,
    /// The first wait before a reconnect is random up to this span …
    pub backoff_min_ms: u64,
    /// … doubling with each failure up to this span.
    pub backoff_max_ms: u64,
    /// A client that UDP has failed tries it again, beside the stream that it uses,
    /// after this span, less a random part; then after 2, 4, … times it, up to 30 min.
    pub udp_retry_ms: u64,
    /// Entries asked for in one pull; the server's cap is 200.
    pub pull_limit: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            platform: Platform::Unspecified,
            agent: concat!("sluice-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            outbox_max_sends: 1024,
            calls_max: 64,
            events_max: 512,
            held_max_entries: 512,
            connect_timeout_ms: 10_000,
            login_timeout_ms: 10_000,
            ack_timeout_ms: 10_000,
            hole_patience_ms: HOLE_PATIENCE_MS,
            push_ack_delay_ms: 20,
            heads_interval_ms: 300_000,
            backoff_min_ms: 200,
            backoff_max_ms: 30_000,
            udp_retry_ms: 60_000,
            pull_limit: 200,
        }
    }
}
