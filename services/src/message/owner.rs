//! The owner of one partition: a lease on its stream, then an epoch from the
//! store, then batch after batch. Whatever goes wrong, its state is thrown away
//! and it starts over; the bus hands it what was not acknowledged. While the
//! store or the directory is away the batch stays in hand.

use std::sync::Arc;

use sluice_bus::{BusEntry, Reader, Stream};
use sluice_protocol::{Partition, PartitionEpoch};
use sluice_store::StoreError;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use crate::{consumer::Backoff, error::WorkError, node::Node};

/// How an owner goes on after a failure.
#[derive(Debug, Default)]
struct Caution {
    backoff: Backoff,
    /// The store called something damaged: for so many entries go one by one,
    /// to find which it is.
    one_by_one: usize,
}

/// One hold on a partition, by its lease and its epoch.
struct Ownership {
    node: Arc<Node>,
    partition: Partition,
    epoch: PartitionEpoch,
    reader: Box<dyn Reader>,
    /// Read and not done with: the store or the directory was away. Read again and
    /// again it would count as poison.
    in_hand: Vec<BusEntry>,
}

// === impl Caution ===

impl Caution {
    fn note(&self, partition: Partition, error: &WorkError) {
        metrics::counter!("sluice_work_failures_total", "role" => "message", "why" => error.label())
            .increment(1);
        tracing::warn!(%partition, %error, "the partition's owner starts over");
    }
}

/// Owns the partition whenever it can, until shutdown; a batch begun is finished.
pub(crate) async fn own(node: Arc<Node>, partition: Partition, shutdown: CancellationToken) {
    let mut caution = Caution::default();
    while let Err(error) = serve(&node, partition, &mut caution, &shutdown).await {
        caution.note(partition, &error);
        caution.one_by_one = match error {
            WorkError::Store(StoreError::Damaged(_)) => node.config.message_batch_max_entries,
            _ => 0,
        };
        if !caution.backoff.wait(&shutdown).await {
            return;
        }
    }
}

/// One ownership: returns at shutdown, fails when it can't go on.
async fn serve(
    node: &Arc<Node>,
    partition: Partition,
    caution: &mut Caution,
    shutdown: &CancellationToken,
) -> Result<(), WorkError> {
    let stream = Stream::Message(partition);
    let name = node.name("message");
    let reader = tokio::select! {
        reader = node.bus.own(&stream, &name) => reader?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // After the lease, so that of two owners the one with the stream has the
    // newer epoch and the other's commits fail.
    let epoch = node.owners_store.take_partition(partition).await?;
    let mut ownership = Ownership {
        node: node.clone(),
        partition,
        epoch,
        reader,
        in_hand: Vec::new(),
    };
    loop {
        let Err(error) = ownership.work(caution, shutdown).await else {
            return Ok(());
        };
        if !ownership.in_hand.is_empty() && error.spares_batch() {
            // Another try at it, as it is.
        } else if error.spares_reader() {
            // The lease may well be ours still, and who drops it now can't give it back.
            ownership.begin_again();
        } else {
            return Err(error);
        }
        caution.note(partition, &error);
        if !caution.backoff.wait(shutdown).await {
            return Ok(());
        }
    }
}

// === impl Ownership ===

impl Ownership {
    /// Batch after batch until shutdown, or until something goes wrong; begins
    /// with what is in hand, and believes nothing of the partition.
    async fn work(
        &mut self,
        caution: &mut Caution,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkError> {
        let mut desk = self.desk();
        loop {
            let one_by_one = caution.one_by_one > 0;
            if self.in_hand.is_empty() {
                let max_entries = match one_by_one {
                    true => 1,
                    false => self.node.config.message_batch_max_entries,
                };
                let batch = tokio::select! {
                    batch = self.reader.read(max_entries) => batch?,
                    () = shutdown.cancelled() => return Ok(()),
                };
                self.in_hand = batch.entries;
            }
            match desk.work(&self.in_hand).await {
                Err(WorkError::Store(StoreError::Damaged(_))) if one_by_one => {
                    // This very entry can't be worked on, today or tomorrow.
                    desk.set_aside(&self.in_hand).await;
                    desk = self.desk();
                }
                worked => worked?,
            }
            let done: Vec<_> = self.in_hand.drain(..).map(|entry| entry.id).collect();
            self.reader.ack(&done).await?;
            caution.one_by_one = caution.one_by_one.saturating_sub(done.len());
            caution.backoff.reset();
        }
    }

    fn desk(&self) -> Desk {
        Desk::new(self.node.clone(), self.partition, self.epoch)
    }

    fn begin_again(&mut self) {
        self.in_hand.clear();
        self.reader.begin_again();
    }
}
