//! `sluice bench request`: requests to a backend, through Redis, and its answers.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use serde::Serialize;
use sluice_bus::{Bus, EntryId, NodeName, RedisBus, RedisConfig, Stream};
use sluice_engines::Redis;
use sluice_load::{Job, Latencies, LoadTransport, Pace, WINDOW_MAX, Work, due_ns_of, now_ns};
use sluice_protocol::{
    Partition,
    envelope::{BackendRequest, BackendResponse, Delivery, Down, Target, delivery},
    limits::SHARED_PARTITIONS,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    generator,
    live::Live,
    report::Common,
    subject::{NO_LIMITS, Subject, SubjectOptions},
};

/// What is asked for.
pub struct RequestOptions {
    /// By what to connect.
    pub transport: LoadTransport,
    /// How many connections.
    pub connections: usize,
    /// Requests of all.
    pub pace: Pace,
    /// Requests that each may have unanswered.
    pub depth: u32,
    /// Of each request, and of its answer.
    pub body_bytes: usize,
    /// Load that isn't measured.
    pub warm_up: Duration,
    /// What is measured.
    pub duration: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct RequestReport {
    /// What all reports have.
    #[serde(flatten)]
    pub common: Common,
    /// CPU of Redis.
    pub redis_cpu_s: f64,
    /// CPU of the backend, and of whatever else the bench's own process does.
    pub backend_cpu_s: f64,
    /// What was asked for; `None`: as fast as the windows let them.
    pub rate_per_s: Option<f64>,
    /// Of each request, and of its answer.
    pub body_bytes: usize,
    /// Answered.
    pub msgs_per_s: f64,
    /// From when a request was due to its answer.
    pub ack_p50_ms: f64,
    /// Likewise.
    pub ack_p99_ms: f64,
    /// Likewise.
    pub ack_p999_ms: f64,
    /// From when a request was due to its arrival at the backend, warm-up included.
    pub recv_p50_ms: f64,
    /// Likewise.
    pub recv_p99_ms: f64,
    /// Likewise.
    pub recv_p999_ms: f64,
}

/// The backend: it echoes.
struct Backend {
    readers: JoinSet<anyhow::Result<()>>,
    arrivals: Arc<Mutex<Latencies>>,
}

const SERVICE: &str = "bench";
/// Entries of a stream that are read at once.
const READ_MAX: usize = 256;

/// Measures requests.
pub async fn request(
    options: RequestOptions,
    mut live: Live,
    shutdown: CancellationToken,
) -> anyhow::Result<RequestReport> {
    live.doing("adding users");
    let redis = Redis::start().await?;
    let settings = format!(
        "[bus.redis]\nurls = [\"{}\"]\n[gateway.requests]\nservices = [\"{SERVICE}\"]\n\
         pending_max = {WINDOW_MAX}\n{NO_LIMITS}",
        redis.url()
    );
    let subject = Subject::prepare(SubjectOptions {
        users: options.connections,
        settings: &settings,
        ..SubjectOptions::default()
    });
    let subject = subject.await?;
    let bus = RedisBus::open(&RedisConfig {
        urls: vec![redis.url()],
        ..RedisConfig::default()
    })?;
    let mut backend = Backend::start(bus);
    let job = Job {
        work: Work::Request {
            service: SERVICE.to_owned(),
            pace: options.pace,
        },
        address: subject.address(options.transport)?,
        transport: options.transport,
        pins: subject.addresses.pins.clone(),
        logins: subject.logins.clone(),
        window_max: options.depth,
        body_bytes: options.body_bytes,
        warm_up_ms: options.warm_up.as_millis() as u64,
        duration_ms: options.duration.as_millis() as u64,
        servers: vec![subject.pid, redis.pid(), std::process::id()],
        core: None,
    };
    let findings = tokio::select! {
        findings = generator::run(vec![job], &mut live, &shutdown) => findings?,
        broken = backend.broken() => return Err(broken),
    };
    let transport = options.transport.name();
    let recv = backend.arrivals();
    let ack = &findings.ack;
    let acked = findings.total(|it| it.acked) as f64;
    let report = RequestReport {
        common: Common::new(
            "request",
            transport,
            options.connections,
            &settings,
            &findings,
        ),
        redis_cpu_s: findings.server_cpu_s(1),
        backend_cpu_s: findings.server_cpu_s(2),
        rate_per_s: match options.pace {
            Pace::PerSecond(per_s) => Some(per_s),
            Pace::Window => None,
        },
        body_bytes: options.body_bytes,
        msgs_per_s: acked / findings.measured_s(),
        ack_p50_ms: ack.percentile_ms(50.0),
        ack_p99_ms: ack.percentile_ms(99.0),
        ack_p999_ms: ack.percentile_ms(99.9),
        recv_p50_ms: recv.percentile_ms(50.0),
        recv_p99_ms: recv.percentile_ms(99.0),
        recv_p999_ms: recv.percentile_ms(99.9),
    };
    subject.stop().await?;
    Ok(report)
}

// === impl Backend ===

impl Backend {
    fn start(bus: Arc<RedisBus>) -> Self {
        let arrivals = Arc::default();
        let mut readers = JoinSet::new();
        for partition in (0..SHARED_PARTITIONS).map(Partition) {
            readers.spawn(serve(bus.clone(), partition, Arc::clone(&arrivals)));
        }
        Self { readers, arrivals }
    }

