//! Answers and pushes on their way to gateways.
//!
//! The [`Downlink`] keeps a bounded queue and one writer task a gateway stream: the
//! writer merges the parcels that wait into few `Down` entries, numbers them
//! and has one append in flight. A stream that is full, gone or out of reach
//! costs its own gateway a gap in the numbers (and so a resync), nobody else.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use prost::Message as _;
use sluice_bus::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusError, Stream};
use sluice_protocol::{
    Incarnation, WorkerId,
    envelope::{Delivery, Down},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::outbox::Outbox;

/// A `Down` entry is closed when it has grown to this.
const DOWN_MAX_BYTES: usize = 128 * 1024;
/// Gateway streams with a writer; those of dead gateways are dropped over it.
const OUTLETS_MAX: usize = 1024;
/// Parcels merged into one append at most.
const MERGED_PARCELS_MAX: usize = 64;
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// With nothing else to say, a gap is told after so long.
const GAP_PAUSE: Duration = Duration::from_millis(500);

/// The way to all gateways; cheap to clone.
#[derive(Clone)]
pub(crate) struct Downlink {
    shared: Arc<Shared>,
}

struct Shared {
    bus: Arc<dyn Bus>,
    producer: WorkerId,
    queue_max_batches: usize,
    retry: Duration,
    outlets: Mutex<HashMap<Incarnation, Outlet>>,
    writers: TaskTracker,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Outlet {
    queue: mpsc::Sender<Parcel>,
    state: Arc<OutletState>,
}

#[derive(Default)]
struct OutletState {
    /// A parcel was dropped before it got a number; the next one skips one.
    dropped: AtomicBool,
    /// The stream has had no reader at the last append.
    gone: AtomicBool,
}

struct Parcel {
    deliveries: Vec<Delivery>,
    /// Resolves (or is dropped) when the parcel is appended or given up.
    done: oneshot::Sender<()>,
}

// === impl Downlink ===

impl Downlink {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        producer: WorkerId,
        queue_max_batches: usize,
        retry: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                bus,
                producer,
                queue_max_batches: queue_max_batches.max(1),
                retry,
                outlets: Mutex::default(),
                writers: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Hands everything to the gateways' streams and waits until it is there or
    /// given up. Never fails: what is lost shows as a gap at its gateway.
    pub(crate) async fn emit(&self, outbox: Outbox) {
        let shares = outbox.into_shares();
        let mut waiting = Vec::with_capacity(shares.len());
        for (gateway, deliveries) in shares {
            let outlet = self.outlet(gateway);
            let (done, appended) = oneshot::channel();
            match outlet.queue.try_send(Parcel { deliveries, done }) {
                Ok(()) => waiting.push(appended),
                Err(_) => {
                    outlet.state.dropped.store(true, Ordering::Relaxed);
                    metrics::counter!("sluice_down_dropped_batches_total", "why" => "queue_full")
                        .increment(1);
                }
            }
        }
        for appended in waiting {
            // An error means that the writer has ended with the process.
            let _ = appended.await;
        }
    }

    /// Ends the writers; call it when nobody emits any more.
    pub(crate) async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.writers.close();
        self.shared.writers.wait().await;
    }

    /// Whether no writer runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.writers.is_empty()
    }

    fn outlet(&self, gateway: Incarnation) -> Outlet {
        let mut outlets = self.shared.outlets.lock();
        if let Some(outlet) = outlets.get(&gateway) {
            return outlet.clone();
        }
        if outlets.len() >= OUTLETS_MAX {
            // Lives of gateways that are over; their numbers never come back.
            outlets.retain(|_, outlet| !outlet.state.gone.load(Ordering::Relaxed));
        }
        let (queue, parcels) = mpsc::channel(self.shared.queue_max_batches);
        let outlet = Outlet {
            queue,
            state: Arc::default(),
        };
        let writer = Writer {
            bus: self.shared.bus.clone(),
            stream: Stream::Down(gateway),
            producer: u64::from(self.shared.producer.0),
            counter: 0,
            owes_gap: false,
            retry: self.shared.retry,
            state: outlet.state.clone(),
        };
        let stop = self.shared.stop.clone();
        self.shared.writers.spawn(async move {
            tokio::select! {
                () = writer.run(parcels) => {}
                () = stop.cancelled() => {}
            }
        });
        outlets.insert(gateway, outlet.clone());
        outlet
    }
}

