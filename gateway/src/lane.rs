//! Lanes: the bounded queues between the event loops and the bus, one a stream,
//! each with a writer task that appends in order and in batches.
//!
//! A full lane never makes a loop wait: the offer is refused and the client is
//! told `Busy`. While the bus is away or silent, the writer repeats its batch,
//! the lane fills, and `Busy` is the answer: no other queue grows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;
use sluice_bus::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusError, Stream};
use sluice_protocol::{Partition, limits::SHARED_PARTITIONS};
use sluice_trace::{Stage, TraceId, Tracer};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    bus_health::BusHealth,
    clock::Clock,
    config::{LaneConfig, RequestConfig},
    metrics::LaneMetrics,
};

/// The way to one stream of the bus.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    entries: mpsc::Sender<Queued>,
    load: Arc<Load>,
    bytes_max: usize,
}

/// An entry and when it was offered.
#[derive(Debug)]
struct Queued {
    entry: Bytes,
    since_ms: u64,
    /// It bears a message that is followed.
    trace: Option<TraceId>,
}

/// The lane did not take an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneFull;

/// What is queued or on its way.
#[derive(Debug, Default)]
struct Load {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

/// All lanes of a gateway.
#[derive(Debug)]
pub(crate) struct Lanes {
    message: Vec<Lane>,
    query: Vec<Lane>,
    session: Vec<Lane>,
    ack: Vec<Lane>,
    requests: HashMap<String, Vec<Lane>>,
}

/// The task behind a lane.
struct Writer {
    bus: Arc<dyn Bus>,
    stream: Stream,
    entries: mpsc::Receiver<Queued>,
    load: Arc<Load>,
    config: LaneConfig,
    metrics: LaneMetrics,
    clock: Clock,
    health: Arc<BusHealth>,
    tracer: Tracer,
    shutdown: CancellationToken,
}

/// What the writers run with.
pub(crate) struct LaneTasks<'a> {
    pub(crate) config: &'a LaneConfig,
    pub(crate) clock: Clock,
    pub(crate) health: &'a Arc<BusHealth>,
    pub(crate) tracer: &'a Tracer,
    pub(crate) shutdown: &'a CancellationToken,
    pub(crate) tasks: &'a mut JoinSet<()>,
}

// === impl Lane ===

impl Lane {
    /// Queues an entry behind all earlier ones of this loop. `now_ms` is the
    /// gateway's clock, for the time it waits.
    pub(crate) fn offer(&self, entry: Bytes, now_ms: u64) -> Result<(), LaneFull> {
        self.offer_message(entry, now_ms, None)
    }

    /// The same with a message that may be followed.
    pub(crate) fn offer_message(
        &self,
        entry: Bytes,
        now_ms: u64,
        trace: Option<TraceId>,
    ) -> Result<(), LaneFull> {
        let bytes = entry.len();
        if self.load.bytes.load(Ordering::Relaxed) + bytes > self.bytes_max {
            return Err(LaneFull);
        }
        self.load.add(1, bytes);
        let queued = Queued {
            entry,
            since_ms: now_ms,
            trace,
        };
        self.entries.try_send(queued).map_err(|_| {
            self.load.subtract(1, bytes);
            LaneFull
        })
    }

    fn open(stream: Stream, bus: &Arc<dyn Bus>, spawn: &mut LaneTasks<'_>) -> Self {
        let config = spawn.config;
        let (sender, receiver) = mpsc::channel(config.entries_max.max(1));
        let load = Arc::new(Load::default());
        let metrics = LaneMetrics::new(&stream);
        let writer = Writer {
            bus: Arc::clone(bus),
            stream,
            entries: receiver,
            load: Arc::clone(&load),
            config: config.clone(),
            metrics,
            clock: spawn.clock,
            health: Arc::clone(spawn.health),
            tracer: spawn.tracer.clone(),
            shutdown: spawn.shutdown.clone(),
        };
        spawn.tasks.spawn(writer.run());
        Self {
            entries: sender,
            load,
            bytes_max: config.bytes_max,
        }
    }
}

// === impl Load ===

impl Load {
    fn add(&self, entries: usize, bytes: usize) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, entries: usize, bytes: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Lanes ===

impl Lanes {
    /// Opens all lanes; their writers end with `shutdown`.
    pub(crate) fn open(
        bus: &Arc<dyn Bus>,
        partitions: u16,
        requests: &RequestConfig,
        mut spawn: LaneTasks<'_>,
    ) -> Self {
        let mut open = |count: u16, stream: &dyn Fn(Partition) -> Stream| -> Vec<Lane> {
            (0..count)
                .map(|p| Lane::open(stream(Partition(p)), bus, &mut spawn))
                .collect()
        };
        Self {
            message: open(partitions.max(1), &Stream::Message),
            query: open(SHARED_PARTITIONS, &Stream::Query),
            session: open(SHARED_PARTITIONS, &Stream::Session),
            ack: open(SHARED_PARTITIONS, &Stream::Ack),
            requests: requests
                .services
                .iter()
                .map(|service| {
                    let stream = |partition| Stream::Request {
                        service: service.clone(),
                        partition,
                    };
                    (service.clone(), open(SHARED_PARTITIONS, &stream))
                })
                .collect(),
        }
    }

    /// Partitions of the conversation space.
    pub(crate) fn partitions(&self) -> u16 {
        // Opened with a u16.
        self.message.len() as u16
    }

    // A partition comes from `partition_of` with the very same count, so the
    // remainder below only keeps the index provably within bounds.

