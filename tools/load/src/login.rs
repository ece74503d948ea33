//! Who logs in, and the packet by which.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sluice_codec::encode_packet;
use sluice_protocol::{
    DeviceId, IdError, PROTOCOL_VERSION, UserId,
    limits::FRAME_MAX_BYTES,
    packet::{self, Packet, packet::Body},
};

use crate::LoadError;

/// Who logs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Words", try_from = "Words")]
pub struct Login {
    /// Whose token it is.
    pub user: UserId,
    /// The user's device.
    pub device: DeviceId,
    /// A JWT of the user.
    pub token: String,
}

type Words = (String, String, String);

// === impl Login ===

impl Login {
    /// The first packet of a connection, encoded.
    pub(crate) fn packet(&self) -> Result<Vec<u8>, LoadError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nonce: u128 = rand::random();
        let connect = Body::Connect(packet::Connect {
            protocol_version: PROTOCOL_VERSION,
            token: self.token.clone(),
            device_id: self.device.to_string(),
            platform: packet::Platform::Bot.into(),
            nonce: nonce.to_be_bytes().to_vec().into(),
            time_ms: now.map(|span| span.as_millis() as u64).unwrap_or_default(),
            agent: concat!("sluice-load/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Default::default()
        });
        let packet = Packet {
            id: 1,
            body: Some(connect),
        };
        let encoded = encode_packet(&packet, FRAME_MAX_BYTES);
        let encoded = encoded.map_err(|error| LoadError::Unexpected(error.to_string()))?;
        Ok(encoded.to_vec())
    }
}

impl From<Login> for Words {
    fn from(login: Login) -> Self {
        (
            login.user.to_string(),
            login.device.to_string(),
            login.token,
        )
    }
}

impl TryFrom<Words> for Login {
    type Error = IdError;

    fn try_from((user, device, token): Words) -> Result<Self, IdError> {
        Ok(Self {
            user: UserId::parse(&user)?,
            device: DeviceId::parse(&device)?,
            token,
        })
    }
}
