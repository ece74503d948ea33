//! The engine: one thread, one poll, many clients that speak one protocol.
//!
//! A turn goes: wait → what is due by the schedule → read and answer → what is owed
//! for what was received → write, once a client. Nothing is allocated for a message.

mod dialogue;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    LoadError,
    carrier::{Carrier, Ready},
    client::{Client, Stage},
    clock::{MS_NS, now_ns},
    driver::{Driver, Heard},
    schedule::{Pace, Schedule},
    tally::Tally,
};

/// How an engine behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineOptions {
    /// Connections that may be on their way to login at once.
    pub(crate) opening_max: usize,
    /// Without any progress for this long, something has failed.
    pub(crate) patience_ns: u64,
    /// Messages that a client may have unacked, if the server grants so many.
    pub(crate) window_max: u32,
    /// Lost connections come back by themselves.
    pub(crate) reconnects: bool,
}

/// See the module.
pub(crate) struct Engine<D> {
    pub(crate) driver: D,
    pub(crate) tally: Tally,
    /// The first thing that went wrong, for people.
    pub(crate) trouble: Option<String>,
    pub(crate) options: EngineOptions,
    carrier: Carrier,
    clients: Vec<Client>,
    ready: Vec<Ready>,
    heard: Vec<Heard>,
    dirty: Vec<usize>,
    /// Who owes something for what it received, and from when on.
    settling: VecDeque<(u64, usize)>,
    /// Who may go on sending at a time: a client, or one message of it.
    paused: BinaryHeap<Reverse<(u64, usize, Option<u64>)>>,
    schedule: Option<Schedule>,
    /// Clients that send: those numbered below.
    senders: usize,
    /// Whoever has room in its window sends.
    is_open: bool,
    /// How often each message is received: where there are many, a sender waits for
    /// them and not only for its ack.
    copies: u64,
    last_turn_ns: u64,
    opened: usize,
    logged_in: usize,
    gone: usize,
    synced: u64,
    cut_ns: u64,
    heartbeat_ns: u64,
    next_heartbeat: (u64, usize),
}

/// The SDK acknowledges pushes after as long.
const SETTLE_NS: u64 = 20 * MS_NS;
/// Turns for the schedule's sake are no closer: what falls due between waits so long.
const TICK_NS: u64 = MS_NS / 5;
/// A message taken from the schedule this much after it was due is late.
const LATE_NS: u64 = 10 * MS_NS;

// === impl Engine ===

impl<D: Driver> Engine<D> {
    pub(crate) fn new(driver: D, carrier: Carrier, clients: usize, options: EngineOptions) -> Self {
        Self {
            driver,
            tally: Tally::new(),
            trouble: None,
            options,
            carrier,
            clients: (0..clients).map(|_| Client::new()).collect(),
            ready: Vec::new(),
            heard: Vec::new(),
            dirty: Vec::with_capacity(clients),
            settling: VecDeque::with_capacity(clients),
            paused: BinaryHeap::new(),
            schedule: None,
            senders: clients,
            is_open: false,
            copies: 0,
            last_turn_ns: 0,
            opened: 0,
            logged_in: 0,
            gone: 0,
            synced: 0,
            cut_ns: 0,
            heartbeat_ns: 0,
            next_heartbeat: (u64::MAX, 0),
        }
    }

    /// Connects all and logs them in. `observe` is told how many are and returns
    /// false to stop.
    ///
    /// # Errors
    /// A login is refused, or nothing moves any more.
    pub(crate) fn open(&mut self, observe: impl FnMut(usize) -> bool) -> Result<(), LoadError> {
        self.open_up_to(usize::MAX, observe)
    }

