//! What several callers hand in, as one transaction.
//!
//! While a server's transaction runs, further parts wait in a line; the next
//! transaction takes all that wait, up to a bound. So transactions grow with the
//! load, and nobody waits for a timer. It is what the writer of the embedded
//! store does. The transactions are a task's own: a caller that goes away stops
//! nobody's.
//!
//! A part that fails harms no other. One that cannot be, such as an overtaken
//! owner's, is answered so and left out. Should the transaction fail by what may
//! be one part's fault (a lock that somebody holds, damaged data), each part is
//! run alone, beside the transactions that follow, which leave aside whoever
//! would meet those again. When nobody knows whether a transaction was committed,
//! all its parts are told so, unless they may be repeated.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::MySqlConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    failure::Failure,
    servers::{Place, Servers, Work},
};
use crate::StoreError;

/// Deadlocks that a transaction of several parts survives as a whole.
const DEADLOCKS_MAX: u32 = 2;

/// The first pause before another try; each one more is longer.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Bytes after which a transaction takes no further part.
const BATCH_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What of a transaction is one caller's.
pub(super) trait Part: Send + Sync + Sized + 'static {
    /// What the caller is told.
    type Answer: Send + 'static;

    /// Whether it may be done once more when nobody knows whether it was done.
    const REPEATABLE: bool;

    /// A bounded label for metrics.
    const STEP: &'static str;

    fn weight(&self) -> Weight;

    /// Rows, by a hash of their names, that parts of other callers lock as well.
    fn shared_rows(&self) -> Vec<u64>;

    /// Does all of these, in their order. An answer that is an error is that of
    /// a part that has written nothing.
    fn run_all(
        parts: &[&Self],
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> impl Future<Output = Result<Answers<Self>, Failure>> + Send;
}

/// As many as parts, in their order.
pub(super) type Answers<P> = Vec<Result<<P as Part>::Answer, StoreError>>;

/// Bounds a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// How much is taken together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Parts that may wait or run.
    pub(super) queue_max_requests: usize,
    /// Rows after which a transaction takes no further part.
    pub(super) batch_max_rows: usize,
    /// Parts that run alone at the same time.
    pub(super) alone_max: usize,
}

/// Where parts for one server are handed in.
pub(super) struct Gatherer<P: Part> {
    line: mpsc::Sender<Waiting<P>>,
    places: Arc<Semaphore>,
    queue_max_requests: usize,
}

struct Waiting<P: Part> {
    part: P,
    caller: oneshot::Sender<Result<P::Answer, StoreError>>,
    /// In the line and until it is answered.
    _place: OwnedSemaphorePermit,
}

/// The task that makes transactions of what waits.
struct Lane<P: Part> {
    line: mpsc::Receiver<Waiting<P>>,
    batch_max_rows: usize,
    loners: Arc<Loners>,
}

/// Those that are run one by one.
struct Loners {
    servers: Arc<Servers>,
    server: Place,
    slots: Semaphore,
    /// Rows that they want, and how many of them do.
    wanted: Mutex<HashMap<u64, usize>>,
}

struct Merged<'p, P>(Vec<&'p P>);

/// What becomes of parts whose transaction failed.
enum Verdict {
    Again,
    Alone,
    Failed,
}

impl<P: Part> Work for Merged<'_, P> {
    type Answer = Answers<P>;
    const REPEATABLE: bool = P::REPEATABLE;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> Result<Answers<P>, Failure> {
        P::run_all(&self.0, connection, attempt).await
    }
}

// === impl Gatherer ===

impl<P: Part> Gatherer<P> {
    /// Its task ends, when all that was handed in is done, with the gatherer.
    pub(super) fn start(servers: Arc<Servers>, server: Place, bounds: Bounds) -> Self {
        let queue_max_requests = bounds.queue_max_requests.clamp(1, Semaphore::MAX_PERMITS);
        let (line, waiting) = mpsc::channel(queue_max_requests);
        let lane = Lane {
            line: waiting,
            batch_max_rows: bounds.batch_max_rows.max(1),
            loners: Arc::new(Loners {
                servers,
                server,
                slots: Semaphore::new(bounds.alone_max.max(1)),
                wanted: Mutex::default(),
            }),
        };
        tokio::spawn(lane.run());
        Self {
            line,
            places: Arc::new(Semaphore::new(queue_max_requests)),
            queue_max_requests,
        }
    }

    /// Hands a part in and waits until it is durable.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when the line is full; else what the part or its
    /// transaction ended with.
    pub(super) async fn run(&self, part: P) -> Result<P::Answer, StoreError> {
        let full = StoreError::Overloaded {
            waiting: self.queue_max_requests,
        };
        let gone = || StoreError::Unavailable("the store is closed".to_owned());
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(full);
        };
        let (caller, answer) = oneshot::channel();
        let waiting = Waiting {
            part,
            caller,
            _place: place,
        };
        match self.line.try_send(waiting) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
    }
}

impl<P: Part> fmt::Debug for Gatherer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer")
            .field("step", &P::STEP)
            .field("places", &self.places.available_permits())
            .finish_non_exhaustive()
    }
}

// === impl Waiting ===

impl<P: Part> Waiting<P> {
    fn answer(self, outcome: Result<P::Answer, StoreError>) {
        if let Err(error) = &outcome {
            metrics::counter!("sluice_store_errors_total", "error" => error.label()).increment(1);
        }
        // A caller that went away wants no answer; its part stands all the same.
        let _ = self.caller.send(outcome);
    }
}

// === impl Lane ===

impl<P: Part> Lane<P> {
    async fn run(mut self) {
        while let Some(first) = self.line.recv().await {
            let parts = self.gather(first);
            if !parts.is_empty() {
                self.transact(parts).await;
            }
        }
    }

