//! The one thread that writes.
//!
//! It takes whatever waits, up to a bound, and makes one transaction of it: the
//! sync at the end is paid once for all (group commit). While it syncs, the
//! next batch gathers, so batches grow with the load. Answers leave after the commit.
//!
//! A small transaction costs nearly as much as a large one, in here and in all whom its
//! answers wake. So after one that several have shared the next begins no sooner than
//! `commit_gap_us` after it did; whoever writes alone never waits for a timer.
//!
//! A request that fails harms no other. Nearly all that fail have written
//! nothing yet (a fenced owner, a name that is taken) and there is nothing to
//! undo. Should one fail half-way, the transaction is rolled back and run anew
//! with a savepoint around each request, so that only that one's writes go.
//! Savepoints are not the rule because SQLite copies every page that is changed
//! inside one (a tenth of a message's time).

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, TrySendError, after, bounded};
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

    /// Does it; may be called again after a rollback. On an error whatever it has
    /// written is undone, and it must have left in `memory` nothing but what was
    /// true before.
    fn apply(
        &self,
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
    /// True if it went well.
    fn run(&mut self, connection: &Connection, memory: &mut WriterMemory) -> bool;
    /// Tells the caller; `failure` is that of the whole transaction.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Pending<W: Write> {
    write: W,
    outcome: Option<Result<W::Answer, StoreError>>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

struct WriterThread {
    connection: Connection,
    memory: WriterMemory,
    requests: Receiver<Box<dyn Request>>,
    batch: Vec<Box<dyn Request>>,
    batch_max_entries: usize,
    pace: Pace,
    /// With so many waiting nobody waits for a timer.
    crowd_requests: usize,
}

/// When the next transaction begins.
struct Pace {
    gap: Duration,
    began: Option<Instant>,
}

/// Entries from which on a transaction is one that several have shared.
const SHARED_ENTRIES: usize = 4;

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
            pace: Pace::new(Duration::from_micros(config.commit_gap_us)),
            crowd_requests: config.queue_max_requests / 2,
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
            write,
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
        self.write.weight()
    }

    fn run(&mut self, connection: &Connection, memory: &mut WriterMemory) -> bool {
        let outcome = self.write.apply(connection, memory);
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
            let wait = self.pace.wait(Instant::now());
            if !wait.is_zero() && self.requests.len() < self.crowd_requests {
                // Nobody who hands something in has to wake this thread meanwhile.
                let _ = after(wait).recv();
            }
            let entries = self.gather(first);
            metrics::gauge!("sluice_store_queue_requests").set(self.requests.len() as f64);
            metrics::histogram!("sluice_store_batch_entries").record(entries as f64);
            let started = Instant::now();
            self.pace.begins(started, entries);
            let failure = self.transact().err();
            metrics::histogram!("sluice_store_commit_seconds")
                .record(started.elapsed().as_secs_f64());
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
        if !self.attempt()? {
            self.recover();
            self.attempt_apart()?;
        }
        Ok(())
    }

    /// Runs the batch as one. False if a request failed half-way.
    fn attempt(&mut self) -> Result<bool, StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        for request in &mut self.batch {
            let before = self.connection.total_changes();
            if request.run(&self.connection, &mut self.memory) {
                continue;
            }
            // After some failures (disk full, I/O) SQLite has rolled back
            // everything by itself, the work of the others as well.
            if self.connection.is_autocommit() || self.connection.total_changes() != before {
                return Ok(false);
            }
        }
        self.execute("COMMIT")?;
        Ok(true)
    }

    /// Runs the batch with a savepoint around each request.
    fn attempt_apart(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        for at in 0..self.batch.len() {
            self.execute("SAVEPOINT request")?;
            if !self.batch[at].run(&self.connection, &mut self.memory) {
                if self.connection.is_autocommit() {
                    return Err(StoreError::Unavailable(
                        "the transaction was rolled back".to_owned(),
                    ));
                }
                self.execute("ROLLBACK TO request")?;
            }
            self.execute("RELEASE request")?;
        }
        self.execute("COMMIT")
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Rolls back what is left of a failed transaction. Nobody knows what of it
    /// is on the disk: what was believed of it goes.
    fn recover(&mut self) {
        self.memory.forget();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }
}

