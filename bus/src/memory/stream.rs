//! State of one in-process stream: a plain state machine under one lock.
//!
//! An entry is in one of three places: `unread` (never handed out), `pending`
//! (with a reader), or `returned` (handed out, then given back). Numbers rise,
//! and whatever was returned is older than what is unread, so reading
//! `returned` first keeps the order. All three count against the bounds, as
//! unread and unacknowledged entries do in a remote engine.
//!
//! An append that has no room leaves its batch here, in a queue; whoever makes
//! room moves it in. So appends are served first come, first served, and a
//! batch is in the stream as a whole or not at all, whenever its caller goes away.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{BusEntry, EntryId, Lag};

/// What a stream may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_entries: usize,
    pub(super) max_bytes: usize,
}

/// Names a reader within its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderToken(u64);

/// Names an append that waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Why a stream is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Deleted, or the bus was shut down.
    Deleted,
    /// The only reader of a `down` stream went away.
    OwnerLeft,
}

/// Why a reader may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Ended,
    LeaseLost,
}

/// What became of an append.
pub(super) enum Admission {
    /// In the stream.
    Admitted,
    /// No room: in the queue until the receiver answers (or hangs up at the end).
    Queued(Ticket, oneshot::Receiver<()>),
    /// No room, and the producer must not wait.
    Full,
    /// A `down` stream without an owner.
    Unowned,
    /// The stream had ended; the batch is handed back.
    Ended(Vec<Bytes>),
}

#[derive(Debug)]
struct Stored {
    number: u64,
    deliveries: u32,
    appended: Instant,
    payload: Bytes,
}

#[derive(Debug)]
struct Pending {
    holder: ReaderToken,
    stored: Stored,
}

#[derive(Debug)]
struct QueuedAppend {
    ticket: Ticket,
    entries: Vec<Bytes>,
    bytes: usize,
    admitted: oneshot::Sender<()>,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    bounds: Bounds,
    blocks_producer: bool,
    unread: VecDeque<Stored>,
    returned: BTreeMap<u64, Stored>,
    pending: BTreeMap<u64, Pending>,
    queue: VecDeque<QueuedAppend>,
    held_bytes: usize,
    last_number: u64,
    last_token: u64,
    owner: Option<(ReaderToken, OwnedSemaphorePermit)>,
    end: Option<End>,
}

// === impl StreamState ===

impl StreamState {
    pub(super) fn new(bounds: Bounds, blocks_producer: bool) -> Self {
        Self {
            bounds,
            blocks_producer,
            unread: VecDeque::new(),
            returned: BTreeMap::new(),
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            held_bytes: 0,
            last_number: 0,
            last_token: 0,
            owner: None,
            end: None,
        }
    }

    pub(super) fn append(&mut self, entries: Vec<Bytes>, bytes: usize) -> Admission {
        if self.end.is_some() {
            return Admission::Ended(entries);
        }
        if !self.blocks_producer && self.owner.is_none() {
            return Admission::Unowned;
        }
        if self.queue.is_empty() && self.has_room(entries.len(), bytes) {
            self.push(entries, bytes);
            return Admission::Admitted;
        }
        if !self.blocks_producer {
            return Admission::Full;
        }
        let (admitted, answer) = oneshot::channel();
        let ticket = Ticket(self.fresh_token());
        self.queue.push_back(QueuedAppend {
            ticket,
            entries,
            bytes,
            admitted,
        });
        Admission::Queued(ticket, answer)
    }

