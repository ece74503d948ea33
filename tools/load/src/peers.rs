//! Other systems under the same load: their clients' side, one protocol a file.
//!
//! What the pairs do is the same everywhere: client 0 with client 1, 2 with 3, each
//! message acked to its sender by whatever the protocol has for that, and received by
//! the other. What such an ack promises differs; who prints a comparison says so.
//! Whatever a server says is bounded before it is kept.

mod jetstream;
mod mqtt;
mod nats;
mod xmpp;

#[cfg(test)]
mod fed;

use serde::{Deserialize, Serialize};

use crate::{Login, driver::Driver};

/// What the clients of another system speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 3.1.1, QoS 1 both ways, in sessions that outlive their connections.
    Mqtt,
    /// NATS without anything kept, each batch answered by a PONG.
    Nats,
    /// NATS with a stream of all messages and a consumer of each user.
    JetStream,
    /// XMPP with stream management, each batch of messages acked by its count.
    Xmpp,
}

/// What goes wrong with another system's protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Bytes that the protocol doesn't allow.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// More than is taken from any server.
    #[error("{what} of more than {max_bytes} bytes")]
    TooLong {
        /// Of it.
        what: &'static str,
        /// What is taken.
        max_bytes: usize,
    },
    /// The server doesn't do what a client has to have.
    #[error("{what} is refused: {reason}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The server's word.
        reason: String,
    },
    /// Something that a client of this kind has no use for.
    #[error("nobody has asked for {0}")]
    Unexpected(String),
}

/// Signs of life are asked of all alike.
const HEARTBEAT_INTERVAL_MS: u32 = 60_000;
/// The window is the generator's alone.
const WINDOW: u32 = crate::WINDOW_MAX;
/// Of a message with all that is around it.
const MESSAGE_MAX_BYTES: usize = 128 * 1024;

// === impl Protocol ===

impl Protocol {
    /// Clients that are these users, a password being the token, and whose messages have
    /// bodies of so many bytes.
    pub fn driver(self, logins: Vec<Login>, body_bytes: usize) -> Box<dyn Driver> {
        match self {
            Self::Mqtt => Box::new(mqtt::Mqtt::new(logins, body_bytes)),
            Self::Nats => Box::new(nats::Nats::new(logins, body_bytes)),
            Self::Xmpp => Box::new(xmpp::Xmpp::new(logins, body_bytes)),
            Self::JetStream => Box::new(jetstream::JetStream::new(logins, body_bytes)),
        }
    }
}
