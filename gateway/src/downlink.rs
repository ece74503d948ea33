//! The way down: reads this gateway's stream, takes its entries apart and hands
//! each loop its share, one batch a read.
//!
//! Producers count their entries; a gap, a reset of the stream or a wait that
//! made the bus drop something sends `Resync` to all channels, and has all
//! sessions checked: one may have missed its kick ([`crate::session_check`]).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use sluice_bus::{Bus, BusError, EntryId, NodeName, ProducerCounts, ReadBatch, Reader, Stream};
use sluice_protocol::{
    ClientMsgId, ConnectionId, Incarnation, UserId,
    envelope::{Delivery, Down, PushEntry, Target, delivery},
    packet::Entry,
};
use sluice_trace::{Sighting, TraceId, Tracer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    bus_health::BusHealth,
    mailbox::{Command, CommandBody, Mail, Mailbox},
    metrics,
    push_window::{PushContent, PushKind},
    slab::ChannelKey,
};

/// The task that feeds the loops.
pub(crate) struct Downlink {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) incarnation: Incarnation,
    pub(crate) loops: Vec<Mailbox>,
    /// Rung when kicks may have been lost with other deliveries.
    pub(crate) recheck: Arc<Notify>,
    pub(crate) health: Arc<BusHealth>,
    pub(crate) tracer: Tracer,
    pub(crate) shutdown: CancellationToken,
}

/// Entries in one read.
const READ_MAX_ENTRIES: usize = 256;
const RETRY: Duration = Duration::from_millis(200);

// === impl Downlink ===

impl Downlink {
    /// Owns the stream. Returns when it is owned, so that nobody logs in before
    /// answers can come.
    pub(crate) async fn own(&self) -> Result<Box<dyn Reader>, BusError> {
        let name = NodeName(format!("gateway-{}", self.incarnation));
        self.bus.own(&Stream::Down(self.incarnation), &name).await
    }

    /// Reads until shutdown. After an error it owns the stream again and sends
    /// `Resync`, since nobody knows what was missed.
    pub(crate) async fn run(self, reader: Box<dyn Reader>) {
        let shutdown = self.shutdown.clone();
        let reading = self.read_for_ever(reader);
        // Cut off wherever it waits: what it had not acknowledged concerns
        // nobody any more.
        shutdown.run_until_cancelled(reading).await;
    }

    async fn read_for_ever(&self, mut reader: Box<dyn Reader>) {
        let mut counts = ProducerCounts::default();
        let stream = Stream::Down(self.incarnation).to_string();
        let mut has_failed = false;
        loop {
            let outcome = match reader.read(READ_MAX_ENTRIES).await {
                Ok(batch) => self.pass_on(batch, &mut counts, reader.as_mut()).await,
                Err(error) => Err(error),
            };
            let Err(error) = outcome else {
                if std::mem::take(&mut has_failed) {
                    self.health.recovered(&stream);
                }
                continue;
            };
            has_failed = true;
            self.health.failed(&stream, &error);
            tracing::warn!(%error, "reading the down stream failed");
            tokio::time::sleep(RETRY).await;
            if error.ends_reader() {
                // Its lease must be free before it can be had again.
                drop(reader);
                reader = self.own_again().await;
                self.health.recovered(&stream);
                has_failed = false;
                self.resync("reader_lost").await;
            }
        }
    }