// === Writer ===

/// Numbers and appends one gateway's parcels; ends when its queue is dropped.
struct Writer {
    bus: Arc<dyn Bus>,
    stream: Stream,
    producer: u64,
    /// Of the newest entry, appended or lost.
    counter: u64,
    /// A batch was given up, which only a later number shows.
    owes_gap: bool,
    retry: Duration,
    state: Arc<OutletState>,
}

impl Writer {
    async fn run(mut self, mut parcels: mpsc::Receiver<Parcel>) {
        let mut waiting = Vec::with_capacity(MERGED_PARCELS_MAX);
        loop {
            let received = parcels.recv_many(&mut waiting, MERGED_PARCELS_MAX);
            let received = if self.owes_gap {
                tokio::time::timeout(GAP_PAUSE, received).await
            } else {
                Ok(received.await)
            };
            match received {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => {
                    self.tell_gap().await;
                    continue;
                }
            }
            if self.state.dropped.swap(false, Ordering::Relaxed) {
                self.counter += 1;
            }
            let mut done = Vec::with_capacity(waiting.len());
            let mut deliveries = Vec::new();
            for parcel in waiting.drain(..) {
                deliveries.extend(parcel.deliveries);
                done.push(parcel.done);
            }
            for batch in self.batches(deliveries) {
                self.append(batch).await;
            }
            for done in done {
                // Nobody waits any more when the task that emitted was aborted.
                let _ = done.send(());
            }
        }
    }

