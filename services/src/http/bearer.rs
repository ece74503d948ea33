//! Who calls: the bearer token of a user, or the admin's.
//!
//! A token may be revoked while the call's body still comes: `JsonBody` asks
//! again ([`Held::check`]) when that took long.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header, request::Parts},
};
use sluice_protocol::{UserId, packet::ErrorCode};
use sluice_store::{User, UserStatus};
use tokio::time::Instant;

use super::{Api, error::ApiError};
use crate::{TokenError, clock, seats::Seat};

/// The user whose valid, unrevoked token the call carries, with a seat among the
/// calls under way. Reads and changes have seats apart.
pub(crate) struct Caller(pub(crate) User, pub(crate) Seat);

/// A token that was good when the call began; an extension of its request.
#[derive(Debug, Clone)]
pub(super) struct Held {
    user: UserId,
    epoch: u64,
    seen: Instant,
}

/// So long a token's user is believed without another look.
const BELIEVED: Duration = Duration::from_secs(1);

/// The call carries the admin token.
pub(crate) struct Admin;

// === impl Caller ===

impl Caller {
    /// Refuses a call about somebody else.
    pub(crate) fn must_be(&self, user: &str) -> Result<&User, ApiError> {
        match self.0.id.as_str() == user {
            true => Ok(&self.0),
            false => Err(ApiError::new(
                ErrorCode::Forbidden,
                "the token is another user's",
            )),
        }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers)?;
        let claims = api
            .signer
            .verify(token, clock::now_ms())
            .map_err(|error| match error {
                TokenError::Expired => {
                    ApiError::new(ErrorCode::TokenExpired, "the token has expired")
                }
                _ => ApiError::new(ErrorCode::BadToken, "the token is not valid"),
            })?;
        let user = UserId::parse(&claims.sub)?;
        // Before the store is asked anything.
        let seats = match parts.method {
            Method::GET | Method::HEAD => &api.reads,
            _ => &api.changes,
        };
        let seat = seats.take(&user)?;
        let held = Held {
            user,
            epoch: claims.ep,
            seen: Instant::now(),
        };
        let user = held.user(api).await?;
        parts.extensions.insert(held);
        Ok(Self(user, seat))
    }
}

// === impl Held ===

impl Held {
    /// Whether the token is good still, if that was seen too long ago.
    pub(super) async fn check(&self, api: &Api) -> Result<(), ApiError> {
        if self.seen.elapsed() < BELIEVED {
            return Ok(());
        }
        self.user(api).await.map(drop)
    }

    /// The user, unless they or the token are void.
    async fn user(&self, api: &Api) -> Result<User, ApiError> {
        let user = api
            .user(&self.user)
            .await?
            .ok_or_else(|| ApiError::new(ErrorCode::BadToken, "the token's user is gone"))?;
        if user.status == UserStatus::Banned {
            return Err(ApiError::new(ErrorCode::Banned, "you are banned"));
        }
        if user.token_epoch != self.epoch {
            return Err(ApiError::new(
                ErrorCode::TokenRevoked,
                "the token was revoked; log in again",
            ));
        }
        Ok(user)
    }
}

// === impl Admin ===

impl FromRequestParts<Arc<Api>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let expected = api.node.config.admin_token.as_str().as_bytes();
        let given = bearer(&parts.headers)?.as_bytes();
        if expected.is_empty() || verify_slices_are_equal(expected, given).is_err() {
            return Err(ApiError::new(
                ErrorCode::BadToken,
                "this is not the admin token",
            ));
        }
        Ok(Self)
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::LoginRequired,
                "the header `Authorization: Bearer` is missing",
            )
        })
}
