//! Conversations: the list, the log, recalls and read marks.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_protocol::{
    ConversationId, Refusal, Seq, UserId,
    packet::{self, ErrorCode, packet::Body},
};
use sluice_store::{ConversationRow, Range};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Caller,
    body::{JsonBody, PathOf, QueryOf},
    error::{ApiError, ErrorBody},
    json::{Ack, Entry, idempotency_key},
};
use crate::{query::page_limit, wire};

/// Conversations in one page of the list.
const LIST_MAX_ROWS: u32 = 50;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(entries))
        .routes(routes!(recall))
        .routes(routes!(read))
}

/// Which page of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListPage {
    /// `next` of the page before.
    cursor: Option<String>,
    /// At most 50.
    #[serde(default)]
    limit: u32,
}

/// Newest first.
#[derive(Serialize, ToSchema)]
struct ConversationList {
    conversations: Vec<Summary>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A line of the list.
#[derive(Serialize, ToSchema)]
struct Summary {
    conversation_id: String,
    group: bool,
    /// The other party, or the group's name.
    title: String,
    /// The first entry that the caller may see …
    first_seq: u64,
    /// … and the last.
    last_seq: u64,
    read_seq: u64,
    unread: u64,
    /// Of the other party; 0 in groups.
    peer_delivered_seq: u64,
    peer_read_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_entry: Option<Entry>,
}

/// Which stretch of the log: `after` ascending, or the newest below `before`
/// (0: the newest of all, as when neither is given).
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Stretch {
    after: Option<u64>,
    before: Option<u64>,
    /// At most 200.
    #[serde(default)]
    limit: u32,
}

/// A stretch of a log, ascending. Who left a group and came back has a window of
/// it for each membership; a stretch lies within one.
#[derive(Serialize, ToSchema)]
struct Log {
    entries: Vec<Entry>,
    /// The window that the stretch lies in begins here …
    first_seq: u64,
    /// … and ends here.
    last_seq: u64,
    /// Whether entries follow in the direction asked for, in this window or in another.
    more: bool,
}

/// A place in a log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Place {
    seq: u64,
}

/// The caller's conversations, newest first.
#[utoipa::path(get, path = "/conversations", tag = "conversations",
    params(ListPage), security(("bearer" = [])),
    responses((status = OK, body = ConversationList), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn list(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    QueryOf(page): QueryOf<ListPage>,
) -> Result<Json<ConversationList>, ApiError> {
    let cursor = match page.cursor {
        None => None,
        Some(text) => Some(
            URL_SAFE_NO_PAD
                .decode(text)
                .ok()
                .and_then(|bytes| wire::parse_list_cursor(&bytes))
                .ok_or_else(|| Refusal::bad_request("cursor is malformed"))?,
        ),
    };
    let limit = match page.limit {
        0 => LIST_MAX_ROWS,
        limit => limit.min(LIST_MAX_ROWS),
    };
    let _seat = api.node.lists.take(&user.id)?;
    let rows = api
        .node
        .store
        .conversations(&user.id, cursor, limit)
        .await?;
    let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = rows
        .last()
        .filter(|_| full)
        .map(|row| URL_SAFE_NO_PAD.encode(wire::list_cursor_bytes(row.cursor)));
    Ok(Json(ConversationList {
        conversations: rows
            .into_iter()
            .map(|row| Summary::of(&user.id, row))
            .collect(),
        next,
    }))
}

/// A stretch of a conversation's log, within the caller's membership.
#[utoipa::path(get, path = "/conversations/{conversation_id}/entries", tag = "conversations",
    params(("conversation_id" = String, Path), Stretch), security(("bearer" = [])),
    responses((status = OK, body = Log), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn entries(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    QueryOf(stretch): QueryOf<Stretch>,
) -> Result<Json<Log>, ApiError> {
    let conversation = conversation_of(&user.id, &id)?;
    let range = match (stretch.after, stretch.before) {
        (Some(seq), None) => Range::After(Seq(seq)),
        (None, before) => Range::Before(Seq(before.unwrap_or(0))),
        (Some(_), Some(_)) => {
            return Err(Refusal::bad_request("give after or before, not both").into());
        }
    };
    let limit = page_limit(stretch.limit);
    let page = api
        .node
        .recent
        .log(&*api.node.store, &user.id, &conversation, range, limit)
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::NotAMember, "you are not in this conversation"))?;
    Ok(Json(Log {
        entries: page.entries.into_iter().map(Entry::from).collect(),
        first_seq: page.first_seq.0,
        last_seq: page.last_seq.0,
        more: page.more,
    }))
}

/// Takes a message back; the header `Idempotency-Key` (UUIDv7) makes a repeat harmless.
#[utoipa::path(post, path = "/conversations/{conversation_id}/recall", tag = "conversations",
    params(("conversation_id" = String, Path)), request_body = Place,
    security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn recall(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
    JsonBody(place): JsonBody<Place>,
) -> Result<Json<Ack>, ApiError> {
    let conversation = conversation_of(&user.id, &id)?;
    let key = idempotency_key(&headers)?;
    let recall = packet::Recall {
        conversation_id: id,
        seq: place.seq,
        client_msg_id: Bytes::copy_from_slice(key.as_bytes()),
    };
    let ack = api
        .calls
        .packet(&user.id, &conversation, Body::Recall(recall))
        .await?;
    Ok(Json(ack.into()))
}

/// Marks all up to `seq` as read; takes effect soon.
#[utoipa::path(post, path = "/conversations/{conversation_id}/read", tag = "conversations",
    params(("conversation_id" = String, Path)), request_body = Place,
    security(("bearer" = [])),
    responses((status = ACCEPTED), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn read(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    JsonBody(place): JsonBody<Place>,
) -> Result<StatusCode, ApiError> {
    conversation_of(&user.id, &id)?;
    let read = packet::Read {
        conversation_id: id,
        seq: place.seq,
    };
    api.calls.read(&user.id, read).await?;
    Ok(StatusCode::ACCEPTED)
}

fn conversation_of(user: &UserId, id: &str) -> Result<ConversationId, ApiError> {
    let conversation = ConversationId::parse(id)?;
    conversation.check_party(user)?;
    Ok(conversation)
}

// === impl Summary ===

impl Summary {
    fn of(user: &UserId, row: ConversationRow) -> Self {
        let title = wire::title(user, &row);
        Self {
            conversation_id: row.conversation.to_string(),
            group: row.conversation.is_group(),
            title,
            first_seq: row.first_seq.0,
            last_seq: row.last_seq.0,
            read_seq: row.read_seq.0,
            unread: row.unread,
            peer_delivered_seq: row.peer_delivered_seq.0,
            peer_read_seq: row.peer_read_seq.0,
            last_entry: row.last_entry.map(Entry::from),
        }
    }
}