    /// The same with the first of them only: so many, those that are there already
    /// among them.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn open_up_to(
        &mut self,
        count: usize,
        mut observe: impl FnMut(usize) -> bool,
    ) -> Result<(), LoadError> {
        let (mut before, mut moved_ns) = (self.logged_in, now_ns());
        let wanted = self.clients.len().min(count);
        while self.logged_in < wanted {
            while self.opened < wanted && self.opened - self.logged_in < self.options.opening_max {
                self.begin(self.opened)?;
                self.opened += 1;
            }
            self.turn(0)?;
            if self.gone > 0 {
                let trouble = self.trouble.take().unwrap_or_default();
                return Err(LoadError::Unexpected(trouble));
            }
            if self.logged_in > before {
                (before, moved_ns) = (self.logged_in, now_ns());
            } else if now_ns() - moved_ns > self.options.patience_ns {
                let held = self.logged_in;
                return Err(LoadError::Stalled { held, wanted });
            }
            if !observe(self.logged_in) {
                return Err(LoadError::Stopped);
            }
        }
        Ok(())
    }

    /// Sends at a pace from a time on, for a span; the clients below `senders` do.
    /// A message is received by so many as `copies` says.
    pub(crate) fn start(
        &mut self,
        pace: Pace,
        senders: usize,
        copies: u64,
        start_ns: u64,
        span_ns: u64,
    ) {
        self.senders = senders.min(self.clients.len());
        self.copies = copies;
        match pace {
            Pace::PerSecond(per_s) => {
                self.schedule = Some(Schedule::new(start_ns, per_s, self.senders, span_ns));
            }
            Pace::Window => {
                self.is_open = true;
                let now = now_ns();
                (0..self.senders).for_each(|client| self.feed(client, now));
            }
        }
    }

    /// No message is sent any more that wasn't due before.
    pub(crate) fn stop(&mut self) {
        self.is_open = false;
    }

    /// Turns until a time. False when `observe`, called each turn, said to stop.
    ///
    /// # Errors
    /// The poll's own failure.
    pub(crate) fn turn_until(
        &mut self,
        until_ns: u64,
        mut observe: impl FnMut(&mut Self, u64) -> bool,
    ) -> Result<bool, LoadError> {
        loop {
            let now = now_ns();
            if !observe(self, now) {
                return Ok(false);
            }
            if now >= until_ns {
                return Ok(true);
            }
            self.turn(until_ns)?;
        }
    }

    /// Gives up what was due and isn't sent: its latency is at least as long as it has
    /// waited, which is counted. Returns how many these are.
    pub(crate) fn abandon(&mut self, now: u64) -> u64 {
        let Some(schedule) = self.schedule.take() else {
            return 0;
        };
        let mut unsent = 0;
        for (at, client) in self.clients.iter_mut().enumerate() {
            for number in client.sent()..client.offered {
                unsent += 1;
                self.tally.unsent(schedule.due_ns(at, number), now);
            }
            client.offered = client.sent();
        }
        unsent
    }

    /// Messages that are neither acked nor refused for good.
    pub(crate) fn unacked(&self) -> u64 {
        let all = self.clients.iter();
        let unsent = |it: &Client| it.offered.saturating_sub(it.sent());
        all.map(|it| it.unacked() + unsent(it)).sum()
    }

    /// Messages that are acked and haven't been received by all who should.
    pub(crate) fn unreceived(&self, copies: u64) -> u64 {
        let counts = &self.tally.counts;
        (counts.acked * copies).saturating_sub(counts.received)
    }

    /// Clients that have pulled what they missed, since all were cut.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Cuts all connections (RST) at once; latencies count from then.
    pub(crate) fn cut_all(&mut self, now: u64) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            self.carrier.cut(at);
            client.stage = Stage::Idle;
        }
        (self.opened, self.logged_in, self.synced) = (0, 0, 0);
        self.cut_ns = now;
    }

    /// Whether nobody owes anything for what was received.
    pub(crate) fn is_settled(&self) -> bool {
        self.settling.is_empty()
    }

    /// Logged-in clients.
    pub(crate) fn logged_in(&self) -> usize {
        self.logged_in
    }

    fn begin(&mut self, client: usize) -> Result<(), LoadError> {
        self.carrier.connect(client)?;
        self.clients[client].stage = Stage::Opening;
        self.driver.open(client, self.carrier.out(client))
    }

    // --- a turn ---

    fn turn(&mut self, until_ns: u64) -> Result<(), LoadError> {
        let until_ns = self.wake_ns(until_ns);
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.carrier.wait(until_ns, &mut ready)?;
        let now = now_ns();
        self.last_turn_ns = now;
        self.take_due(now);
        for it in &ready {
            self.serve(*it);
        }
        self.ready = ready;
        if self.copies > 1 && self.is_open {
            (0..self.senders).for_each(|client| self.feed(client, now));
        }
        self.resume(now);
        self.settle(now);
        self.keep_alive(now);
        self.flush();
        Ok(())
    }

    /// When the next turn has to be, if nothing happens; 0: no matter.
    fn wake_ns(&self, until_ns: u64) -> u64 {
        let scheduled = self.schedule.as_ref().and_then(Schedule::next_ns);
        let scheduled = scheduled.map(|due_ns| due_ns.max(self.last_turn_ns + TICK_NS));
        let settle = self.settling.front().map(|(at_ns, _)| *at_ns);
        let resume = self.paused.peek().map(|Reverse((at_ns, ..))| *at_ns);
        let until = (until_ns > 0).then_some(until_ns);
        let all = [scheduled, settle, resume, until];
        all.into_iter().flatten().min().unwrap_or(0)
    }

    fn take_due(&mut self, now: u64) {
        let Some(mut schedule) = self.schedule.take() else {
            return;
        };
        while let Some((sender, due_ns)) = schedule.take(now) {
            self.tally.counts.late += u64::from(now - due_ns > LATE_NS);
            self.clients[sender].offered += 1;
            self.schedule = Some(schedule);
            self.feed(sender, now);
        }
        self.schedule = Some(schedule);
    }

    fn serve(&mut self, ready: Ready) {
        let client = ready.client;
        if ready.connected && self.clients[client].stage == Stage::Opening {
            if let Err(error) = self.carrier.connected(client) {
                return self.lose(client, &error);
            }
            self.mark_dirty(client);
        }
        if ready.readable
            && let Err(error) = self.read(client)
        {
            return self.lose(client, &error);
        }
        if ready.writable {
            self.mark_dirty(client);
        }
    }

    fn read(&mut self, client: usize) -> Result<(), LoadError> {
        let (driver, heard) = (&mut self.driver, &mut self.heard);
        let outcome = self
            .carrier
            .read(client, |came, out| driver.take(client, came, out, heard));
        let now = now_ns();
        let mut heard = std::mem::take(&mut self.heard);
        for it in heard.drain(..) {
            self.hear(client, it, now);
        }
        self.heard = heard;
        self.feed(client, now);
        self.mark_dirty(client);
        outcome
    }

    fn mark_dirty(&mut self, client: usize) {
        if !std::mem::replace(&mut self.clients[client].is_dirty, true) {
            self.dirty.push(client);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for client in dirty.drain(..) {
            self.clients[client].is_dirty = false;
            self.driver.gathered(client, self.carrier.out(client));
            if let Err(error) = self.carrier.write(client) {
                self.lose(client, &error);
            }
        }
        self.dirty = dirty;
    }

    fn lose(&mut self, client: usize, error: &LoadError) {
        self.carrier.cut(client);
        let stage = std::mem::replace(&mut self.clients[client].stage, Stage::Gone);
        if stage == Stage::Gone {
            return;
        }
        self.tally.counts.disconnects += 1;
        self.note(|| format!("client {client}: {error}"));
        if stage == Stage::Ready {
            self.logged_in -= 1;
        }
        match self.options.reconnects.then(|| self.begin(client)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                self.clients[client].stage = Stage::Gone;
                self.gone += 1;
                self.note(|| format!("client {client}: {error}"));
            }
            None => self.gone += 1,
        }
    }

    fn note(&mut self, trouble: impl FnOnce() -> String) {
        self.trouble.get_or_insert_with(trouble);
    }
}
