//! Sending a message over HTTP, for programs that hold no connection.

use std::sync::Arc;

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use sluice_protocol::{Refusal, SendRequest, packet, packet::packet::Body};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Caller,
    body::JsonBody,
    error::{ApiError, ErrorBody},
    json::{Ack, Kind, new_client_msg_id, parse_client_msg_id},
};
use crate::clock;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(send))
}

/// A message. Either `to_user` or `conversation_id`; either `text` or `body`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    #[serde(default)]
    to_user: Option<String>,
    #[serde(default)]
    conversation_id: Option<String>,
    /// UUIDv7: makes a repeat harmless. A fresh one when absent.
    #[serde(default)]
    client_msg_id: Option<String>,
    /// `client_msg_id` of one's previous message in this conversation: this one
    /// is refused unless that one is stored.
    #[serde(default)]
    predecessor: Option<String>,
    #[serde(default)]
    content_type: Kind,
    #[serde(default)]
    text: Option<String>,
    /// Base64.
    #[serde(default)]
    body: Option<String>,
}

/// Sends a message; answers when it is stored.
#[utoipa::path(post, path = "/messages", tag = "messages", request_body = NewMessage,
    security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn send(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    JsonBody(message): JsonBody<NewMessage>,
) -> Result<Json<Ack>, ApiError> {
    let send = message.into_send()?;
    // Parsed here as well: it names the partition.
    let request = SendRequest::parse(send.clone(), &user.id, clock::now_ms())?;
    let ack = api
        .calls
        .packet(&user.id, &request.conversation, Body::Send(send))
        .await?;
    Ok(Json(ack.into()))
}

// === impl NewMessage ===

impl NewMessage {
    fn into_send(self) -> Result<packet::Send, ApiError> {
        let target = match (self.to_user, self.conversation_id) {
            (Some(user), None) => packet::send::Target::ToUser(user),
            (None, Some(id)) => packet::send::Target::ConversationId(id),
            _ => return Err(Refusal::bad_request("give either to_user or conversation_id").into()),
        };
        let body: Bytes = match (self.text, self.body) {
            (Some(text), None) => text.into(),
            (None, Some(body)) => STANDARD
                .decode(body)
                .map_err(|_| Refusal::bad_request("body is no base64"))?
                .into(),
            _ => return Err(Refusal::bad_request("give either text or body").into()),
        };
        let id = match self.client_msg_id {
            Some(text) => parse_client_msg_id(&text)?,
            None => new_client_msg_id(),
        };
        let predecessor = match self.predecessor {
            Some(text) => Bytes::copy_from_slice(parse_client_msg_id(&text)?.as_bytes()),
            None => Bytes::new(),
        };
        Ok(packet::Send {
            delivery_class: packet::DeliveryClass::Durable.into(),
            target: Some(target),
            client_msg_id: Bytes::copy_from_slice(id.as_bytes()),
            predecessor,
            content_type: packet::ContentType::from(self.content_type).into(),
            body,
        })
    }
}
