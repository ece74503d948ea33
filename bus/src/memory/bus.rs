//! [`MemoryBus`]: the port [`Bus`] within one process.
//!
//! A batch costs one shared lock on the table of streams and one lock on its
//! stream, however many entries it has. Nothing survives the process: entries
//! that were not worked off are sent again by the clients that miss their answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use tokio::{
    sync::{Notify, Semaphore},
    task::coop,
    time::Instant,
};

use super::{
    reader::MemoryReader,
    stream::{Admission, Bounds, End, StreamState, Ticket},
};
use crate::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusError, Lag, NodeName, Reader, Stream};

/// Bounds of the in-process bus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryBusConfig {
    /// Entries that one stream holds, read and unacknowledged ones included.
    pub stream_max_entries: usize,
    /// Their bytes. An empty stream takes any one batch.
    pub stream_max_bytes: usize,
}

/// What the bus holds just now, and what it had to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryBusStats {
    /// Streams that exist.
    pub streams: usize,
    /// Entries in them that aren't acknowledged yet.
    pub entries: usize,
    /// Bytes of those.
    pub bytes: usize,
    /// Entries for full `down` streams that were dropped since the start.
    pub dropped_entries: u64,
}

/// Streams in the memory of this process.
#[derive(Debug)]
pub struct MemoryBus {
    config: MemoryBusConfig,
    streams: Arc<StreamTable>,
    dropped_entries: AtomicU64,
    shut_down: AtomicBool,
}

/// All streams by name.
pub(super) type StreamTable = RwLock<HashMap<Stream, Arc<StreamCell>>>;

/// One stream, its lease, and its doorbell.
#[derive(Debug)]
pub(super) struct StreamCell {
    pub(super) state: Mutex<StreamState>,
    /// Rung once for every arrival; who leaves entries behind rings again.
    pub(super) arrived: Notify,
    /// One permit: the lease. First come, first served.
    lease: Arc<Semaphore>,
}

/// Takes a queued append back when its caller goes away.
struct QueuedGuard<'a> {
    cell: &'a StreamCell,
    ticket: Ticket,
}

// === impl MemoryBusConfig ===

impl MemoryBusConfig {
    /// Whether a bus can work with these values.
    ///
    /// # Errors
    /// Names the one that it can't.
    pub fn check(&self) -> Result<(), String> {
        if self.stream_max_entries == 0 {
            return Err("stream_max_entries must be above 0".into());
        }
        Ok(())
    }
}

impl Default for MemoryBusConfig {
    fn default() -> Self {
        Self {
            stream_max_entries: 16_384,
            stream_max_bytes: 16 * 1024 * 1024,
        }
    }
}

// === impl MemoryBus ===

