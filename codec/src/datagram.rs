//! The datagram session: reliable, encrypted UDP.
//!
//! Sans-IO: no sockets, no clock, no randomness of its own; time comes in as
//! `now_us` (microseconds on any clock that never goes back) or `unix_ms`, and
//! random bytes as arguments.
//!
//! This part is the way to a session and its sealing:
//!
//! ```text
//! datagram ─▶ Header ─┬─ handshake ─▶ Acceptor (server, keeps nothing) │ Connector (client) ─▶ SessionKeys
//!                     ├─ session ───▶ SessionKeys::open ─▶ packet number, payload
//!                     └─ reset ─────▶ compare with the session's token
//! payload ─▶ SessionKeys::seal ─▶ datagram
//! ```

mod acceptor;
mod connection_id;
mod connector;
mod cookie;
mod handshake;
mod header;
mod keys;
pub(crate) mod noise;
mod packet_number;
mod reset;
pub(crate) mod secret;
mod server_key;
mod ticket;

pub use acceptor::{Accepted, Acceptor, Arrival, DropReason, Knock};
pub use connection_id::ConnectionId;
pub use connector::{
    CONNECT_TIMEOUT_US, ConnectError, Connector, Established, RESEND_FIRST_US, RESEND_MAX_US,
};
pub use cookie::COOKIE_EPOCH_MS;
pub use handshake::{ANSWER_MAX_BYTES, Answer, HELLO_BYTES};
pub use header::{HandshakeHeader, HandshakeKind, Header, HeaderError, SessionHeader, VERSION};
pub(crate) use keys::nonce;
pub use keys::{
    FORGERIES_MAX, KEY_MAX_AGE_US, KEY_MAX_PACKETS, KEY_OVERLAP_US, OpenError, SealError,
    SessionKeys, TAG_BYTES,
};
pub use packet_number::{PACKET_NUMBER_MAX, TruncatedNumber};
pub use reset::ResetToken;
pub use server_key::{KeyError, ServerKey, ServerKeys, ServerPin, ServerPins};
pub use ticket::{AddressTicket, TICKET_LIFETIME_MS};
