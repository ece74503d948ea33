//! What only the operator may do, with the admin token of the config.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use sluice_protocol::{
    UserId,
    packet::{CloseReason, ErrorCode},
};
use sluice_store::UserStatus;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Admin,
    body::{JsonBody, PathOf},
    error::{ApiError, ErrorBody},
};
use crate::peers;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(set_status))
}

/// What a user may do.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Everything.
    Normal,
    /// Log in and read, not send.
    Muted,
    /// Nothing; sessions end at once.
    Banned,
}

/// A user's new status.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewStatus {
    status: Status,
}

/// Mutes or bans a user, or lets them be again.
#[utoipa::path(put, path = "/admin/users/{user_id}/status", tag = "admin",
    request_body = NewStatus, security(("bearer" = [])),
    params(("user_id" = String, Path)),
    responses((status = NO_CONTENT), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn set_status(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    PathOf(user_id): PathOf<String>,
    JsonBody(new): JsonBody<NewStatus>,
) -> Result<StatusCode, ApiError> {
    let user = UserId::parse(&user_id)?;
    let status = match new.status {
        Status::Normal => UserStatus::Normal,
        Status::Muted => UserStatus::Muted,
        Status::Banned => UserStatus::Banned,
    };
    if !api.node.store.set_status(&user, status).await? {
        return Err(ApiError::new(
            ErrorCode::UnknownUser,
            "there is no such user",
        ));
    }
    peers::forget(&api.node, &user).await;
    if status == UserStatus::Banned {
        api.kick(&user, CloseReason::Banned, "you are banned")
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
