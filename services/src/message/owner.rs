//! The owner of one partition: a lease on its stream, then an epoch from the
//! store, then batch after batch. Whatever goes wrong, its state is thrown away
//! and it starts over; the bus hands it what was not acknowledged.

use std::sync::Arc;

use sluice_bus::{Reader, Stream};
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
    let mut reader = tokio::select! {
        reader = node.bus.own(&stream, &name) => reader?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // After the lease, so that of two owners the one with the stream has the
    // newer epoch and the other's commits fail.
    let epoch = node.owners_store.take_partition(partition).await?;
    loop {
        let worked = work_on(node, partition, epoch, reader.as_mut(), caution, shutdown).await;
        let Err(error) = worked else { return Ok(()) };
        if !error.spares_reader() {
            return Err(error);
        }
        // The lease may well be ours still, and who drops it now can't give it back.
        reader.begin_again();
        caution.note(partition, &error);
        if !caution.backoff.wait(shutdown).await {
            return Ok(());
        }
    }
}

/// Batch after batch until shutdown, or until something goes wrong.
async fn work_on(
    node: &Arc<Node>,
    partition: Partition,
    epoch: PartitionEpoch,
    reader: &mut dyn Reader,
    caution: &mut Caution,
    shutdown: &CancellationToken,
) -> Result<(), WorkError> {
    let mut desk = Desk::new(node.clone(), partition, epoch);
    loop {
        let one_by_one = caution.one_by_one > 0;
        let max_entries = match one_by_one {
            true => 1,
            false => node.config.message_batch_max_entries,
        };
        let batch = tokio::select! {
            batch = reader.read(max_entries) => batch?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
        match desk.work(&batch.entries).await {
            Err(WorkError::Store(StoreError::Damaged(_))) if one_by_one => {
                // This very entry can't be worked on, today or tomorrow.
                desk.set_aside(&batch.entries).await;
                desk = Desk::new(node.clone(), partition, epoch);
            }
            worked => worked?,
        }
        reader.ack(&ids).await?;
        caution.one_by_one = caution.one_by_one.saturating_sub(ids.len());
        caution.backoff.reset();
    }
}