// === impl Pace ===

impl Pace {
    fn new(gap: Duration) -> Self {
        Self { gap, began: None }
    }

    /// How long the next transaction has to wait.
    fn wait(&self, now: Instant) -> Duration {
        let due = self.began.map(|began| began + self.gap);
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    fn begins(&mut self, now: Instant, entries: usize) {
        self.began = (entries >= SHARED_ENTRIES).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transactions_that_several_share_keep_their_distance() {
        let gap = Duration::from_millis(2);
        let mut pace = Pace::new(gap);
        let start = Instant::now();
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.begins(start, SHARED_ENTRIES);
        assert_eq!(pace.wait(start + gap / 4), gap * 3 / 4);
        assert_eq!(pace.wait(start + gap * 2), Duration::ZERO);
        pace.begins(start + gap, SHARED_ENTRIES - 1);
        assert_eq!(pace.wait(start + gap), Duration::ZERO);
    }

    /// Inserts a number and then, for some, fails.
    struct Insert {
        number: i64,
        fails: bool,
    }

    impl Write for Insert {
        type Answer = i64;

        fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<i64, StoreError> {
            let insert = "INSERT INTO numbers (number) VALUES (?1)";
            connection.execute(insert, [self.number])?;
            if self.fails {
                return Err(StoreError::Damaged("half-way".to_owned()));
            }
            Ok(self.number)
        }
    }

    fn run(batch: Vec<Insert>) -> (Vec<Result<i64, StoreError>>, Vec<i64>) {
        let connection = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE numbers (number INTEGER PRIMARY KEY CHECK (number > 0))";
        connection.execute_batch(table).unwrap();
        let (_, requests) = bounded(1);
        let mut writer = WriterThread {
            connection,
            memory: WriterMemory::new(8),
            requests,
            batch: Vec::new(),
            batch_max_entries: 8,
            pace: Pace::new(Duration::ZERO),
            crowd_requests: 1,
        };
        let mut answers = Vec::new();
        for write in batch {
            let (caller, answer) = oneshot::channel();
            writer.batch.push(Box::new(Pending {
                write,
                outcome: None,
                caller,
            }));
            answers.push(answer);
        }
        writer.transact().unwrap();
        for request in writer.batch.drain(..) {
            request.answer(None);
        }
        let mut kept = (writer.connection)
            .prepare("SELECT number FROM numbers ORDER BY number")
            .unwrap();
        let kept = kept.query_map([], |row| row.get(0)).unwrap();
        let answers = answers.into_iter().map(|mut a| a.try_recv().unwrap());
        (answers.collect(), kept.map(Result::unwrap).collect())
    }

    fn insert(number: i64, fails: bool) -> Insert {
        Insert { number, fails }
    }

    #[test]
    fn one_that_fails_half_way_harms_no_other() {
        let (answers, kept) = run(vec![insert(1, false), insert(2, true), insert(3, false)]);
        assert_eq!(kept, [1, 3]);
        assert!(matches!(answers[0], Ok(1)));
        assert!(matches!(answers[1], Err(StoreError::Damaged(_))));
        assert!(matches!(answers[2], Ok(3)));
    }

    #[test]
    fn one_that_fails_before_it_wrote_needs_no_second_run() {
        // The check refuses −1, so nothing was written.
        let (answers, kept) = run(vec![insert(1, false), insert(-1, false), insert(3, false)]);
        assert_eq!(kept, [1, 3]);
        assert!(matches!(answers[..], [Ok(1), Err(_), Ok(3)]));
    }
}
