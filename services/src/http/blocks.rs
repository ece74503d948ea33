//! Block lists: whose private messages a user does not take.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use sluice_protocol::{UserId, packet::ErrorCode};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Caller,
    body::PathOf,
    error::{ApiError, ErrorBody},
};
use crate::peers;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(block, unblock))
}

/// Takes no private messages from a user any more.
#[utoipa::path(put, path = "/users/{user_id}/blocks/{other}", tag = "users",
    security(("bearer" = [])),
    params(("user_id" = String, Path, description = "The caller"),
        ("other" = String, Path, description = "Who is blocked")),
    responses((status = NO_CONTENT), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn block(
    State(api): State<Arc<Api>>,
    caller: Caller,
    PathOf((user_id, other)): PathOf<(String, String)>,
) -> Result<StatusCode, ApiError> {
    set(&api, &caller, &user_id, &other, true).await
}

/// Takes them again.
#[utoipa::path(delete, path = "/users/{user_id}/blocks/{other}", tag = "users",
    security(("bearer" = [])),
    params(("user_id" = String, Path, description = "The caller"),
        ("other" = String, Path, description = "Who was blocked")),
    responses((status = NO_CONTENT), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn unblock(
    State(api): State<Arc<Api>>,
    caller: Caller,
    PathOf((user_id, other)): PathOf<(String, String)>,
) -> Result<StatusCode, ApiError> {
    set(&api, &caller, &user_id, &other, false).await
}

async fn set(
    api: &Api,
    caller: &Caller,
    user_id: &str,
    other: &str,
    on: bool,
) -> Result<StatusCode, ApiError> {
    let blocker = &caller.must_be(user_id)?.id;
    let blocked = UserId::parse(other)?;
    if *blocker == blocked {
        return Err(ApiError::new(
            ErrorCode::BadRequest,
            "nobody blocks themselves",
        ));
    }
    api.node.store.set_block(blocker, &blocked, on).await?;
    peers::forget(&api.node, blocker).await;
    Ok(StatusCode::NO_CONTENT)
}
