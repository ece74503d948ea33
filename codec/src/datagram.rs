//! The datagram session: reliable, encrypted UDP (SPEC.md, "The datagram session").
//!
//! Sans-IO: no sockets, no clock, no randomness of its own; time comes in as
//! `now_us` (microseconds on any clock that never goes back) or `unix_ms`, and
//! random bytes as arguments.
//!
//! ```text
//! datagram ─▶ Header ─┬─ handshake ─▶ Acceptor (server, keeps nothing) │ Connector (client) ─▶ SessionKeys
//!                     ├─ session ───▶ SessionKeys::open ─▶ number, payload ─▶ Session::receive ─▶ messages
//!                     └─ reset ─────▶ compare with the session's token
//! messages ─▶ Session::send; Session::transmit ─▶ number, payload ─▶ SessionKeys::seal ─▶ datagram
//! ```
//!
//! [`ServerConnection`] and [`ClientConnection`] join both halves. The files along
//! the road of a message: `outgoing` (messages and their pieces), `session/transmit`
//! (a packet is filled), `sent` (what it carried), `keys` (it is sealed); there `keys`
//! again, `received` (replay window, ACKs), `session/receive` (frames), `incoming`
//! (order, pieces, credit). `session/recovery` does what ACKs and timers ask for.

mod acceptor;
mod channel;
mod class;
mod client_connection;
pub mod config;
mod congestion;
mod connection_id;
mod connector;
mod cookie;
mod credit;
mod frame;
mod handshake;
mod header;
mod incoming;
mod keepalive;
mod keys;
mod message;
mod mtu;
pub(crate) mod noise;
mod numbers;
mod outgoing;
mod packet_number;
mod path;
mod received;
mod reset;
mod rtt;
mod sealed;
pub(crate) mod secret;
mod sent;
mod server_connection;
mod server_key;
mod session;
mod ticket;
mod varint;
mod violation;

pub use acceptor::{Accepted, Acceptor, Arrival, DropReason, Knock};
pub use channel::{Channel, Mode};
pub use client_connection::ClientConnection;
pub use config::Config;
pub use connection_id::ConnectionId;
pub use connector::{
    CONNECT_TIMEOUT_US, ConnectError, Connector, Established, RESEND_FIRST_US, RESEND_MAX_US,
};
pub use cookie::COOKIE_EPOCH_MS;
pub use handshake::{ANSWER_MAX_BYTES, Answer, HELLO_BYTES};
pub use header::{HandshakeHeader, HandshakeKind, Header, HeaderError, SessionHeader, VERSION};
pub use incoming::Sink;
pub(crate) use keys::nonce;
pub use keys::{
    FORGERIES_MAX, KEY_MAX_AGE_US, KEY_MAX_PACKETS, KEY_OVERLAP_US, OpenError, SealError,
    SessionKeys, TAG_BYTES,
};
pub use packet_number::{PACKET_NUMBER_MAX, TruncatedNumber};
pub use reset::ResetToken;
pub use sealed::ReceiveError;
pub use server_connection::{Destination, ServerConnection};
pub use server_key::{KeyError, ServerKey, ServerKeys, ServerPin, ServerPins};
pub use session::{Received, Session, Side, Source, Transmit};
pub use ticket::{AddressTicket, TICKET_LIFETIME_MS};
pub use violation::{End, SendError, Violation};
