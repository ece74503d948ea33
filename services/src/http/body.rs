//! JSON bodies, queries and paths whose errors are answered like all others.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{Api, bearer::Held, error::ApiError};

/// A JSON body that has its type's form, and comes whole within
/// `http_body_timeout_ms`, however it trickles. If it took long, its caller's
/// token is good still.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// Query parameters that have their type's form.
pub(crate) struct QueryOf<T>(pub(crate) T);

/// Path segments that are UTF-8.
pub(crate) struct PathOf<T>(pub(crate) T);

fn bad_form(status: StatusCode, reason: String) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(sluice_protocol::packet::ErrorCode::TooLarge, reason)
        }
        // What JSON calls "unprocessable" is a bad field here.
        StatusCode::UNPROCESSABLE_ENTITY => {
            ApiError::http(StatusCode::BAD_REQUEST, "bad_request", reason)
        }
        status => ApiError::http(status, "bad_request", reason),
    }
}

impl<T: DeserializeOwned + Send> FromRequest<Arc<Api>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let bound = Duration::from_millis(api.node.config.http_body_timeout_ms);
        // Of calls that have a `Caller`, which comes before the body.
        let held = request.extensions().get::<Held>().cloned();
        let read = Json::<T>::from_request(request, api);
        let Ok(read) = tokio::time::timeout(bound, read).await else {
            return Err(bad_form(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time".to_owned(),
            ));
        };
        let Json(body) = read.map_err(|rejection: JsonRejection| {
            bad_form(rejection.status(), rejection.body_text())
        })?;
        if let Some(held) = held {
            held.check(api).await?;
        }
        Ok(Self(body))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state)
            .await
            .map(|Query(query)| Self(query))
            .map_err(|rejection: QueryRejection| {
                bad_form(rejection.status(), rejection.body_text())
            })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<T>::from_request_parts(parts, state)
            .await
            .map(|Path(path)| Self(path))
            .map_err(|rejection: PathRejection| bad_form(rejection.status(), rejection.body_text()))
    }
}
