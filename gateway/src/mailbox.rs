//! Work that others hand to an event loop: a bounded queue and a waker.
//!
//! The loop's thread is woken only when the queue turns non-empty for it, so a
//! burst costs one wake-up.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use mio::{Registry, Token, Waker};
use sluice_bus::Bind;
use sluice_protocol::{
    ConnectionId, DeviceId, UserId,
    envelope::{BackendResponse, LiveSession, SessionOpened, SessionRefused},
    packet::Kick,
};
use tokio::sync::oneshot;

use crate::{
    admin::ConnectionRow, datagram::Strayed, handover::Unacked, ledger::Costs,
    push_window::PushContent, slab::ChannelKey,
};

/// A loop that doesn't answer within this has nothing to tell.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// One piece of work.
#[derive(Debug)]
pub(crate) enum Mail {
    /// From `down`, a batch for this loop.
    Deliver(Vec<Command>),
    /// Deliveries may have been lost: all open channels are told to check.
    Resync,
    /// Stop accepting, tell all channels to go.
    GoAway,
    /// Close what is still there, and end the loop once all has been written.
    Stop,
    /// Which channels are bound, of those from this slot on.
    Binds(u32, oneshot::Sender<Page<Bind>>),
    /// Which sessions are open, of those from this slot on.
    Sessions(u32, oneshot::Sender<Page<LiveSession>>),
    /// These binds were said again: whoever has gone meanwhile must be unbound again.
    Reasserted(Vec<Bind>),
    /// Another connection holds these places now.
    Displaced(Vec<Bind>),
    /// The costliest channels.
    Rows {
        order: RowOrder,
        rows_max: usize,
        answer: oneshot::Sender<Rows>,
    },
    /// What connections cost, of those from this slot on, and the slot that follows them.
    Costs(u32, oneshot::Sender<(Costs, Option<u32>)>),
    /// Datagrams of this loop's sessions that came to another.
    Strayed(Vec<Strayed>),
    /// A client of another loop was here before.
    HandOver(Box<HandOver>),
    /// What its former connection had unacked, for the channel that waits for it.
    Legacy(ChannelKey, Vec<Unacked>),
    /// What is still under way.
    Load(oneshot::Sender<LoopLoad>),
}

/// Asks for the unacked pushes of a channel.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) former: ChannelKey,
    /// Whose it must have been.
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    /// Who asks, and waits.
    pub(crate) heir: ConnectionId,
}

/// A part of what a loop has, so that neither it nor memory stands still for a list of
/// all.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// The slot that the next one begins with; `None`: this was the last.
    pub(crate) next_slot: Option<u32>,
}

/// Channels that a page covers at most.
pub(crate) const PAGE_MAX: usize = 8_192;

/// A delivery for one channel.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) key: ChannelKey,
    /// Must be the channel's user.
    pub(crate) user: String,
    pub(crate) body: CommandBody,
}

#[derive(Debug)]
pub(crate) enum CommandBody {
    Answer(Bytes),
    Event(Bytes),
    Push {
        content: Arc<PushContent>,
        user_seq: u64,
    },
    SessionOpened(Box<SessionOpened>),
    SessionRefused(Box<SessionRefused>),
    Kick(Box<Kick>),
    Response(Box<BackendResponse>),
}

/// How `/admin/connections` is sorted, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowOrder {
    /// Memory held.
    #[default]
    Memory,
    /// Bytes read and written.
    Traffic,
    /// Pushes without an ack.
    Unacked,
    /// Time since accept.
    Age,
}

/// A loop's costliest channels with their ranks, and how many it has.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<(u64, ConnectionRow)>,
    pub(crate) total: usize,
}

/// What a draining gateway waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoopLoad {
    pub(crate) channels: usize,
    pub(crate) unacked_pushes: usize,
    pub(crate) unanswered: usize,
    /// Not everybody has been told yet that the gateway goes.
    pub(crate) is_telling: bool,
}

/// The sender's side of a loop's queue.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Mail>,
    /// A wake-up is on its way and the loop has not looked since.
    signalled: AtomicBool,
    waker: Waker,
}

// === impl Mailbox ===

impl Mailbox {
    pub(crate) fn new(registry: &Registry, token: Token, capacity: usize) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                queue: ArrayQueue::new(capacity.max(1)),
                signalled: AtomicBool::new(false),
                waker: Waker::new(registry, token)?,
            }),
        })
    }

    /// Queues it and wakes the loop if need be; gives it back when full.
    pub(crate) fn offer(&self, mail: Mail) -> Result<(), Mail> {
        self.shared.queue.push(mail)?;
        if !self.shared.signalled.swap(true, Ordering::AcqRel)
            && let Err(error) = self.shared.waker.wake()
        {
            tracing::error!(%error, "an event loop could not be woken");
        }
        Ok(())
    }

    /// Queues it as soon as there is room. The queue drains at every turn of
    /// the loop, so waiting is short polling and rare.
    pub(crate) async fn send(&self, mut mail: Mail) {
        while let Err(refused) = self.offer(mail) {
            mail = refused;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks the loop something, for people and for a drain. `None`: it has ended, or stalls.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Mail,
    ) -> Option<T> {
        let (answer, told) = oneshot::channel();
        let asking = async {
            self.send(question(answer)).await;
            // The question of a loop that has ended stays in its queue: it is never
            // answered, and never dropped.
            told.await.ok()
        };
        tokio::time::timeout(ANSWER_MAX, asking).await.ok()?
    }

    /// For the loop, before it takes mail: what comes from now on wakes it again.
    pub(crate) fn open(&self) {
        self.shared.signalled.store(false, Ordering::Release);
    }

    /// For the loop: the next piece of work.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.shared.queue.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}
