//! Admin HTTP of a process without a gateway: `/healthz`, `/readyz`, `/metrics`,
//! `/admin/timelines`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use sluice_bus::{Bus, Stream};
use sluice_gateway::AdminError;
use sluice_protocol::{Partition, UserId};
use sluice_store::Store;
use sluice_trace::Tracer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{http, timelines};

/// What the routes look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn Store>,
    /// Empty: nobody is asked for one.
    pub(crate) token: Arc<str>,
    pub(crate) metrics: &'static sluice_gateway::PrometheusHandle,
    pub(crate) tracer: Tracer,
}

/// Bus and store have so long to answer `/readyz`, each.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

// === impl Admin ===

impl Admin {
    /// Serves until shutdown.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        bounds: http::Bounds,
        shutdown: CancellationToken,
    ) {
        let timelines = timelines::router(self.tracer.clone(), &self.token);
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .fallback(AdminError::not_found)
            .method_not_allowed_fallback(AdminError::method_not_allowed)
            .with_state(self)
            .merge(timelines);
        http::serve(listener, router, bounds, shutdown).await;
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let lag = admin.bus.lag(&Stream::Message(Partition(0)));
    if !matches!(tokio::time::timeout(READY_TIMEOUT, lag).await, Ok(Ok(_))) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the bus is away\n".into());
    }
    // Any question will do; nobody needs to have this name.
    let names: Vec<UserId> = UserId::parse("readyz").into_iter().collect();
    let users = admin.store.users(&names);
    if !matches!(tokio::time::timeout(READY_TIMEOUT, users).await, Ok(Ok(_))) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store is away\n".into(),
        );
    }
    (StatusCode::OK, "ready\n".into())
}

async fn metrics(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, AdminError> {
    check_bearer(&headers, &admin.token)?;
    let text = admin.metrics.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// Lets those in who bear the token; everybody where there is none.
pub(crate) fn check_bearer(headers: &HeaderMap, token: &str) -> Result<(), AdminError> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_same = given.is_some_and(|given| same(given.as_bytes(), token.as_bytes()));
    match token.is_empty() || is_same {
        true => Ok(()),
        false => Err(AdminError::bad_token()),
    }
}

/// Compares in a time that does not tell how much is right.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let pairs = given.iter().zip(wanted);
    given.len() == wanted.len() && pairs.fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}
