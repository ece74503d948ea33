//! What a client over UDP is made of.

use sluice_codec::datagram::{Config, ServerPins};
use sluice_protocol::{DeviceId, UserId};

use crate::SessionConfig;

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct DatagramSettings {
    /// Who logs in.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// The login token; may be empty where the state holds a resume token.
    pub token: String,
    /// The server's public keys.
    pub pins: ServerPins,
    /// Unix milliseconds now, 0 where the device doesn't know: it learns from the server.
    pub unix_ms: u64,
    /// Spans and bounds of the session.
    pub session: SessionConfig,
    /// Of the datagram session.
    pub datagram: Config,
}