    async fn own_again(&self) -> Box<dyn Reader> {
        loop {
            match self.own().await {
                Ok(reader) => return reader,
                Err(error) => {
                    tracing::warn!(%error, "the down stream can't be owned again");
                    let stream = Stream::Down(self.incarnation).to_string();
                    self.health.failed(&stream, &error);
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn pass_on(
        &self,
        batch: ReadBatch,
        counts: &mut ProducerCounts,
        reader: &mut dyn Reader,
    ) -> Result<(), BusError> {
        let mut gap = None;
        if batch.reset {
            counts.forget();
            gap = Some("reset");
        }
        if batch.lost_entries > 0 {
            gap = Some("trimmed");
        }
        let mut shares: Vec<Vec<Command>> = self.loops.iter().map(|_| Vec::new()).collect();
        let mut ids: Vec<EntryId> = Vec::with_capacity(batch.entries.len());
        for entry in batch.entries {
            ids.push(entry.id);
            match Down::decode(entry.payload) {
                Ok(down) => {
                    if !counts.follows(down.producer, down.counter) {
                        gap = Some("counter");
                    }
                    for delivery in down.deliveries {
                        self.share_out(delivery, &mut shares);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "an entry of the down stream is not a Down");
                    gap = Some("undecodable");
                }
            }
        }
        for (mailbox, share) in self.loops.iter().zip(shares) {
            if !share.is_empty() {
                mailbox.send(Mail::Deliver(share)).await;
            }
        }
        if let Some(how) = gap {
            self.resync(how).await;
        }
        reader.ack(&ids).await
    }

    async fn resync(&self, how: &'static str) {
        metrics::downlink_gap(how);
        tracing::warn!(
            how,
            "deliveries may have been lost; channels are told to resync"
        );
        for mailbox in &self.loops {
            mailbox.send(Mail::Resync).await;
        }
        self.recheck.notify_one();
    }

    fn share_out(&self, delivery: Delivery, shares: &mut [Vec<Command>]) {
        let Some(body) = delivery.body else { return };
        let mut targets = delivery.targets.into_iter();
        match body {
            delivery::Body::Push(push) => {
                let content = self.content_of(PushKind::Inbox, push);
                for target in targets {
                    self.push_to(target, &content, shares);
                }
            }
            delivery::Body::Notice(notice) => {
                let content = self.content_of(PushKind::Group, notice);
                for target in targets {
                    self.push_to(target, &content, shares);
                }
            }
            delivery::Body::Answer(packet) => {
                for target in targets {
                    self.give(target, CommandBody::Answer(packet.clone()), shares);
                }
            }
            delivery::Body::Event(packet) => {
                for target in targets {
                    self.give(target, CommandBody::Event(packet.clone()), shares);
                }
            }
            delivery::Body::Kick(kick) => {
                for target in targets {
                    let kick = Box::new(kick.clone());
                    self.give(target, CommandBody::Kick(kick), shares);
                }
            }
            // These concern one connection: the first target.
            delivery::Body::SessionOpened(opened) => {
                if let Some(target) = targets.next() {
                    self.give(target, CommandBody::SessionOpened(opened.into()), shares);
                }
            }
            delivery::Body::SessionRefused(refused) => {
                if let Some(target) = targets.next() {
                    self.give(target, CommandBody::SessionRefused(refused.into()), shares);
                }
            }
            delivery::Body::Response(response) => {
                if let Some(target) = targets.next() {
                    self.give(target, CommandBody::Response(response.into()), shares);
                }
            }
            // For service nodes.
            delivery::Body::Forget(_) => {}
        }
    }

    fn push_to(&self, target: Target, content: &Arc<PushContent>, shares: &mut [Vec<Command>]) {
        let body = CommandBody::Push {
            content: Arc::clone(content),
            user_seq: target.user_seq,
        };
        self.give(target, body, shares);
    }

    /// To the loop that the connection id names, if it is of this gateway's life.
    fn give(&self, target: Target, body: CommandBody, shares: &mut [Vec<Command>]) {
        let Ok(connection) = ConnectionId::parse(&target.connection_id) else {
            return;
        };
        if connection.incarnation != self.incarnation {
            return;
        }
        if let Some(share) = shares.get_mut(usize::from(connection.event_loop)) {
            share.push(Command {
                key: ChannelKey::of(connection),
                user: target.user_id,
                body,
            });
        }
    }

    /// The entry is copied out of the bus entry once: windows keep it until it is
    /// acked, and must not keep a whole batch alive with it.
    fn content_of(&self, kind: PushKind, push: PushEntry) -> Arc<PushContent> {
        Arc::new(PushContent {
            trace: match self.tracer.is_armed() {
                true => self.trace(&push.entry),
                false => None,
            },
            kind,
            conversation: push.conversation_id.into(),
            seq: push.seq,
            entry: Bytes::copy_from_slice(&push.entry),
        })
    }

    /// The message in the entry, if it is followed; none rides along in a notice of a
    /// large one.
    fn trace(&self, entry: &[u8]) -> Option<TraceId> {
        let entry = Entry::decode(entry).ok()?;
        self.tracer.find(&Sighting {
            sender: &UserId::parse(&entry.sender).ok()?,
            message: ClientMsgId::parse(&entry.client_msg_id).ok()?,
            connection: None,
            is_fresh: false,
        })
    }
}
