//! Errors of the HTTP API: `{code, reason}` with the status that fits. Codes
//! are the protocol's, and four that only HTTP knows.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sluice_bus::BusError;
use sluice_protocol::{IdError, Refusal, packet::ErrorCode};
use sluice_store::StoreError;
use utoipa::ToSchema;

use crate::seats::NoSeat;

/// What goes wrong in a call.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    reason: Cow<'static, str>,
    retry_after_s: Option<u32>,
}

/// Body of every answer that is no success.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// Machine-readable: `unknown_user`, `rate_limited`, …
    #[schema(example = "unknown_user")]
    code: String,
    /// For people.
    reason: String,
}

// === impl ApiError ===

impl ApiError {
    pub(crate) fn new(code: ErrorCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new(code, reason).into()
    }

    /// With a code that only HTTP knows.
    pub(crate) fn http(
        status: StatusCode,
        code: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            reason: reason.into(),
            retry_after_s: None,
        }
    }

    /// Of a refusal that came over the bus.
    pub(crate) fn of_packet(error: sluice_protocol::packet::Error) -> Self {
        Self::new(error.code(), error.reason)
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Unavailable, reason).retry_after(1)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status_of(refusal.code),
            code: refusal.label().into(),
            reason: refusal.reason,
            retry_after_s: None,
        }
    }
}

impl From<IdError> for ApiError {
    fn from(error: IdError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::UserExists(_) => {
                Self::http(StatusCode::CONFLICT, "user_exists", error.to_string())
            }
            StoreError::UnknownUser(_) => Self::new(ErrorCode::UnknownUser, error.to_string()),
            StoreError::Unavailable(_) | StoreError::Overloaded { .. } => {
                tracing::warn!(%error, "a call is refused");
                Self::unavailable("the store is not available")
            }
            _ => {
                tracing::error!(%error, "a call failed");
                Self::new(ErrorCode::Internal, "the server failed")
            }
        }
    }
}

impl From<NoSeat> for ApiError {
    fn from(full: NoSeat) -> Self {
        match full {
            NoSeat::OfUser(calls) => Self::new(
                ErrorCode::TooManyPending,
                format!("{calls} calls of yours run already; wait for one of them"),
            )
            .retry_after(1),
            NoSeat::OfAll => Self::unavailable("too many calls run, try again"),
        }
    }
}

impl From<BusError> for ApiError {
    fn from(error: BusError) -> Self {
        tracing::warn!(%error, "a call is refused");
        Self::unavailable("the bus is not available")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        metrics::counter!("sluice_http_errors_total", "status" => self.status.as_str().to_owned())
            .increment(1);
        let body = ErrorBody {
            code: self.code.into_owned(),
            reason: self.reason.into_owned(),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// As the table in chapter 13 of SPEC.md says.
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unspecified | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::BadFrame
        | ErrorCode::BadPacket
        | ErrorCode::UnexpectedPacket
        | ErrorCode::UnsupportedVersion
        | ErrorCode::EncryptionRequired
        | ErrorCode::BadRequest
        | ErrorCode::ClockSkew
        | ErrorCode::Expired => StatusCode::BAD_REQUEST,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited | ErrorCode::TooManyPending => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::LoginRequired
        | ErrorCode::BadToken
        | ErrorCode::TokenExpired
        | ErrorCode::TokenRevoked
        | ErrorCode::BadResumeToken
        | ErrorCode::Replayed => StatusCode::UNAUTHORIZED,
        ErrorCode::Banned
        | ErrorCode::NotAMember
        | ErrorCode::Blocked
        | ErrorCode::Muted
        | ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::UnknownUser
        | ErrorCode::UnknownConversation
        | ErrorCode::UnknownMessage
        | ErrorCode::UnknownService => StatusCode::NOT_FOUND,
        ErrorCode::TooManyDevices
        | ErrorCode::OutOfOrder
        | ErrorCode::ClientMsgIdReused
        | ErrorCode::TooLate => StatusCode::CONFLICT,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = include_str!("../../../protocol/SPEC.md");

    #[test]
    fn the_specification_names_the_status_of_every_code() {
        let table = SPEC.split("| Status | Codes of 10.1 |\n|---|---|\n").nth(1);
        let table = table.unwrap().split("\n\n").next().unwrap();
        let mut named = std::collections::BTreeMap::new();
        for row in table.lines() {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            for code in cells[2].split(", ") {
                let status: u16 = cells[1].parse().unwrap();
                named.insert(code.trim_matches('`').to_owned(), status);
            }
        }
        let all = (0..256).filter_map(|value| ErrorCode::try_from(value).ok());
        for code in all {
            let label = Refusal::new(code, "").label();
            assert_eq!(
                named.remove(&label),
                Some(status_of(code).as_u16()),
                "{label}"
            );
        }
        assert!(named.is_empty(), "no such codes: {named:?}");
    }
}
