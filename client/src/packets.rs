//! The packets that an application's calls become.

use bytes::Bytes;
use sluice_protocol::{
    ConversationId, UserId,
    limits::BODY_MAX_BYTES,
    packet::{self, ContentType, DeliveryClass, packet::Body},
};

use crate::{SendError, Target};

/// An answer that the gateway gives at a request's very timeout is waited for.
pub(crate) const REQUEST_GRACE_MS: u64 = 2_000;

// === impl Target ===

impl Target {
    pub(crate) fn conversation(self, user: &UserId) -> Result<ConversationId, SendError> {
        match self {
            Self::Conversation(conversation) => Ok(conversation),
            Self::User(other) => {
                ConversationId::private(user, &other).map_err(|_| SendError::ToOneself)
            }
        }
    }
}

/// One that the server takes, by its length.
pub(crate) fn checked_body(body: Bytes) -> Result<Bytes, SendError> {
    if body.len() > BODY_MAX_BYTES {
        return Err(SendError::TooLarge {
            bytes: body.len(),
            max_bytes: BODY_MAX_BYTES,
        });
    }
    Ok(body)
}

/// A message without a promise.
pub(crate) fn ephemeral(
    conversation: &ConversationId,
    content_type: ContentType,
    body: Bytes,
) -> Body {
    Body::Send(packet::Send {
        delivery_class: DeliveryClass::Ephemeral.into(),
        target: Some(packet::send::Target::ConversationId(
            conversation.to_string(),
        )),
        client_msg_id: Bytes::new(),
        predecessor: Bytes::new(),
        content_type: content_type.into(),
        body,
    })
}

/// This user is writing.
pub(crate) fn typing(conversation: &ConversationId) -> Body {
    Body::Typing(packet::Typing {
        target: Some(packet::typing::Target::ConversationId(
            conversation.to_string(),
        )),
    })
}
