//! Admin HTTP, meant for loopback: `/healthz`, `/readyz`, `/metrics`,
//! `/admin/connections`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

use crate::{
    admin_error::AdminError,
    bus_health::BusHealth,
    channel::{Channel, Phase},
    connections::Sight,
    kernel,
    ledger::{Costs, Ledger, SocketBuffers},
    mailbox::{Mail, Mailbox, RowOrder},
    workbench::Workbench,
};

/// What the routes look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) loops: Arc<[Mailbox]>,
    /// False while the gateway drains.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) health: Arc<BusHealth>,
    /// Empty: nobody is asked for one.
    pub(crate) token: Arc<str>,
    pub(crate) metrics: &'static PrometheusHandle,
}

/// One line of `/admin/connections`.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionRow {
    connection: String,
    user: Option<String>,
    device: Option<String>,
    peer: SocketAddr,
    transport: &'static str,
    phase: &'static str,
    age_ms: u64,
    silent_ms: u64,
    read_bytes: u64,
    written_bytes: u64,
    output_bytes: usize,
    unacked_pushes: usize,
    dropped_pushes: u32,
    pending_requests: usize,
    rtt_ms: Option<u32>,
    /// Nothing is under way, and its state is packed.
    asleep: bool,
    memory_bytes: usize,
    memory: Ledger,
    /// Over TCP and WebSocket.
    socket: Option<SocketBuffers>,
}

#[derive(Debug, Deserialize)]
struct PageQuery {
    #[serde(default)]
    sort: RowOrder,
    #[serde(default)]
    offset: usize,
    #[serde(default = "page_default")]
    limit: usize,
}

#[derive(Debug, Serialize)]
struct Page {
    total: usize,
    offset: usize,
    connections: Vec<ConnectionRow>,
}

const PAGE_MAX: usize = 1_000;
/// How deep one may page: each loop sorts and hands over so many rows.
const DEPTH_MAX: usize = 10_000;

const fn page_default() -> usize {
    100
}

// === impl Admin ===

impl Admin {
    pub(crate) fn router(self) -> Router {
        let guarded = Router::new()
            .route("/metrics", get(metrics))
            .route("/admin/connections", get(connections))
            .layer(middleware::from_fn_with_state(self.clone(), authorize));
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .merge(guarded)
            .fallback(AdminError::not_found)
            .method_not_allowed_fallback(AdminError::method_not_allowed)
            .with_state(self)
    }

    /// Of all connections, a page at a time: no loop stands still for it.
    async fn costs(&self) -> Costs {
        let mut sum = Costs::default();
        for mailbox in self.loops.iter() {
            let mut next_slot = Some(0);
            while let Some(from_slot) = next_slot {
                let page = mailbox.ask(|answer| Mail::Costs(from_slot, answer)).await;
                let Some((costs, next)) = page else {
                    break;
                };
                sum.ledger += costs.ledger;
                sum.asleep += costs.asleep;
                next_slot = next;
            }
        }
        sum
    }
}

async fn authorize(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let allowed = admin.token.is_empty()
        || given.is_some_and(|given| same(given.as_bytes(), admin.token.as_bytes()));
    if !allowed {
        return AdminError::bad_token().into_response();
    }
    next.run(request).await
}

/// Compares in a time that does not tell how much is right.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given
        .iter()
        .zip(wanted)
        .fold(0, |acc, (a, b)| acc | (a ^ b));
    given.len() == wanted.len() && differing == 0
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let reason = if !admin.ready.load(Ordering::Relaxed) {
        "draining\n".to_owned()
    } else if let Some(trouble) = admin.health.trouble() {
        format!("the bus fails: {trouble}\n")
    } else {
        return "ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    tell_costs(admin.costs().await);
    let text = admin.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Sums that are nobody's to keep up: they are worked out when they are read.
fn tell_costs(costs: Costs) {
    for (part, bytes) in costs.ledger.parts() {
        gauge!("sluice_connection_bytes", "part" => part).set(bytes as f64);
    }
    gauge!("sluice_connections_asleep").set(costs.asleep as f64);
    for (protocol, bytes) in kernel::socket_buffer_bytes() {
        gauge!("sluice_kernel_socket_bytes", "protocol" => protocol).set(bytes as f64);
    }
}

async fn connections(
    State(admin): State<Admin>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page>, AdminError> {
    let Query(query) = query.map_err(|error| AdminError::bad_request(error.body_text()))?;
    let offset = query.offset.min(DEPTH_MAX);
    let limit = query.limit.min(PAGE_MAX);
    let (mut rows, mut total) = (Vec::new(), 0);
    for mailbox in admin.loops.iter() {
        let rows_of = |answer| Mail::Rows {
            order: query.sort,
            rows_max: offset + limit,
            answer,
        };
        if let Some(part) = mailbox.ask(rows_of).await {
            rows.extend(part.rows);
            total += part.total;
        }
    }
    rows.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    let rows = rows.into_iter().map(|(_, row)| row);
    Ok(Json(Page {
        total,
        offset,
        connections: rows.skip(offset).take(limit).collect(),
    }))
}

// === impl ConnectionRow ===

impl ConnectionRow {
    pub(crate) fn of(sight: &Sight<'_>, bench: &Workbench) -> Option<Self> {
        sight.channel(|channel| Some(Self::of_channel(sight, channel, bench)))
    }

    fn of_channel(sight: &Sight<'_>, channel: &Channel, bench: &Workbench) -> Self {
        let identity = channel.identity.as_ref();
        let memory = sight.memory();
        let now_ms = bench.now.mono_ms;
        Self {
            connection: bench.connection_id(channel.key).to_string(),
            user: identity.map(|identity| identity.user.to_string()),
            device: identity.map(|identity| identity.device.to_string()),
            peer: channel.peer,
            transport: sight.transport(),
            phase: match channel.phase {
                Phase::AwaitLogin => "await_login",
                Phase::Opening => "opening",
                Phase::Open => "open",
                Phase::Closing => "closing",
            },
            age_ms: now_ms.saturating_sub(channel.accepted_ms),
            silent_ms: now_ms.saturating_sub(channel.last_inbound_ms),
            read_bytes: channel.read_bytes,
            written_bytes: channel.written_bytes,
            output_bytes: channel.output_bytes(),
            unacked_pushes: channel.pushes.as_ref().map_or(0, |window| window.len()),
            dropped_pushes: channel.pushes_dropped,
            pending_requests: channel.requests.as_ref().map_or(0, |table| table.len()),
            rtt_ms: channel.rtt.srtt_ms(),
            asleep: sight.is_asleep(),
            memory_bytes: memory.total(),
            memory,
            socket: sight.socket(),
        }
    }
}

/// What connections are sorted by.
pub(crate) fn rank(sight: &Sight<'_>, order: RowOrder, now_ms: u64) -> u64 {
    let of_channel = |look: fn(&Channel) -> u64| sight.numbers(look).unwrap_or(0);
    match order {
        RowOrder::Memory => sight.memory().total() as u64,
        RowOrder::Traffic => of_channel(|c| c.read_bytes.saturating_add(c.written_bytes)),
        RowOrder::Unacked => of_channel(|c| c.pushes.as_ref().map_or(0, |w| w.len() as u64)),
        RowOrder::Age => now_ms.saturating_sub(of_channel(|c| c.accepted_ms)),
    }
}
