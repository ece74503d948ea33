//! Admin HTTP of a process without a gateway: `/healthz`, `/readyz`, `/metrics`.

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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http;

/// What the routes look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn Store>,
    /// Empty: nobody is asked for one.
    pub(crate) token: Arc<str>,
    pub(crate) metrics: &'static sluice_gateway::PrometheusHandle,
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
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .fallback(AdminError::not_found)
            .method_not_allowed_fallback(AdminError::method_not_allowed)
            .with_state(self);
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
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let allowed = admin.token.is_empty()
        || given.is_some_and(|given| same(given.as_bytes(), admin.token.as_bytes()));
    if !allowed {
        return Err(AdminError::bad_token());
    }
    let text = admin.metrics.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// Compares in a time that does not tell how much is right.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let pairs = given.iter().zip(wanted);
    given.len() == wanted.len() && pairs.fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}