    pub(crate) fn message(&self, partition: Partition) -> &Lane {
        &self.message[usize::from(partition.0) % self.message.len()]
    }

    pub(crate) fn query(&self, partition: Partition) -> &Lane {
        &self.query[usize::from(partition.0) % self.query.len()]
    }

    pub(crate) fn session(&self, partition: Partition) -> &Lane {
        &self.session[usize::from(partition.0) % self.session.len()]
    }

    pub(crate) fn ack(&self, partition: u16) -> &Lane {
        &self.ack[usize::from(partition) % self.ack.len()]
    }

    /// `None` when the service is not on the allow-list.
    pub(crate) fn request(&self, service: &str, partition: Partition) -> Option<&Lane> {
        let lanes = self.requests.get(service)?;
        lanes.get(usize::from(partition.0) % lanes.len())
    }

    /// Entries that the bus has not taken yet.
    pub(crate) fn entries(&self) -> usize {
        let shared = [&self.message, &self.query, &self.session, &self.ack];
        let lanes = shared.into_iter().chain(self.requests.values()).flatten();
        lanes
            .map(|lane| lane.load.entries.load(Ordering::Relaxed))
            .sum()
    }
}

// === impl Writer ===

impl Writer {
    async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let mut queued = Vec::new();
        loop {
            // What did not fit the last batch by its bytes goes by itself, first.
            if queued.is_empty() {
                let received = self.entries.recv_many(&mut queued, BATCH_MAX_ENTRIES);
                if let None | Some(0) = shutdown.run_until_cancelled(received).await {
                    return;
                }
            }
            let batch = split_batch(&mut queued);
            self.note(&batch);
            if self.tracer.is_armed() {
                self.trace(&batch);
            }
            let batch: Vec<Bytes> = batch.into_iter().map(|queued| queued.entry).collect();
            let bytes = batch.iter().map(Bytes::len).sum();
            let entries = batch.len();
            if shutdown
                .run_until_cancelled(self.append(batch))
                .await
                .is_none()
            {
                return;
            }
            self.load.subtract(entries, bytes);
        }
    }

    /// Depth, batch size and the longest wait.
    fn note(&self, batch: &[Queued]) {
        let depth = self.load.entries.load(Ordering::Relaxed);
        self.metrics.depth_entries.record(depth as f64);
        self.metrics.batch_entries.record(batch.len() as f64);
        let oldest_ms = batch.iter().map(|queued| queued.since_ms).min();
        if let Some(since_ms) = oldest_ms {
            let waited_ms = self.clock.now().mono_ms.saturating_sub(since_ms);
            self.metrics.wait_s.record(waited_ms as f64 / 1000.0);
        }
    }

    /// Before the append, since whoever reads the stream may be faster than its end.
    fn trace(&self, batch: &[Queued]) {
        for message in batch.iter().filter_map(|queued| queued.trace) {
            self.tracer.mark(message, Stage::Append);
        }
    }

    /// Appends until it is known to be there: one batch in flight, so the
    /// stream keeps its order.
    async fn append(&self, batch: Vec<Bytes>) {
        let began = Instant::now();
        let mut has_failed = false;
        let mut wait_ms = self.config.append_retry_min_ms.max(1);
        loop {
            // The entries are shared, so a clone copies pointers.
            match self.bus.append(&self.stream, batch.clone()).await {
                Ok(()) => break,
                Err(error @ (BusError::TooLarge { .. } | BusError::Gone(_))) => {
                    // Frames are capped far below the batch limit and `up`
                    // streams are never gone, so this is a fault of the wiring.
                    tracing::error!(stream = %self.stream, %error, "a batch was dropped");
                    self.metrics.dropped.increment(batch.len() as u64);
                    break;
                }
                Err(error) => {
                    has_failed = true;
                    self.health.failed(&self.stream.to_string(), &error);
                    self.metrics.retries.increment(1);
                    tracing::warn!(stream = %self.stream, %error, wait_ms, "append failed, repeating");
                }
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            wait_ms = (wait_ms * 2).min(self.config.append_retry_max_ms.max(1));
        }
        if has_failed {
            self.health.recovered(&self.stream.to_string());
        }
        self.metrics.append_s.record(began.elapsed().as_secs_f64());
    }
}

/// Takes from the front as much as one append may hold; at least one entry.
fn split_batch(queued: &mut Vec<Queued>) -> Vec<Queued> {
    let mut bytes = 0;
    let fitting = queued
        .iter()
        .take(BATCH_MAX_ENTRIES)
        .take_while(|queued| {
            bytes += queued.entry.len();
            bytes <= BATCH_MAX_BYTES
        })
        .count()
        .max(1)
        .min(queued.len());
    let rest = queued.split_off(fitting);
    std::mem::replace(queued, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_both_bounds_and_the_order() {
        let mut queued: Vec<Queued> = (0..700_usize)
            .map(|i| Queued {
                entry: Bytes::from(vec![i as u8; if i < 20 { 60_000 } else { 10 }]),
                since_ms: 0,
                trace: None,
            })
            .collect();
        let joined = |queued: &[Queued]| -> Vec<u8> {
            let entries = queued.iter().flat_map(|queued| queued.entry.iter());
            entries.copied().collect()
        };
        let all = joined(&queued);
        let mut seen = Vec::new();
        while !queued.is_empty() {
            let batch = split_batch(&mut queued);
            assert!(!batch.is_empty() && batch.len() <= BATCH_MAX_ENTRIES);
            let bytes = joined(&batch);
            assert!(bytes.len() <= BATCH_MAX_BYTES);
            seen.extend(bytes);
        }
        assert!(seen == all);
    }
}
