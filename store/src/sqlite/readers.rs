//! Threads that read, apart from the writer.
//!
//! There are three lanes of them, each with its queue: neither the owners' reads
//! nor those of accounts, by which sessions open and bearers are checked, ever
//! wait behind the others from outside. Each thread has a read-only connection
//! and answers one request at a time, inside one snapshot. A snapshot is taken when the request is picked up, so a read
//! that begins after a write was acknowledged sees it.

use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::StoreError;

/// A question to the store.
pub(super) trait Read: Send + 'static {
    /// What the caller is told.
    type Answer: Send + 'static;

    /// Reads it, all from one snapshot.
    fn read(&self, connection: &Connection) -> Result<Self::Answer, StoreError>;
}

/// Where reads are handed in.
#[derive(Debug)]
pub(super) struct Readers {
    requests: Option<Sender<Box<dyn Request>>>,
    threads: Vec<JoinHandle<()>>,
}

/// A [`Read`] with its caller, whatever its type.
trait Request: Send {
    fn answer(self: Box<Self>, connection: &Connection);
}

struct Pending<R: Read> {
    read: R,
    caller: oneshot::Sender<Result<R::Answer, StoreError>>,
}

// === impl Readers ===

impl Readers {
    /// `lane` names them to the metrics.
    pub(super) fn start(
        lane: &'static str,
        connections: Vec<Connection>,
        queue_max_requests: usize,
    ) -> Result<Self, StoreError> {
        let (requests, waiting) = bounded(queue_max_requests.max(1));
        let mut readers = Self {
            requests: Some(requests),
            threads: Vec::with_capacity(connections.len()),
        };
        for connection in connections {
            let waiting = waiting.clone();
            let thread = thread::Builder::new()
                .name(format!("store-{lane}"))
                .spawn(move || answer_all(lane, &connection, &waiting))
                .map_err(|error| StoreError::Unavailable(format!("no reader thread: {error}")))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Queues a read and waits for its answer.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when the queue is full; else what the read ended with.
    pub(super) async fn read<R: Read>(&self, read: R) -> Result<R::Answer, StoreError> {
        let gone = || StoreError::Unavailable("the readers have ended".to_owned());
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        let (caller, answer) = oneshot::channel();
        match requests.try_send(Box::new(Pending { read, caller })) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(TrySendError::Full(_)) => Err(StoreError::Overloaded {
                waiting: requests.len(),
            }),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_all(lane: &'static str, connection: &Connection, requests: &Receiver<Box<dyn Request>>) {
    while let Ok(request) = requests.recv() {
        metrics::gauge!("sluice_store_read_queue_requests", "lane" => lane)
            .set(requests.len() as f64);
        request.answer(connection);
    }
}

// === impl Pending ===

impl<R: Read> Request for Pending<R> {
    fn answer(self: Box<Self>, connection: &Connection) {
        if self.caller.is_closed() {
            return;
        }
        let outcome = in_snapshot(connection, &self.read);
        if let Err(error) = &outcome {
            metrics::counter!("sluice_store_errors_total", "error" => error.label()).increment(1);
        }
        let _ = self.caller.send(outcome);
    }
}

fn in_snapshot<R: Read>(connection: &Connection, read: &R) -> Result<R::Answer, StoreError> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let answer = read.read(connection);
    // Ends the snapshot whatever came of it; a reader has nothing to undo.
    connection.prepare_cached("COMMIT")?.execute([])?;
    answer
}