impl MemoryBus {
    /// An empty bus.
    pub fn new(config: MemoryBusConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            streams: Arc::default(),
            dropped_entries: AtomicU64::new(0),
            shut_down: AtomicBool::new(false),
        })
    }

    /// Ends all streams: whoever waits or comes later gets [`BusError::Closed`].
    pub fn shut_down(&self) {
        let cells: Vec<_> = {
            let mut streams = self.streams.write();
            self.shut_down.store(true, Ordering::Release);
            streams.drain().map(|(_, cell)| cell).collect()
        };
        for cell in cells {
            cell.finish(End::Deleted);
        }
    }

    /// Takes a stream's lease away from its owner, as a remote engine does with
    /// a lease that ran out: that reader's next call answers
    /// [`BusError::LeaseLost`]. True if there was an owner.
    pub fn revoke(&self, stream: &Stream) -> bool {
        let Some(cell) = self.find(stream) else {
            return false;
        };
        let (revoked, ended) = {
            let mut state = cell.state.lock();
            (state.revoke(), state.end().is_some())
        };
        if ended {
            remove_cell(&self.streams, stream, &cell);
        }
        cell.arrived.notify_waiters();
        revoked
    }

    /// Sums over all streams. Locks each in turn: for metrics, not for a hot path.
    pub fn stats(&self) -> MemoryBusStats {
        let cells: Vec<_> = self.streams.read().values().cloned().collect();
        let mut stats = MemoryBusStats {
            streams: cells.len(),
            dropped_entries: self.dropped_entries.load(Ordering::Relaxed),
            ..MemoryBusStats::default()
        };
        for cell in cells {
            let state = cell.state.lock();
            stats.entries += state.held_entries();
            stats.bytes += state.held_bytes();
        }
        stats
    }

    fn find(&self, stream: &Stream) -> Option<Arc<StreamCell>> {
        self.streams.read().get(stream).cloned()
    }

    fn find_or_create(&self, stream: &Stream) -> Result<Arc<StreamCell>, BusError> {
        if let Some(cell) = self.find(stream) {
            return Ok(cell);
        }
        let mut streams = self.streams.write();
        if self.shut_down.load(Ordering::Acquire) {
            return Err(closed(stream));
        }
        let bounds = Bounds {
            max_entries: self.config.stream_max_entries,
            max_bytes: self.config.stream_max_bytes,
        };
        let cell = streams.entry(stream.clone()).or_insert_with(|| {
            Arc::new(StreamCell {
                state: Mutex::new(StreamState::new(bounds, stream.blocks_producer())),
                arrived: Notify::new(),
                lease: Arc::new(Semaphore::new(1)),
            })
        });
        Ok(Arc::clone(cell))
    }

    /// The stream to append to; a `down` stream has to be there.
    fn target(&self, stream: &Stream) -> Result<Arc<StreamCell>, BusError> {
        if stream.blocks_producer() {
            self.find_or_create(stream)
        } else {
            self.find(stream).ok_or_else(|| gone(stream))
        }
    }

    fn count_dropped(&self, entries: usize) {
        self.dropped_entries
            .fetch_add(entries as u64, Ordering::Relaxed);
        metrics::counter!("sluice_bus_dropped_entries_total").increment(entries as u64);
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn append(&self, stream: &Stream, mut entries: Vec<Bytes>) -> Result<(), BusError> {
        let count = entries.len();
        let bytes = entries.iter().map(Bytes::len).sum();
        if count > BATCH_MAX_ENTRIES || bytes > BATCH_MAX_BYTES {
            let entries = count;
            return Err(BusError::TooLarge { entries, bytes });
        }
        if entries.is_empty() {
            return Ok(());
        }
        // Nothing below waits while there is room; a busy producer must still let others run.
        coop::consume_budget().await;
        loop {
            let cell = self.target(stream)?;
            let admission = cell.state.lock().append(entries, bytes);
            match admission {
                Admission::Admitted => {
                    cell.arrived.notify_one();
                    return Ok(());
                }
                Admission::Queued(ticket, answer) => {
                    let _guard = QueuedGuard {
                        cell: &cell,
                        ticket,
                    };
                    return answer.await.map_err(|_| closed(stream));
                }
                Admission::Full => {
                    self.count_dropped(count);
                    return Ok(());
                }
                Admission::Unowned => return Err(gone(stream)),
                // It ended between look-up and lock.
                Admission::Ended(batch) => {
                    remove_cell(&self.streams, stream, &cell);
                    entries = batch;
                }
            }
        }
    }

    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        loop {
            let cell = self.find_or_create(stream)?;
            // Without the first try a cancelled call could leave a `down` stream that nobody owns.
            let permit = match Arc::clone(&cell.lease).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => Arc::clone(&cell.lease)
                    .acquire_owned()
                    .await
                    .map_err(|_| closed(stream))?,
            };
            let owned = cell.state.lock().own(permit);
            match owned {
                Ok(token) => {
                    tracing::debug!(%stream, owner = %owner.0, "lease taken");
                    let table = Arc::clone(&self.streams);
                    let stream = stream.clone();
                    return Ok(Box::new(MemoryReader::new(
                        table, stream, cell, token, true,
                    )));
                }
                Err(End::Deleted) => return Err(closed(stream)),
                Err(End::OwnerLeft) => remove_cell(&self.streams, stream, &cell),
            }
        }
    }

    async fn join(
        &self,
        stream: &Stream,
        consumer: &NodeName,
    ) -> Result<Box<dyn Reader>, BusError> {
        let cell = self.find_or_create(stream)?;
        let token = cell.state.lock().join().map_err(|_| closed(stream))?;
        tracing::debug!(%stream, consumer = %consumer.0, "joined");
        let table = Arc::clone(&self.streams);
        let stream = stream.clone();
        Ok(Box::new(MemoryReader::new(
            table, stream, cell, token, false,
        )))
    }

    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        Ok(self
            .find(stream)
            .map(|cell| cell.state.lock().lag(Instant::now()))
            .unwrap_or_default())
    }

    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        let removed = self.streams.write().remove(stream);
        if let Some(cell) = removed {
            cell.finish(End::Deleted);
        }
        Ok(())
    }
}

// === impl StreamCell ===

impl StreamCell {
    fn finish(&self, end: End) {
        self.state.lock().finish(end);
        self.arrived.notify_waiters();
    }
}

// === impl QueuedGuard ===

impl Drop for QueuedGuard<'_> {
    fn drop(&mut self) {
        if self.cell.state.lock().withdraw(self.ticket) {
            self.cell.arrived.notify_one();
        }
    }
}

/// Takes the stream out of the table unless another has its name by now.
pub(super) fn remove_cell(table: &StreamTable, stream: &Stream, cell: &Arc<StreamCell>) {
    let mut streams = table.write();
    if streams
        .get(stream)
        .is_some_and(|there| Arc::ptr_eq(there, cell))
    {
        streams.remove(stream);
    }
}

pub(super) fn closed(stream: &Stream) -> BusError {
    BusError::Closed(stream.to_string())
}

fn gone(stream: &Stream) -> BusError {
    BusError::Gone(stream.to_string())
}
