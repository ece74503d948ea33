//! The loop around a stream that is consumed concurrently: join, read, work,
//! acknowledge; start over after a failure, with the batch still on the bus.
//! While the store or the directory is away a batch is kept in hand: the bus counts
//! how often it hands an entry out, and takes for poison what comes too often.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sluice_bus::{BusEntry, Stream};
use tokio_util::sync::CancellationToken;

use crate::{error::WorkError, node::Node};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Works off the entries of one kind of stream.
#[async_trait]
pub(crate) trait Work: Send + Sync + 'static {
    /// A bounded label for logs, metrics and the consumer's name.
    const ROLE: &'static str;

    /// Does all that the entries ask for. After an error they come again, also to
    /// this same work when the store or the directory was away.
    async fn work(&self, node: &Node, entries: Vec<BusEntry>) -> Result<(), WorkError>;
}

/// Grows from failure to failure, with jitter, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let span = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(rand::random_range(0.5..1.0))
    }

    /// Waits; false when it was interrupted by shutdown.
    pub(crate) async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(self.next()) => true,
        }
    }
}

/// Consumes the stream until shutdown; a batch begun is finished.
pub(crate) async fn consume<W: Work>(
    node: Arc<Node>,
    work: Arc<W>,
    stream: Stream,
    shutdown: CancellationToken,
) {
    let name = node.name(W::ROLE);
    let mut backoff = Backoff::default();
    let mut kept: Option<Box<dyn sluice_bus::Reader>> = None;
    loop {
        let joined = async {
            match kept.take() {
                Some(reader) => Ok(reader),
                None => node.bus.join(&stream, &name).await,
            }
        };
        let failed = tokio::select! {
            joined = joined => match joined {
                Ok(mut reader) => {
                    let read = read_on(&node, work.as_ref(), reader.as_mut(), &shutdown, &mut backoff).await;
                    kept = Some(reader);
                    read
                }
                Err(error) => Err(error.into()),
            },
            () = shutdown.cancelled() => Ok(()),
        };
        let Err(error) = failed else { return };
        count_failure::<W>(&error);
        tracing::warn!(%stream, %error, "starting over");
        // Left without a word, its entries would lie there until it counts as dead.
        kept = kept.filter(|_| error.spares_reader());
        if let Some(reader) = &mut kept {
            // It may not have been the reader that failed.
            reader.begin_again();
        }
        if !backoff.wait(&shutdown).await {
            return;
        }
    }
}

async fn read_on<W: Work>(
    node: &Node,
    work: &W,
    reader: &mut dyn sluice_bus::Reader,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), WorkError> {
    loop {
        let batch = tokio::select! {
            batch = reader.read(node.config.shared_batch_max_entries) => batch?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
        if !work_off(node, work, batch.entries, shutdown, backoff).await? {
            return Ok(());
        }
        reader.ack(&ids).await?;
        backoff.reset();
    }
}

/// Works on the batch until store and directory are there for it; the reader shows
/// signs of life meanwhile, so that nobody else takes it. False when interrupted by shutdown.
async fn work_off<W: Work>(
    node: &Node,
    work: &W,
    entries: Vec<BusEntry>,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<bool, WorkError> {
    loop {
        let error = match work.work(node, entries.clone()).await {
            Err(error) if error.spares_batch() => error,
            worked => return worked.map(|()| true),
        };
        count_failure::<W>(&error);
        tracing::warn!(role = W::ROLE, %error, "a batch waits for the store or the directory");
        if !backoff.wait(shutdown).await {
            return Ok(false);
        }
    }
}

fn count_failure<W: Work>(error: &WorkError) {
    metrics::counter!("sluice_work_failures_total", "role" => W::ROLE, "why" => error.label())
        .increment(1);
}

/// Counts an entry that can't be read; it is acknowledged with its batch.
pub(crate) fn count_poison(role: &'static str, error: &crate::origin::Unreadable) {
    metrics::counter!("sluice_poison_entries_total", "role" => role).increment(1);
    tracing::warn!(role, %error, "an entry is set aside");
}
