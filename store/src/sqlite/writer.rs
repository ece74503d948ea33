//! The one thread that writes.
//!
//! It takes whatever waits, up to a bound, and makes one transaction of it: the
//! sync at the end is paid once for all (group commit). While it syncs, the
//! next batch gathers, so batches grow with the load and nobody waits for a
//! timer. Each request runs in a savepoint of its own: one that fails undoes
//! itself and harms no other. Answers leave after the commit.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{SqliteConfig, memory::WriterMemory};
use crate::StoreError;

/// A change of the store.
pub(super) trait Write: Send + 'static {
    /// What the caller is told once it is durable.
    type Answer: Send + 'static;

    /// Rows that it touches, roughly; bounds a transaction.
    fn weight(&self) -> usize {
        1
    }

    /// Does it. On an error whatever it has written is undone, and it must have
    /// left in `memory` nothing but what was true before.
    fn apply(
        self,
        connection: &Connection,
        memory: &mut WriterMemory,
    ) -> Result<Self::Answer, StoreError>;
}

/// Where writes are handed in.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<Sender<Box<dyn Request>>>,
    thread: Option<JoinHandle<()>>,
}

/// A [`Write`] with its caller, whatever its type.
trait Request: Send {
    fn weight(&self) -> usize;
    /// True if it went well and its savepoint should stand.
    fn run(&mut self, connection: &Connection, memory: &mut WriterMemory) -> bool;
    /// Tells the caller; `failure` is that of the whole transaction.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Pending<W: Write> {
    write: Option<W>,
    outcome: Option<Result<W::Answer, StoreError>>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

struct WriterThread {
    connection: Connection,
    memory: WriterMemory,
    requests: Receiver<Box<dyn Request>>,
    batch: Vec<Box<dyn Request>>,
    batch_max_entries: usize,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(connection: Connection, config: &SqliteConfig) -> Result<Self, StoreError> {
        let (requests, waiting) = bounded(config.queue_max_requests.max(1));
        let writer = WriterThread {
            connection,
            memory: WriterMemory::new(config.writer_memory_entries),
            requests: waiting,
            batch: Vec::new(),
            batch_max_entries: config.batch_max_entries.max(1),
        };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unavailable(format!("no writer thread: {error}")))?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Queues a write and waits until it is durable.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when the queue is full; else what the write
    /// or its transaction ended with.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let gone = || StoreError::Unavailable("the writer has ended".to_owned());
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        let (caller, answer) = oneshot::channel();
        let request = Box::new(Pending {
            write: Some(write),
            outcome: None,
            caller,
        });
        match requests.try_send(request) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(TrySendError::Full(_)) => Err(StoreError::Overloaded {
                waiting: requests.len(),
            }),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

impl Drop for Writer {
    /// Waits until what was queued is written.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Pending ===

impl<W: Write> Request for Pending<W> {
    fn weight(&self) -> usize {
        self.write.as_ref().map_or(1, W::weight)
    }

    fn run(&mut self, connection: &Connection, memory: &mut WriterMemory) -> bool {
        let Some(write) = self.write.take() else {
            return false;
        };
        let outcome = write.apply(connection, memory);
        let stands = outcome.is_ok();
        self.outcome = Some(outcome);
        stands
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let outcome = match (failure, self.outcome) {
            (None, Some(outcome)) => outcome,
            // A request's own error says more than that of the transaction.
            (Some(_), Some(Err(error))) => Err(error),
            (Some(failure), _) => Err(failure.clone()),
            (None, None) => Err(StoreError::Unavailable("the write was not run".to_owned())),
        };
        if let Err(error) = &outcome {
            metrics::counter!("sluice_store_errors_total", "error" => error.label()).increment(1);
        }
        // A caller that went away wants no answer; its write stands all the same.
        let _ = self.caller.send(outcome);
    }
}

// === impl WriterThread ===

impl WriterThread {
    fn run(mut self) {
        while let Ok(first) = self.requests.recv() {
            let entries = self.gather(first);
            metrics::gauge!("sluice_store_queue_requests").set(self.requests.len() as f64);
            metrics::histogram!("sluice_store_batch_entries").record(entries as f64);
            let started = Instant::now();
            let failure = self.transact().err();
            metrics::histogram!("sluice_store_commit_ms")
                .record(started.elapsed().as_secs_f64() * 1e3);
            if let Some(error) = &failure {
                tracing::error!(%error, requests = self.batch.len(), "a transaction failed");
                self.recover();
            }
            for request in self.batch.drain(..) {
                request.answer(failure.as_ref());
            }
        }
    }

    /// Fills the batch with what waits. Returns its weight.
    fn gather(&mut self, first: Box<dyn Request>) -> usize {
        let mut weight = first.weight();
        self.batch.push(first);
        while weight < self.batch_max_entries {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            weight = weight.saturating_add(request.weight());
            self.batch.push(request);
        }
        weight
    }

    fn transact(&mut self) -> Result<(), StoreError> {
        let run = |sql: &str| -> Result<(), StoreError> {
            self.connection.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        run("BEGIN IMMEDIATE")?;
        for request in &mut self.batch {
            run("SAVEPOINT request")?;
            if !request.run(&self.connection, &mut self.memory) {
                // After some failures (disk full, I/O) SQLite has rolled back
                // everything by itself; then nothing of this batch may stand.
                if self.connection.is_autocommit() {
                    return Err(StoreError::Unavailable(
                        "the transaction was rolled back".to_owned(),
                    ));
                }
                run("ROLLBACK TO request")?;
            }
            run("RELEASE request")?;
        }
        run("COMMIT")
    }

    /// After a failed transaction nobody knows what is on the disk: what was
    /// believed of it goes.
    fn recover(&mut self) {
        self.memory.forget();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }
}
