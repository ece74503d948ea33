//! What can be set for a session, and what is fixed by the protocol.

/// Largest message, in bytes.
pub const MESSAGE_MAX_BYTES: usize = sluice_protocol::limits::FRAME_MAX_BYTES;
/// Largest message of an unreliable channel, in bytes.
pub const UNRELIABLE_MAX_BYTES: usize = 16 * 1024;
/// Fragments of one message.
pub const FRAGMENTS_MAX: u8 = 64;
/// Messages and their overhead that a session keeps for sending, in bytes.
pub const SEND_MAX_BYTES: usize = 256 * 1024;
/// Messages that lie in a session for sending.
pub const SEND_MAX_MESSAGES: usize = 2048;
/// Reliable messages that a peer may have under way to us before we have handed
/// them on, in bytes with [`MESSAGE_OVERHEAD_BYTES`] each.
pub const CREDIT_WINDOW_BYTES: u32 = 96 * 1024;
/// Unreliable messages of which fragments are awaited, in bytes. Together with
/// [`CREDIT_WINDOW_BYTES`]: the 128 KiB of a session's reassembly.
pub const PARTIAL_MAX_BYTES: usize = 32 * 1024;
/// Charged to credit and to the send buffer for each message, in bytes.
pub const MESSAGE_OVERHEAD_BYTES: u32 = 64;
/// Messages of one reliable channel from the oldest that is unacknowledged to
/// the newest that was begun. It bounds what a receiver remembers to tell
/// messages that come twice.
pub const MESSAGE_WINDOW: u32 = 1024;
/// Packets below the newest that are still taken.
pub const REPLAY_WINDOW_PACKETS: u64 = 1024;
/// Ranges taken in one ACK frame.
pub const ACK_RANGES_MAX: usize = 32;
/// Datagram that every path carries (RFC 9000, section 14), in bytes of UDP payload.
pub const DATAGRAM_MIN_BYTES: u16 = 1200;
/// Ethernet's 1,500 less IPv6 and UDP headers, in bytes of UDP payload.
pub const DATAGRAM_MAX_BYTES: u16 = 1452;
/// Longest time that an ACK is held back, in microseconds.
pub const ACK_DELAY_MAX_US: u64 = 25_000;
/// Bytes of IPv4 and UDP header that a datagram costs on the wire.
pub const DATAGRAM_OVERHEAD_BYTES: u64 = 28;

/// What can be set for a session. Shared by all sessions of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A peer is dead when something that it must answer is under way and
    /// nothing has come from it for this long.
    pub silence_ms: u32,
    /// A session is dead when nothing at all has come for this long; more than
    /// the peer's `keepalive_max_ms` and some answers to it.
    pub idle_ms: u32,
    /// First silence after which a client pings. The server never does.
    pub keepalive_first_ms: u32,
    /// Bound of the client's learning below.
    pub keepalive_min_ms: u32,
    /// Bound of the client's learning above.
    pub keepalive_max_ms: u32,
    /// Bound of MTU probing, 1,200 to 1,452 bytes of UDP payload.
    pub datagram_max_bytes: u16,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            silence_ms: 30_000,
            idle_ms: 90_000,
            keepalive_first_ms: 20_000,
            keepalive_min_ms: 10_000,
            keepalive_max_ms: 45_000,
            datagram_max_bytes: DATAGRAM_MAX_BYTES,
        }
    }
}
