//! Accounts: registration, login, tokens.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use sluice_protocol::{
    UserId,
    limits::NAME_MAX_BYTES,
    packet::{CloseReason, ErrorCode},
};
use sluice_store::{NewUser, User, UserStatus};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Caller,
    body::{JsonBody, PathOf},
    error::{ApiError, ErrorBody},
};
use crate::{Peer, clock};

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(change_password))
        .routes(routes!(presence))
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    /// 1–64 bytes of UTF-8 without control characters.
    user_id: String,
    /// Shown to others; the user id when absent.
    #[serde(default)]
    username: Option<String>,
    /// 8–1024 bytes.
    password: String,
}

/// Proof of identity.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    user_id: String,
    password: String,
}

/// A new password, and the proof that one may set it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    /// The one in force.
    password: String,
    /// 8–1024 bytes.
    new_password: String,
}

/// Whether somebody is there.
#[derive(Serialize, ToSchema)]
struct Presence {
    user_id: String,
    online: bool,
    /// Devices connected now.
    devices: usize,
}

/// An account as it was made.
#[derive(Serialize, ToSchema)]
struct Account {
    user_id: String,
    username: String,
}

/// A token for `Connect` and for the bearer header.
#[derive(Serialize, ToSchema)]
struct Token {
    user_id: String,
    /// A JWT (EdDSA).
    token: String,
    /// When it ends, Unix milliseconds.
    expires_ms: u64,
}

/// Registers a user.
#[utoipa::path(post, path = "/users/register", tag = "users", request_body = Registration,
    responses((status = CREATED, body = Account), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn register(
    State(api): State<Arc<Api>>,
    peer: Option<Peer>,
    JsonBody(registration): JsonBody<Registration>,
) -> Result<(StatusCode, Json<Account>), ApiError> {
    let id = UserId::parse(&registration.user_id)?;
    let username = checked_username(registration.username, &id)?;
    let password_hash = api.passwords.hash(registration.password, peer).await?;
    let user = NewUser {
        id,
        username: username.clone(),
        password_hash,
        created_ms: clock::now_ms(),
    };
    let user_id = user.id.as_str().to_owned();
    api.node.store.create_user(user).await?;
    Ok((StatusCode::CREATED, Json(Account { user_id, username })))
}

/// Gives a token for a password.
#[utoipa::path(post, path = "/users/login", tag = "users", request_body = Credentials,
    responses((status = OK, body = Token), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn login(
    State(api): State<Arc<Api>>,
    peer: Option<Peer>,
    JsonBody(credentials): JsonBody<Credentials>,
) -> Result<Json<Token>, ApiError> {
    let id = UserId::parse(&credentials.user_id)?;
    let user = check_password(&api, &id, credentials.password, peer).await?;
    if user.status == UserStatus::Banned {
        return Err(ApiError::new(ErrorCode::Banned, "you are banned"));
    }
    token(&api, &id, user.token_epoch).map(Json)
}

/// Gives a fresh token for one that is still valid.
#[utoipa::path(post, path = "/users/refresh", tag = "users", security(("bearer" = [])),
    responses((status = OK, body = Token), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn refresh(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
) -> Result<Json<Token>, ApiError> {
    token(&api, &user.id, user.token_epoch).map(Json)
}

/// Logs the user out everywhere: all tokens are void, all sessions end.
#[utoipa::path(get, path = "/users/logout/{user_id}", tag = "users", security(("bearer" = [])),
    params(("user_id" = String, Path, description = "The caller")),
    responses((status = NO_CONTENT), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn logout(
    State(api): State<Arc<Api>>,
    caller: Caller,
    PathOf(user_id): PathOf<String>,
) -> Result<StatusCode, ApiError> {
    let user = caller.must_be(&user_id)?;
    api.node.store.revoke_tokens(&user.id, None).await?;
    api.kick(&user.id, CloseReason::LoggedOut, "logged out")
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the password: all tokens but the one returned are void, all
/// sessions end.
#[utoipa::path(post, path = "/users/password", tag = "users", request_body = PasswordChange,
    security(("bearer" = [])),
    responses((status = OK, body = Token), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn change_password(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    peer: Option<Peer>,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<Json<Token>, ApiError> {
    check_password(&api, &user.id, change.password, peer).await?;
    let hash = api.passwords.hash(change.new_password, peer).await?;
    let epoch = api.node.store.revoke_tokens(&user.id, Some(hash)).await?;
    api.kick(
        &user.id,
        CloseReason::TokenRevoked,
        "the password was changed",
    )
    .await?;
    token(&api, &user.id, epoch).map(Json)
}

/// Whether a user is connected.
#[utoipa::path(get, path = "/users/{user_id}/presence", tag = "users",
    security(("bearer" = [])), params(("user_id" = String, Path)),
    responses((status = OK, body = Presence), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn presence(
    State(api): State<Arc<Api>>,
    _caller: Caller,
    PathOf(user_id): PathOf<String>,
) -> Result<Json<Presence>, ApiError> {
    let user = UserId::parse(&user_id)?;
    let devices = api.routes(&user).await?.len();
    Ok(Json(Presence {
        user_id,
        online: devices > 0,
        devices,
    }))
}

/// The user if this is the password; the same answer, after the same time,
/// whether the user or the password is wrong.
async fn check_password(
    api: &Api,
    id: &UserId,
    password: String,
    peer: Option<Peer>,
) -> Result<User, ApiError> {
    // First: an entry in the limit's table is to cost a hash.
    let slot = api.passwords.slot(peer).await?;
    if let Err(wait_s) = api.login_limit.take(id, 1, clock::now_ms()) {
        return Err(
            ApiError::new(ErrorCode::RateLimited, "too many attempts for this user")
                .retry_after(wait_s),
        );
    }
    let user = api.user(id).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let fits = api.passwords.verify(slot, password, hash).await?;
    user.filter(|_| fits).ok_or_else(|| {
        ApiError::http(
            StatusCode::UNAUTHORIZED,
            "bad_credentials",
            "user id or password is wrong",
        )
    })
}

/// A fresh token.
fn token(api: &Api, user: &UserId, epoch: u64) -> Result<Token, ApiError> {
    let lifetime_ms = api.node.config.token_lifetime_ms;
    let (token, expires_ms) = api
        .signer
        .sign(user, epoch, clock::now_ms(), lifetime_ms)
        .map_err(|error| {
            tracing::error!(%error, "a login failed");
            ApiError::new(ErrorCode::Internal, "the server failed")
        })?;
    Ok(Token {
        user_id: user.as_str().to_owned(),
        token,
        expires_ms,
    })
}

fn checked_username(name: Option<String>, id: &UserId) -> Result<String, ApiError> {
    let name = name.unwrap_or_else(|| id.as_str().to_owned());
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(ApiError::new(
            ErrorCode::BadRequest,
            format!("username must have 1 to {NAME_MAX_BYTES} bytes and no control characters"),
        ));
    }
    Ok(name)
}
