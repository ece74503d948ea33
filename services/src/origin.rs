//! Bus entries as the services work on them: decoded, ids parsed.

use bytes::Bytes;
use prost::Message as _;
use sluice_bus::Stream;
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId, envelope, packet};

/// Who asks, as the gateway (or the HTTP API) vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) user: UserId,
    /// `None` for HTTP calls.
    pub(crate) device: Option<DeviceId>,
    /// `None` for HTTP calls.
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) request_id: u64,
    /// Whose `down` stream takes the answer.
    pub(crate) reply_to: Incarnation,
}

/// An entry that no retry can make readable: counted, logged and acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("bus entry can't be read: {0}")]
pub(crate) struct Unreadable(pub(crate) String);

/// One entry of an `up` stream.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// Absent in coalesced acks.
    pub(crate) origin: Option<Origin>,
    pub(crate) body: envelope::up::Body,
}

// === impl Uplink ===

impl Uplink {
    pub(crate) fn decode(payload: Bytes) -> Result<Self, Unreadable> {
        let up = envelope::Up::decode(payload).map_err(|error| Unreadable(error.to_string()))?;
        let body = up.body.ok_or_else(|| Unreadable("no body".into()))?;
        let origin = match up.origin {
            Some(origin) if !origin.user_id.is_empty() => Some(Origin::parse(origin)?),
            _ => None,
        };
        Ok(Self { origin, body })
    }
}

/// The client's packet inside an `Up`.
pub(crate) fn decode_packet(bytes: Bytes) -> Result<packet::packet::Body, Unreadable> {
    packet::Packet::decode(bytes)
        .map_err(|error| Unreadable(error.to_string()))?
        .body
        .ok_or_else(|| Unreadable("packet without body".into()))
}

// === impl Origin ===

impl Origin {
    fn parse(origin: envelope::Origin) -> Result<Self, Unreadable> {
        let bad = |error: sluice_protocol::IdError| Unreadable(error.to_string());
        let Some(Stream::Down(reply_to)) = Stream::parse_down(&origin.reply_to) else {
            return Err(Unreadable("reply_to names no down stream".into()));
        };
        let device = match origin.device_id.as_str() {
            "" => None,
            name => Some(DeviceId::parse(name).map_err(bad)?),
        };
        let connection = match origin.connection_id.as_ref() {
            [] => None,
            bytes => Some(ConnectionId::parse(bytes).map_err(bad)?),
        };
        Ok(Self {
            user: UserId::parse(&origin.user_id).map_err(bad)?,
            device,
            connection,
            request_id: origin.request_id,
            reply_to,
        })
    }

    /// Where the answer goes.
    pub(crate) fn target(&self) -> envelope::Target {
        envelope::Target {
            connection_id: self.connection.map_or_else(Bytes::new, connection_bytes),
            user_id: self.user.as_str().to_owned(),
            user_seq: 0,
        }
    }
}

pub(crate) fn connection_bytes(connection: ConnectionId) -> Bytes {
    Bytes::copy_from_slice(&connection.to_bytes())
}
