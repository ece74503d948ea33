//! `/admin/timelines` of every process: which messages to follow, and what was seen.
//!
//! `POST` begins (and forgets what was kept), `GET` reads, `DELETE` ends and forgets.
//! It ends by itself after `for_s`; what was seen stays, within its bound, until the
//! next `POST` or `DELETE`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use sluice_gateway::AdminError;
use sluice_trace::{Order, Report, SETTLE, Tracer};

use crate::admin::check_bearer;

/// What the route looks at.
#[derive(Clone)]
struct Timelines {
    tracer: Tracer,
    token: Arc<str>,
}

/// The route, for the admin HTTP of a process; an empty token lets everybody in.
pub(crate) fn router(tracer: Tracer, token: &str) -> Router {
    let token = token.into();
    let route = get(read)
        .post(begin)
        .delete(forget)
        .fallback(AdminError::method_not_allowed);
    Router::new()
        .route("/admin/timelines", route)
        .with_state(Timelines { tracer, token })
}

async fn read(
    State(timelines): State<Timelines>,
    headers: HeaderMap,
) -> Result<Json<Report>, AdminError> {
    check_bearer(&headers, &timelines.token)?;
    Ok(Json(timelines.tracer.report()))
}

async fn begin(
    State(timelines): State<Timelines>,
    headers: HeaderMap,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<(StatusCode, Json<Order>), AdminError> {
    check_bearer(&headers, &timelines.token)?;
    let Json(order) = order.map_err(|error| AdminError::bad_request(error.body_text()))?;
    tracing::info!(?order, "messages are followed");
    timelines.tracer.arm(order.clone());
    // No message may come that would notice.
    let (tracer, over) = (timelines.tracer, Duration::from_secs(order.for_s) + SETTLE);
    tokio::spawn(async move {
        tokio::time::sleep(over).await;
        tracer.expire();
    });
    Ok((StatusCode::ACCEPTED, Json(order)))
}

async fn forget(
    State(timelines): State<Timelines>,
    headers: HeaderMap,
) -> Result<StatusCode, AdminError> {
    check_bearer(&headers, &timelines.token)?;
    timelines.tracer.forget();
    Ok(StatusCode::NO_CONTENT)
}
