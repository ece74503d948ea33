//! Errors of admin HTTP, in the form of the other APIs: `{code, reason}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// An answer that is no success.
#[derive(Debug, Clone, Serialize)]
pub struct AdminError {
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    reason: String,
}

// === impl AdminError ===

impl AdminError {
    /// The bearer is not the admin token, or there is none.
    pub fn bad_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "bad_token",
            "the header `Authorization: Bearer` with the admin token is needed",
        )
    }

    /// A query that isn't one of this API.
    pub fn bad_request(reason: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "bad_request",
            reason,
        }
    }

    /// For routers: no such route.
    pub async fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "no such route")
    }

    /// For routers: the route has no such method.
    pub async fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this route has no such method",
        )
    }

    fn new(status: StatusCode, code: &'static str, reason: &str) -> Self {
        Self {
            status,
            code,
            reason: reason.to_owned(),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}