    /// What waits, but for those who would wait for the same as the loners.
    fn gather(&mut self, first: Waiting<P>) -> Vec<Waiting<P>> {
        let (mut parts, mut total) = (Vec::new(), Weight::default());
        let mut next = Some(first);
        while let Some(waiting) = next {
            if self.loners.want_rows_of(&waiting.part) {
                self.leave_alone(waiting, 1, "beside");
            } else {
                let weight = waiting.part.weight();
                total.rows = total.rows.saturating_add(weight.rows);
                total.bytes = total.bytes.saturating_add(weight.bytes);
                parts.push(waiting);
            }
            let room = total.rows < self.batch_max_rows && total.bytes < BATCH_MAX_BYTES;
            next = match room {
                true => self.line.try_recv().ok(),
                false => None,
            };
        }
        metrics::gauge!("sluice_store_queue_requests", "step" => P::STEP)
            .set(self.line.len() as f64);
        metrics::histogram!("sluice_store_batch_entries", "step" => P::STEP)
            .record(total.rows as f64);
        parts
    }

    /// Runs parts as one transaction and answers them, or leaves them alone.
    async fn transact(&self, parts: Vec<Waiting<P>>) {
        let started = Instant::now();
        let mut attempt = 1;
        let failure = loop {
            let merged = Merged(parts.iter().map(|waiting| &waiting.part).collect());
            let failure = match self.loners.once(&merged, attempt).await {
                Ok(answers) => {
                    metrics::histogram!("sluice_store_commit_seconds", "step" => P::STEP)
                        .record(started.elapsed().as_secs_f64());
                    for (waiting, answer) in parts.into_iter().zip(answers) {
                        waiting.answer(answer);
                    }
                    return;
                }
                Err(failure) => failure,
            };
            match self.verdict(&failure, attempt, parts.len()) {
                Verdict::Again => {
                    self.loners.pause(&failure, attempt).await;
                    attempt += 1;
                }
                Verdict::Failed => break failure,
                Verdict::Alone => {
                    let reason = failure.label();
                    tracing::debug!(?failure, parts = parts.len(), "a transaction is split");
                    for waiting in parts {
                        self.leave_alone(waiting, attempt + 1, reason);
                    }
                    return;
                }
            }
        };
        let error = StoreError::from(failure);
        tracing::warn!(%error, parts = parts.len(), "a transaction failed");
        for waiting in parts {
            waiting.answer(Err(error.clone()));
        }
    }

    fn verdict(&self, failure: &Failure, attempt: u32, parts: usize) -> Verdict {
        // Even one alone would stop those behind it.
        if failure.is_lock_wait() {
            return Verdict::Alone;
        }
        let again = failure.may_be_tried_again(P::REPEATABLE)
            && attempt < self.loners.servers.attempts_max();
        let splits = parts > 1 && failure.may_be_of_one_part();
        match (again, splits) {
            (true, true) if attempt >= DEADLOCKS_MAX => Verdict::Alone,
            (true, _) => Verdict::Again,
            (false, true) => Verdict::Alone,
            (false, false) => Verdict::Failed,
        }
    }

    /// Runs a part by itself, beside what follows. There are at most as many as
    /// places in the line.
    fn leave_alone(&self, waiting: Waiting<P>, attempt: u32, reason: &'static str) {
        metrics::counter!("sluice_store_alone_total", "reason" => reason).increment(1);
        let loners = Arc::clone(&self.loners);
        let rows = waiting.part.shared_rows();
        loners.want(&rows);
        tokio::spawn(async move {
            let answer = loners.run(&waiting.part, attempt).await;
            loners.want_no_more(&rows);
            waiting.answer(answer);
        });
    }
}

// === impl Loners ===

impl Loners {
    async fn once<P: Part>(
        &self,
        merged: &Merged<'_, P>,
        attempt: u32,
    ) -> Result<Answers<P>, Failure> {
        self.servers.try_once(self.server, merged, attempt).await
    }

    async fn pause(&self, failure: &Failure, attempt: u32) {
        metrics::counter!("sluice_store_retries_total", "reason" => failure.label()).increment(1);
        tokio::time::sleep(RETRY_PAUSE * attempt).await;
    }

    async fn run<P: Part>(&self, part: &P, first: u32) -> Result<P::Answer, StoreError> {
        let merged = Merged(vec![part]);
        let last = first + self.servers.attempts_max() - 1;
        let mut attempt = first;
        loop {
            // For one try each, so that those who wait for a lock let others pass.
            let slot = self.slots.acquire().await;
            let done = self.once(&merged, attempt).await;
            drop(slot);
            let failure = match done {
                Ok(mut answers) => {
                    let none = || StoreError::Damaged("a part without an answer".to_owned());
                    return answers.pop().unwrap_or_else(|| Err(none()));
                }
                Err(failure) => failure,
            };
            if attempt >= last || !failure.may_be_tried_again(P::REPEATABLE) {
                return Err(failure.into());
            }
            self.pause(&failure, attempt).await;
            attempt += 1;
        }
    }

    fn want_rows_of<P: Part>(&self, part: &P) -> bool {
        let wanted = self.wanted.lock();
        !wanted.is_empty()
            && part
                .shared_rows()
                .iter()
                .any(|row| wanted.contains_key(row))
    }

    fn want(&self, rows: &[u64]) {
        let mut wanted = self.wanted.lock();
        for row in rows {
            *wanted.entry(*row).or_insert(0) += 1;
        }
    }

    fn want_no_more(&self, rows: &[u64]) {
        let mut wanted = self.wanted.lock();
        for row in rows {
            if let Some(by) = wanted.get_mut(row) {
                *by -= 1;
                if *by == 0 {
                    wanted.remove(row);
                }
            }
        }
    }
}
