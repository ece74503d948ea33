//! The server's side of WebSocket (RFC 6455): handshake, frames, control frames.
//!
//! One packet a binary message. No extensions, so no reserved bits; a client's
//! frames must be masked, the server's are not. Nothing here is kept for an
//! open connection between two messages.

mod handshake;
mod header;
mod open;
mod send;
mod violation;

pub use handshake::HandshakeError;
pub use header::Opcode;
pub use send::{append_close, append_pong, close_code, encode_header};
pub use violation::Violation;

pub(crate) use handshake::{Handshake, bad_request};
pub(crate) use open::OpenState;

/// Largest request line and header of a handshake, in bytes.
pub const HANDSHAKE_MAX_BYTES: usize = 8 * 1024;

/// Largest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_MAX_BYTES: usize = 125;