    /// Waits until a reader has failed; none ends by itself.
    async fn broken(&mut self) -> anyhow::Error {
        let ended = self.readers.join_next().await;
        let error = match ended {
            Some(Ok(Err(error))) => error,
            _ => anyhow::anyhow!("a reader of requests has ended"),
        };
        error.context("the backend is broken")
    }

    fn arrivals(&self) -> Latencies {
        self.arrivals.lock().clone()
    }
}

/// Reads one partition of the requests and answers them, in order.
async fn serve(
    bus: Arc<RedisBus>,
    partition: Partition,
    arrivals: Arc<Mutex<Latencies>>,
) -> anyhow::Result<()> {
    let stream = Stream::Request {
        service: SERVICE.to_owned(),
        partition,
    };
    let node = NodeName(format!("bench-{partition}"));
    let mut reader = bus.own(&stream, &node).await?;
    loop {
        let entries = reader.read(READ_MAX).await?.entries;
        let now = now_ns();
        let mut answers: Vec<(Stream, Vec<Bytes>)> = Vec::new();
        for entry in &entries {
            let request = BackendRequest::decode(entry.payload.clone())?;
            if let Some(due_ns) = due_ns_of(&request.payload) {
                arrivals.lock().record_ns(now.saturating_sub(due_ns));
            }
            let (down, answer) = answer(request).context("a request from nowhere")?;
            match answers.iter_mut().find(|(to, _)| *to == down) {
                Some((_, batch)) => batch.push(answer),
                None => answers.push((down, vec![answer])),
            }
        }
        for (down, batch) in answers {
            bus.append(&down, batch).await?;
        }
        let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
        reader.ack(&ids).await?;
    }
}

fn answer(request: BackendRequest) -> Option<(Stream, Bytes)> {
    let origin = request.origin?;
    let down = Stream::parse_down(&origin.reply_to)?;
    let response = BackendResponse {
        request_id: origin.request_id,
        status: 0,
        payload: request.payload,
    };
    let delivery = Delivery {
        targets: vec![Target {
            connection_id: origin.connection_id,
            user_id: origin.user_id,
            user_seq: 0,
        }],
        body: Some(delivery::Body::Response(response)),
    };
    // Producer 0 doesn't count its entries; a lost answer times out by itself.
    let entry = Down {
        producer: 0,
        counter: 0,
        deliveries: vec![delivery],
    };
    Some((down, entry.encode_to_vec().into()))
}

// === impl RequestReport ===

impl RequestReport {
    /// For people.
    pub fn table(&self) -> String {
        let rate = match self.rate_per_s {
            Some(per_s) => format!("{per_s:.0}"),
            None => "max".to_owned(),
        };
        let ms = |p50: f64, p99: f64, p999: f64| format!("{p50:.2} / {p99:.2} / {p999:.2} ms");
        self.common.table(&[
            ("requests a second", format!("{:.0}", self.msgs_per_s)),
            ("asked for", rate),
            (
                "answer p50 / p99 / p99.9",
                ms(self.ack_p50_ms, self.ack_p99_ms, self.ack_p999_ms),
            ),
            (
                "at the backend p50 / p99 / p99.9",
                ms(self.recv_p50_ms, self.recv_p99_ms, self.recv_p999_ms),
            ),
            ("CPU of Redis", format!("{:.2} s", self.redis_cpu_s)),
            ("CPU of the backend", format!("{:.2} s", self.backend_cpu_s)),
            ("bytes of a request", self.body_bytes.to_string()),
        ])
    }
}