    /// Numbered, encoded entries in batches that the bus takes.
    fn batches(&mut self, deliveries: Vec<Delivery>) -> VecDeque<Vec<Bytes>> {
        let mut batches: VecDeque<Vec<Bytes>> = VecDeque::new();
        let mut batch_bytes = 0;
        let mut rest = deliveries.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            let mut deliveries = Vec::new();
            while let Some(delivery) =
                rest.next_if(|next| bytes == 0 || bytes + next.encoded_len() <= DOWN_MAX_BYTES)
            {
                bytes += delivery.encoded_len();
                deliveries.push(delivery);
            }
            self.counter += 1;
            let entry: Bytes = Down {
                producer: self.producer,
                counter: self.counter,
                deliveries,
            }
            .encode_to_vec()
            .into();
            match batches.back_mut() {
                Some(batch)
                    if batch.len() < BATCH_MAX_ENTRIES
                        && batch_bytes + entry.len() <= BATCH_MAX_BYTES =>
                {
                    batch_bytes += entry.len();
                    batch.push(entry);
                }
                _ => {
                    batch_bytes = entry.len();
                    batches.push_back(vec![entry]);
                }
            }
        }
        batches
    }

    /// An entry with nothing but a number: the last loss has no successor else
    /// that would show it.
    async fn tell_gap(&mut self) {
        self.counter += 1;
        let entry = Down {
            producer: self.producer,
            counter: self.counter,
            deliveries: Vec::new(),
        };
        let batch = vec![entry.encode_to_vec().into()];
        match self.bus.append(&self.stream, batch).await {
            Ok(()) | Err(BusError::Gone(_)) => self.owes_gap = false,
            Err(error) => tracing::debug!(stream = %self.stream, %error, "a gap isn't told yet"),
        }
    }

    /// One append in flight, repeated until it is known or its time is over.
    async fn append(&mut self, batch: Vec<Bytes>) {
        let deadline = Instant::now() + self.retry;
        let mut delay = RETRY_FIRST;
        loop {
            let error = match self.bus.append(&self.stream, batch.clone()).await {
                Ok(()) => {
                    self.state.gone.store(false, Ordering::Relaxed);
                    self.owes_gap = false;
                    return;
                }
                Err(error) => error,
            };
            match error {
                BusError::Unavailable(_) | BusError::Unknown(_) if Instant::now() < deadline => {
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_MAX);
                }
                BusError::Gone(_) => {
                    // The gateway's life is over and its routes with it.
                    self.state.gone.store(true, Ordering::Relaxed);
                    return;
                }
                error => {
                    metrics::counter!("sluice_down_dropped_batches_total", "why" => "bus")
                        .increment(1);
                    tracing::warn!(stream = %self.stream, %error, "a batch for a gateway is lost");
                    self.owes_gap = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;
    use sluice_bus::{
        MemoryBus, MemoryBusConfig, NodeName,
        faulty_bus::{FaultPlan, FaultyBus},
    };
    use sluice_protocol::{UserId, envelope::delivery::Body};

    const GATEWAY: Incarnation = Incarnation(7);

    fn origin() -> Origin {
        Origin {
            user: UserId::parse("alice").unwrap(),
            device: None,
            connection: None,
            request_id: 1,
            reply_to: GATEWAY,
        }
    }

    fn outbox(answers: usize, bytes: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for _ in 0..answers {
            outbox.tell(&origin(), Body::Answer(vec![0; bytes].into()));
        }
        outbox
    }

    fn downlink(bus: Arc<MemoryBus>) -> Downlink {
        Downlink::new(bus, WorkerId(3), 16, Duration::from_millis(100))
    }

    async fn read(reader: &mut dyn sluice_bus::Reader) -> Vec<Down> {
        let batch = reader.read(1000).await.unwrap();
        let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
        reader.ack(&ids).await.unwrap();
        let entries = batch.entries.into_iter();
        entries
            .map(|entry| Down::decode(entry.payload).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_batch_is_one_entry_unless_it_is_large() {
        let bus = MemoryBus::new(MemoryBusConfig::default());
        let name = NodeName("gateway".into());
        let mut reader = bus.own(&Stream::Down(GATEWAY), &name).await.unwrap();
        let downlink = downlink(bus);
        downlink.emit(outbox(100, 10)).await;
        let entries = read(reader.as_mut()).await;
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].producer, entries[0].counter), (3, 1));
        assert_eq!(entries[0].deliveries.len(), 100);

        // Over what one entry, and one append, may hold.
        downlink.emit(outbox(30, 60_000)).await;
        let mut entries = Vec::new();
        while entries
            .iter()
            .map(|down: &Down| down.deliveries.len())
            .sum::<usize>()
            < 30
        {
            entries.extend(read(reader.as_mut()).await);
        }
        assert_eq!(entries.len(), 15);
        let counters: Vec<_> = entries.iter().map(|down| down.counter).collect();
        assert_eq!(counters, (2..=16).collect::<Vec<_>>());
        downlink.stop().await;
    }

    #[tokio::test]
    async fn what_a_gateway_missed_shows_as_a_gap() {
        let bus = MemoryBus::new(MemoryBusConfig::default());
        let downlink = downlink(bus.clone());
        // Nobody reads there yet: given up, without a wait.
        downlink.emit(outbox(1, 10)).await;
        let name = NodeName("gateway".into());
        let mut reader = bus.own(&Stream::Down(GATEWAY), &name).await.unwrap();
        downlink.emit(outbox(1, 10)).await;
        assert_eq!(read(reader.as_mut()).await[0].counter, 2);
        downlink.stop().await;
    }

    #[tokio::test]
    async fn a_loss_shows_without_a_successor() {
        let inner = MemoryBus::new(MemoryBusConfig::default());
        let name = NodeName("gateway".into());
        let mut reader = inner.own(&Stream::Down(GATEWAY), &name).await.unwrap();
        let away = FaultPlan {
            unavailable_per_1000: 1000,
            spell_max_calls: 1,
            ..FaultPlan::default()
        };
        let bus = FaultyBus::new(inner, away);
        let downlink = Downlink::new(bus.clone(), WorkerId(3), 16, Duration::from_millis(50));
        downlink.emit(outbox(1, 10)).await;
        bus.calm();
        let told = read(reader.as_mut()).await;
        assert!(told[0].counter > 1 && told[0].deliveries.is_empty());
        downlink.stop().await;
    }
}
