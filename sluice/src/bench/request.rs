//! `sluice bench request`: requests to a backend, through Redis, and its answers.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use serde::Serialize;
use sluice_bus::{Bus, EntryId, NodeName, RedisBus, RedisConfig, Stream};
use sluice_engines::Redis;
use sluice_load::{Latencies, Pace, WINDOW_MAX, Work, due_ns_of, now_ns};
use sluice_protocol::{
    Partition,
    envelope::{BackendRequest, BackendResponse, Delivery, Down, Target, delivery},
    limits::SHARED_PARTITIONS,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    generator,
    latencies::{AckLatencies, RecvLatencies},
    live::Live,
    load::Load,
    report::Common,
    subject::{NO_LIMITS, Part, Subject, SubjectOptions},
};

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
    /// Of answers.
    #[serde(flatten)]
    pub ack: AckLatencies,
    /// Of arrivals at the backend, warm-up included.
    #[serde(flatten)]
    pub recv: RecvLatencies,
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
    load: Load,
    pace: Pace,
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
        users: load.connections,
        settings: &settings,
        ..SubjectOptions::default()
    });
    let mut subject = subject.await?;
    let bus = RedisBus::open(&RedisConfig {
        urls: vec![redis.url()],
        ..RedisConfig::default()
    })?;
    let mut backend = Backend::start(bus);
    let work = Work::Request {
        service: SERVICE.to_owned(),
        pace,
    };
    let beside = [("redis", redis.pid()), ("backend", std::process::id())];
    let beside = beside.map(|(role, pid)| Part { role, pid });
    subject.parts.extend(beside);
    let jobs = load.jobs(&subject, &work)?;
    let findings = tokio::select! {
        findings = generator::run(jobs, &mut live, &shutdown) => findings?,
        broken = backend.broken() => return Err(broken),
    };
    let acked = findings.total(|it| it.acked) as f64;
    let report = RequestReport {
        common: Common::new("request", &load, &subject, &findings),
        redis_cpu_s: findings.server_cpu_s(1),
        backend_cpu_s: findings.server_cpu_s(2),
        rate_per_s: pace.per_s(),
        body_bytes: load.body_bytes,
        msgs_per_s: acked / findings.measured_s(),
        ack: AckLatencies::of(&findings.ack),
        recv: RecvLatencies::of(&backend.arrivals()),
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
        self.common.table(&[
            ("requests a second", format!("{:.0}", self.msgs_per_s)),
            ("asked for", rate),
            ("answer p50 / p99 / p99.9", self.ack.text()),
            ("at the backend p50 / p99 / p99.9", self.recv.text()),
            ("bytes of a request", self.body_bytes.to_string()),
        ])
    }
}
