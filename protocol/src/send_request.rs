//! A send as the server works on it: parsed and checked, not to be validated again.

use bytes::Bytes;

use crate::{
    ClientMsgId, ConversationId, Refusal, UserId,
    limits::{BODY_MAX_BYTES, CLIENT_MSG_ID_AHEAD_MAX_MS, DEDUP_HORIZON_MS},
    packet::{self, ContentType, DeliveryClass, ErrorCode},
};

/// A checked `Send` of a known sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest {
    /// Where it goes, a private target already resolved; decides the lane.
    pub conversation: ConversationId,
    /// Stored and acked, or only passed on.
    pub class: SendClass,
    /// What the body holds.
    pub content_type: ContentType,
    /// At most [`BODY_MAX_BYTES`]; may be empty.
    pub body: Bytes,
}

/// What is promised for a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendClass {
    /// Stored before acked, deduplicated by its id, after its predecessor.
    Durable {
        /// The sender's name for it.
        client_msg_id: ClientMsgId,
        /// The sender's previous send in the conversation, if it was unacked.
        predecessor: Option<ClientMsgId>,
    },
    /// To whom is online now.
    Ephemeral,
}

impl SendRequest {
    /// Checks every field of a wire send; `now_ms` is the server's clock.
    ///
    /// # Errors
    /// `bad_request` naming the field, `too_large`, `not_a_member` (a private
    /// conversation of two others), `expired` (id older than the dedup horizon).
    pub fn parse(send: packet::Send, sender: &UserId, now_ms: u64) -> Result<Self, Refusal> {
        let conversation = match send.target {
            Some(packet::send::Target::ToUser(name)) => {
                ConversationId::private(sender, &UserId::parse(&name)?)?
            }
            Some(packet::send::Target::ConversationId(id)) => ConversationId::parse(&id)?,
            None => return Err(Refusal::bad_request("target is missing")),
        };
        conversation.check_party(sender)?;
        if send.body.len() > BODY_MAX_BYTES {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!(
                    "body has {} bytes, at most {BODY_MAX_BYTES} are allowed",
                    send.body.len()
                ),
            ));
        }
        let content_type = ContentType::try_from(send.content_type)
            .map_err(|_| Refusal::bad_request("content_type is unknown"))?;
        let class = match DeliveryClass::try_from(send.delivery_class) {
            Ok(DeliveryClass::Ephemeral) => SendClass::Ephemeral,
            Ok(DeliveryClass::Durable) => SendClass::Durable {
                client_msg_id: fresh_client_msg_id(&send.client_msg_id, now_ms)?,
                predecessor: match send.predecessor.as_ref() {
                    [] => None,
                    bytes => Some(ClientMsgId::parse(bytes).map_err(|_| {
                        Refusal::bad_request("predecessor is not the 16 bytes of a UUIDv7")
                    })?),
                },
            },
            Err(_) => return Err(Refusal::bad_request("delivery_class is unknown")),
        };
        Ok(Self {
            conversation,
            class,
            content_type,
            body: send.body,
        })
    }
}

/// Parses a client message id and holds it against the dedup horizon and the clock.
///
/// # Errors
/// `bad_request` when it is no UUIDv7 or from the future, `expired` when it is too old.
pub fn fresh_client_msg_id(bytes: &[u8], now_ms: u64) -> Result<ClientMsgId, Refusal> {
    let id = ClientMsgId::parse(bytes)?;
    if id.unix_ms().saturating_add(DEDUP_HORIZON_MS) < now_ms {
        return Err(Refusal::new(
            ErrorCode::Expired,
            "client_msg_id is older than the dedup horizon of 30 days",
        ));
    }
    if id.unix_ms() > now_ms.saturating_add(CLIENT_MSG_ID_AHEAD_MAX_MS) {
        return Err(Refusal::bad_request(
            "client_msg_id is ahead of the server's clock; take the time from ConnectAck or Pong",
        ));
    }
    Ok(id)
}