    /// Takes a queued append back, if it isn't in the stream yet. True if that
    /// let others in.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.queue.retain(|queued| queued.ticket != ticket);
        self.admit_queued()
    }

    /// Hands out up to `max_entries`, oldest first, and says whether more are left.
    pub(super) fn take(
        &mut self,
        reader: ReaderToken,
        exclusive: bool,
        max_entries: usize,
    ) -> Result<(Vec<BusEntry>, bool), Refused> {
        self.check(reader, exclusive)?;
        let count = max_entries.min(self.returned.len() + self.unread.len());
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            let next = match self.returned.pop_first() {
                Some((_, stored)) => Some(stored),
                None => self.unread.pop_front(),
            };
            let Some(mut stored) = next else { break };
            stored.deliveries = stored.deliveries.saturating_add(1);
            batch.push(BusEntry {
                id: entry_id(stored.number),
                deliveries: stored.deliveries,
                payload: stored.payload.clone(),
            });
            let holder = reader;
            self.pending
                .insert(stored.number, Pending { holder, stored });
        }
        Ok((batch, self.has_readable()))
    }

    /// Forgets entries that this reader holds. True if that let queued appends in.
    pub(super) fn ack(
        &mut self,
        reader: ReaderToken,
        exclusive: bool,
        ids: &[EntryId],
    ) -> Result<bool, Refused> {
        self.check(reader, exclusive)?;
        for id in ids {
            let held = self.pending.get(&id.minor);
            if held.is_some_and(|held| held.holder == reader)
                && let Some(done) = self.pending.remove(&id.minor)
            {
                self.held_bytes -= done.stored.payload.len();
            }
        }
        Ok(self.admit_queued())
    }

    /// Makes the holder of the permit the owner.
    pub(super) fn own(&mut self, permit: OwnedSemaphorePermit) -> Result<ReaderToken, End> {
        if let Some(end) = self.end {
            return Err(end);
        }
        let token = ReaderToken(self.fresh_token());
        self.owner = Some((token, permit));
        Ok(token)
    }

    /// Adds a reader beside others.
    pub(super) fn join(&mut self) -> Result<ReaderToken, End> {
        match self.end {
            Some(end) => Err(end),
            None => Ok(ReaderToken(self.fresh_token())),
        }
    }

    /// The reader went away: what it held comes back, the lease is free. True
    /// if there is something to read for others.
    pub(super) fn leave(&mut self, reader: ReaderToken) -> bool {
        if self.is_owner(reader) {
            self.owner = None;
            if !self.blocks_producer {
                self.finish(End::OwnerLeft);
                return false;
            }
        }
        self.put_back(reader)
    }

    /// What the reader holds comes back. True if there is something to read.
    pub(super) fn put_back(&mut self, reader: ReaderToken) -> bool {
        for (number, held) in std::mem::take(&mut self.pending) {
            if held.holder == reader {
                self.returned.insert(number, held.stored);
            } else {
                self.pending.insert(number, held);
            }
        }
        self.has_readable()
    }

    /// Takes the lease away from whoever has it.
    pub(super) fn revoke(&mut self) -> bool {
        match self.owner {
            Some((owner, _)) => {
                self.leave(owner);
                true
            }
            None => false,
        }
    }

    /// Ends the stream and forgets what it held.
    pub(super) fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.unread = VecDeque::new();
        self.returned.clear();
        self.pending.clear();
        self.queue.clear();
        self.held_bytes = 0;
        self.owner = None;
    }

    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    pub(super) fn lag(&self, now: Instant) -> Lag {
        let oldest = [
            self.unread.front().map(|stored| stored.appended),
            self.returned.first_key_value().map(|(_, s)| s.appended),
            self.pending
                .first_key_value()
                .map(|(_, p)| p.stored.appended),
        ];
        let age = oldest.into_iter().flatten().min().map(|first| now - first);
        Lag {
            entries: self.held_entries() as u64,
            oldest_ms: age.map_or(0, |age| age.as_millis().try_into().unwrap_or(u64::MAX)),
        }
    }

    pub(super) fn held_entries(&self) -> usize {
        self.unread.len() + self.returned.len() + self.pending.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn is_owner(&self, reader: ReaderToken) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|(token, _)| *token == reader)
    }

    fn has_readable(&self) -> bool {
        !self.returned.is_empty() || !self.unread.is_empty()
    }

    fn check(&self, reader: ReaderToken, exclusive: bool) -> Result<(), Refused> {
        match self.end {
            Some(End::Deleted) => Err(Refused::Ended),
            Some(End::OwnerLeft) => Err(Refused::LeaseLost),
            None if exclusive && !self.is_owner(reader) => Err(Refused::LeaseLost),
            None => Ok(()),
        }
    }

    /// An empty stream takes any batch, or one above the bound would wait for ever.
    fn has_room(&self, entries: usize, bytes: usize) -> bool {
        let held = self.held_entries();
        held == 0
            || (held + entries <= self.bounds.max_entries
                && self.held_bytes + bytes <= self.bounds.max_bytes)
    }

    fn push(&mut self, entries: Vec<Bytes>, bytes: usize) {
        let appended = Instant::now();
        self.held_bytes += bytes;
        for payload in entries {
            self.last_number += 1;
            self.unread.push_back(Stored {
                number: self.last_number,
                deliveries: 0,
                appended,
                payload,
            });
        }
    }

    fn admit_queued(&mut self) -> bool {
        let mut admitted_any = false;
        while let Some(first) = self.queue.front()
            && self.has_room(first.entries.len(), first.bytes)
            && let Some(queued) = self.queue.pop_front()
        {
            self.push(queued.entries, queued.bytes);
            admitted_any = true;
            // A caller that has just gone away doesn't hear it; its batch is in as a whole.
            let _ = queued.admitted.send(());
        }
        admitted_any
    }

    fn fresh_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }
}

fn entry_id(number: u64) -> EntryId {
    EntryId {
        major: 0,
        minor: number,
    }
}
