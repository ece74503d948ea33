//! Reads this node's own `down` stream: answers to its HTTP calls, and word of
//! users that were changed elsewhere.

use std::{convert::Infallible, sync::Arc};

use prost::Message as _;
use sluice_bus::{BusError, ProducerCounts, ReadBatch, Reader, Stream};
use sluice_protocol::{
    UserId,
    envelope::{Delivery, Down, delivery},
};
use tokio_util::sync::CancellationToken;

use crate::{consumer::Backoff, http::Calls, node::Node};

/// Entries in one read.
const READ_MAX_ENTRIES: usize = 256;

/// The task that reads.
pub(crate) struct DownReader {
    node: Arc<Node>,
    calls: Arc<Calls>,
    counts: ProducerCounts,
    backoff: Backoff,
}

/// Owns the stream; what was appended before it is owned would not be read.
pub(crate) async fn own(node: &Node) -> Result<Box<dyn Reader>, BusError> {
    let stream = Stream::Down(node.incarnation);
    node.bus.own(&stream, &node.name("http")).await
}

// === impl DownReader ===

impl DownReader {
    pub(crate) fn new(node: Arc<Node>, calls: Arc<Calls>) -> Self {
        Self {
            node,
            calls,
            counts: ProducerCounts::default(),
            backoff: Backoff::default(),
        }
    }

    /// Reads until shutdown. Cut off wherever it waits: who called is gone, or
    /// told by the deadline.
    pub(crate) async fn run(mut self, reader: Box<dyn Reader>, shutdown: CancellationToken) {
        shutdown
            .run_until_cancelled(self.read_for_ever(reader))
            .await;
    }

    /// After an error the reader goes on, unless its time is over.
    async fn read_for_ever(&mut self, mut reader: Box<dyn Reader>) -> Infallible {
        loop {
            let Err(error) = self.read_on(reader.as_mut()).await;
            tracing::warn!(%error, "this node's down stream can't be read");
            tokio::time::sleep(self.backoff.next()).await;
            if error.ends_reader() {
                // While this reader is there it keeps the lease from the next.
                drop(reader);
                reader = self.own_again().await;
                self.missed("reader_lost");
            }
        }
    }

    async fn own_again(&mut self) -> Box<dyn Reader> {
        loop {
            match own(&self.node).await {
                Ok(reader) => return reader,
                Err(error) => tracing::warn!(%error, "the down stream can't be owned again"),
            }
            tokio::time::sleep(self.backoff.next()).await;
        }
    }

    /// Until the stream fails.
    async fn read_on(&mut self, reader: &mut dyn Reader) -> Result<Infallible, BusError> {
        loop {
            let batch = reader.read(READ_MAX_ENTRIES).await?;
            let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
            self.take(batch);
            reader.ack(&ids).await?;
            self.backoff.reset();
        }
    }

    fn take(&mut self, batch: ReadBatch) {
        if batch.reset {
            self.counts.forget();
        }
        if batch.reset || batch.lost_entries > 0 {
            self.missed("reset");
        }
        for entry in batch.entries {
            let Ok(down) = Down::decode(entry.payload) else {
                metrics::counter!("sluice_poison_entries_total", "role" => "http").increment(1);
                self.missed("undecodable");
                continue;
            };
            if !self.counts.follows(down.producer, down.counter) {
                self.missed("counter");
            }
            for delivery in down.deliveries {
                self.deliver(delivery);
            }
        }
    }

    fn deliver(&self, delivery: Delivery) {
        match delivery.body {
            Some(delivery::Body::Answer(packet)) => self.calls.settle(packet),
            Some(delivery::Body::Forget(forget)) => {
                for user in forget.users {
                    match UserId::parse(&user) {
                        Ok(user) => self.node.standings.forget(&user),
                        Err(_) => self.node.standings.forget_all(),
                    }
                }
            }
            // Pushes are for gateways.
            _ => {}
        }
    }

    /// Answers that were missed are told by their calls' deadlines; but a user
    /// may have been changed. Who forgot this stream may also have forgotten that
    /// this node was announced, so that no change is told to it.
    fn missed(&self, how: &'static str) {
        metrics::counter!("sluice_service_down_gaps_total", "how" => how).increment(1);
        self.node.standings.untold();
    }
}
