//! One event loop: a thread with its own poll, listeners, connections and timers.
//!
//! A turn goes: wait → note what became ready → accept → mail → timers → read
//! and handle → write. Edge-triggered: a channel that has more to read than its
//! share of a turn goes to the end of the ready list. Everything that a turn
//! appends to a channel's output is written at its end, in one `writev`.

mod accepting;
mod datagrams;
mod inspecting;
mod moving;
mod rounds;

use std::{io, sync::Arc, time::Duration};

use mio::{Events, Interest, Poll, Token};
use sluice_bus::Bind;
use sluice_protocol::{ConnectionId, packet::CloseReason};

use crate::{
    channel::Channel,
    connections::Connections,
    datagram::{DatagramPort, ReceiveBuffers, Strayed},
    listener::Listener,
    mailbox::{Command, CommandBody, Mail, Mailbox},
    pipeline::Pipeline,
    shared::Shared,
    slab::ChannelKey,
    transport::Transport,
    workbench::Workbench,
};

use rounds::{Call, Rounds};

/// See the module.
pub(crate) struct EventLoop {
    poll: Poll,
    listeners: Vec<Listener>,
    datagrams: Option<DatagramPort>,
    /// Datagrams for the sessions of other loops, by loop.
    strayed: Vec<Vec<Strayed>>,
    /// Of all loops, this one's among them.
    loops: Vec<Mailbox>,
    /// Answers that another loop had no room for yet, and for which channel.
    unsent: Vec<(ConnectionId, Mail)>,
    /// The kernel may hold more connections than were accepted in a turn.
    accept_more: bool,
    /// No accepting before this, after the process ran out of descriptors.
    accept_paused_until_ms: u64,
    connections: Connections,
    bench: Workbench,
    pipeline: Pipeline,
    mailbox: Mailbox,
    scratch: Box<[u8]>,
    receive_buffers: Option<ReceiveBuffers>,
    /// Slots whose timer has fired.
    expired: Vec<u32>,
    rounds: Rounds,
    stopping: bool,
}

/// Bytes read from one socket in a turn.
const SCRATCH_BYTES: usize = 64 * 1024;
const EVENTS_PER_POLL: usize = 1024;
const MAILS_PER_TURN: usize = 64;
const MAILBOX_MAX: usize = 256;
/// Without timers a loop still looks around this often.
const IDLE_WAIT_MS: u64 = 1_000;

/// The slot number of tokens that name no channel ([`Connections`] leaves it out).
const NO_SLOT: u64 = u32::MAX as u64;
const WAKER: Token = Token(NO_SLOT as usize);

/// Behind those of all listeners.
const DATAGRAMS: Token = Token(NO_SLOT as usize | 0xffff_ffff << 32);

fn listener_token(index: usize) -> Token {
    Token(((index + 1) << 32) | NO_SLOT as usize)
}

// === impl EventLoop ===

impl EventLoop {
    /// Prepares a loop; nothing is accepted before [`EventLoop::run`].
    pub(crate) fn new(
        event_loop: u16,
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        datagrams: Option<DatagramPort>,
        seed: u64,
    ) -> io::Result<(Self, Mailbox)> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new(poll.registry(), WAKER, MAILBOX_MAX)?;
        let connections_max = shared.config.connections_per_loop_max;
        let pipeline = shared.pipeline.clone();
        let connections = Connections::new(connections_max, Arc::clone(&shared.datagram_config));
        let outgoing = datagrams.as_ref().map(DatagramPort::outgoing);
        let bench = Workbench::new(shared, event_loop, outgoing.unwrap_or_default(), seed);
        let this = Self {
            poll,
            listeners,
            receive_buffers: datagrams.as_ref().map(|_| ReceiveBuffers::new()),
            datagrams,
            strayed: Vec::new(),
            loops: Vec::new(),
            unsent: Vec::new(),
            accept_more: false,
            accept_paused_until_ms: 0,
            connections,
            bench,
            pipeline,
            mailbox: mailbox.clone(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            expired: Vec::new(),
            rounds: Rounds::default(),
            stopping: false,
        };
        Ok((this, mailbox))
    }

    /// Tells it the others, which share its UDP port.
    pub(crate) fn join(&mut self, loops: &[Mailbox]) {
        self.loops = loops.to_vec();
        self.strayed = loops.iter().map(|_| Vec::new()).collect();
    }

    /// Turns until it was told to stop and has nothing left to write.
    pub(crate) fn run(mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let token = listener_token(index);
            self.poll
                .registry()
                .register(&mut listener.socket, token, Interest::READABLE)?;
        }
        if let Some(port) = &mut self.datagrams {
            port.register(self.poll.registry(), DATAGRAMS)?;
        }
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        while !(self.stopping && self.connections.len() == 0) {
            self.turn(&mut events)?;
        }
        self.flush_tally();
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(self.wait())) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        self.bench.now = self.bench.shared.clock.now();
        self.bench.traces.begin_turn();
        for event in events.iter() {
            self.note(event);
        }
        if self.accept_more && self.bench.now.mono_ms >= self.accept_paused_until_ms {
            self.accept_more = false;
            for index in 0..self.listeners.len() {
                self.accept(index);
            }
        }
        self.read_mail();
        self.go_round();
        self.send_again();
        self.receive_datagrams();
        self.fire_timers();
        self.serve_ready();
        self.write_dirty();
        self.bench.outgoing.flush(&self.bench.metrics);
        self.connections.rest(&mut self.bench);
        if self.tally_due() {
            self.flush_tally();
        }
        let (now_ms, rule) = (self.bench.now.mono_ms, self.bench.shared.legacy_rule);
        self.bench.handovers.expire(now_ms, rule);
        Ok(())
    }

    /// How long to wait for events at most.
    fn wait(&self) -> Duration {
        let bench = &self.bench;
        let has_work = !bench.ready.is_empty() || !bench.dirty.is_empty();
        let has_work = has_work || self.has_datagrams() || !self.rounds.is_idle();
        if has_work || !self.mailbox.is_empty() {
            return Duration::ZERO;
        }
        let now_ms = self.bench.shared.clock.now().mono_ms;
        let tally_ms = self.tally_deadline_ms();
        let accept_ms = self.accept_more.then_some(self.accept_paused_until_ms);
        let unsent_ms = (!self.unsent.is_empty()).then_some(now_ms + 1);
        let wheel_ms = self.bench.wheel.next_deadline_ms();
        let due_ms = [wheel_ms, tally_ms, accept_ms, unsent_ms]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX);
        Duration::from_millis(due_ms.saturating_sub(now_ms).min(IDLE_WAIT_MS))
    }

    fn note(&mut self, event: &mio::event::Event) {
        let bits = event.token().0 as u64;
        if bits & NO_SLOT == NO_SLOT {
            match (event.token(), &mut self.datagrams) {
                (DATAGRAMS, Some(port)) => port.readable = true,
                // Its mail is read in any case.
                (WAKER, _) => {}
                _ => self.accept_more = true,
            }
            return;
        }
        let key = ChannelKey::from_bits(bits);
        let has_news = event.is_readable() || event.is_read_closed() || event.is_error();
        if !has_news && self.connections.is_asleep(key) {
            // There is room to write, and nothing to be written.
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let channel = &mut connection.channel;
        if has_news {
            channel.flags.readable = true;
            channel.flags.read_closed |= event.is_read_closed() || event.is_error();
            channel.mark_ready(&mut self.bench);
        }
        if event.is_writable() && channel.flags.write_blocked {
            channel.flags.write_blocked = false;
            channel.mark_dirty(&mut self.bench);
        }
    }

    // --- mail ---

    fn read_mail(&mut self) {
        self.mailbox.open();
        for _ in 0..MAILS_PER_TURN {
            let Some(mail) = self.mailbox.take() else {
                return;
            };
            self.handle_mail(mail);
        }
    }

    fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Deliver(commands) => commands.into_iter().for_each(|c| self.deliver(c)),
            Mail::Resync => self.rounds.begin(Call::Resync),
            Mail::GoAway => {
                self.listeners.clear();
                self.bench.draining = true;
                self.rounds.begin(Call::GoAway);
            }
            Mail::Stop => {
                self.stopping = true;
                self.listeners.clear();
                self.rounds.begin(Call::Stop);
            }
            // Whoever asked may have gone.
            Mail::Binds(from_slot, answer) => {
                let bind = |channel: &Channel| channel.bind(&self.bench);
                let _ = answer.send(self.connections.page(from_slot, bind));
            }
            Mail::Sessions(from_slot, answer) => {
                let session = |channel: &Channel| channel.live_session(&self.bench);
                let _ = answer.send(self.connections.page(from_slot, session));
            }
            Mail::Reasserted(binds) => binds.into_iter().for_each(|bind| self.confirm(bind)),
            Mail::Displaced(binds) => {
                for bind in binds {
                    let key = ChannelKey::of(bind.route.connection);
                    if let Some(connection) = self.connections.get_mut(key) {
                        let reason = CloseReason::Replaced.into();
                        connection.channel.close(&mut self.bench, reason);
                    }
                }
            }
            Mail::Rows {
                order,
                rows_max,
                answer,
            } => {
                let _ = answer.send(self.rows(order, rows_max));
            }
            Mail::Costs(from_slot, answer) => {
                let _ = answer.send(self.connections.costs(from_slot));
            }
            Mail::Strayed(strayed) => self.take_strayed(strayed),
            Mail::HandOver(question) => self.hand_over(&question),
            Mail::Legacy(heir, pushes) => self.take_legacy(heir, pushes),
            Mail::Load(answer) => {
                let _ = answer.send(self.load());
            }
        }
    }

    fn deliver(&mut self, command: Command) {
        let key = command.key;
        if matches!(command.body, CommandBody::SessionOpened(_))
            && let Some((user, device)) = self.bench.orphans.take(key)
        {
            // It closed while the service was binding it.
            self.bench.unbind(user, device, key);
        }
        let connection = self.connections.get_mut(key);
        // A login that was worked on twice may have been bound again after its end,
        // and an unbind may have been given up.
        let bound_in_vain = match (&command.body, &connection) {
            (CommandBody::SessionOpened(_), Some(connection)) => connection.channel.is_closing(),
            (CommandBody::SessionOpened(_) | CommandBody::Push { .. }, None) => true,
            _ => false,
        };
        if bound_in_vain {
            self.bench.unbind_stale(&command.user, key);
        }
        let Some(command) = self.open_as_heir(command) else {
            return;
        };
        match self.connections.get_mut(key) {
            Some(connection) => connection.deliver(&mut self.bench, command),
            None => self.bench.metrics.deliveries_stale.increment(1),
        }
    }

    /// Takes back what was said again for a channel that has closed meanwhile.
    fn confirm(&mut self, bind: Bind) {
        let key = ChannelKey::of(bind.route.connection);
        if self.connections.is_asleep(key) {
            // Only who is open sleeps, and a sweep is not to wake them all.
            return;
        }
        let connection = self.connections.get_mut(key);
        if !connection.is_some_and(|connection| connection.channel.is_open()) {
            self.bench.unbind(bind.user, bind.route.device, key);
        }
    }

    // --- the turn's work ---

    fn fire_timers(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.bench
            .wheel
            .advance(self.bench.now.mono_ms, &mut expired);
        for slot in expired.drain(..) {
            let key = self.connections.key_at(slot);
            if let Some(connection) = key.and_then(|key| self.connections.get_mut(key)) {
                connection.on_timer(&mut self.bench);
            }
        }
        self.expired = expired;
    }

    fn serve_ready(&mut self) {
        // Whoever is put on the list meanwhile has its turn next time.
        let ready = std::mem::take(&mut self.bench.ready);
        for key in &ready {
            if let Some(connection) = self.connections.get_mut(*key) {
                connection.channel.flags.on_ready_list = false;
                connection.read_turn(&mut self.bench, &self.pipeline, &mut self.scratch);
            }
        }
        self.keep_list(ready);
    }

    /// Reuses the list's memory for the next turn.
    fn keep_list(&mut self, mut list: Vec<ChannelKey>) {
        list.clear();
        list.append(&mut self.bench.ready);
        self.bench.ready = list;
    }

    fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.bench.dirty);
        for key in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.channel.flags.on_dirty_list = false;
            connection.write_turn(&mut self.bench);
            if connection.channel.flags.gone {
                self.remove(key);
            }
        }
        // Writing may have let channels append more (an Overflow): next turn.
        dirty.append(&mut self.bench.dirty);
        self.bench.dirty = dirty;
    }

    fn remove(&mut self, key: ChannelKey) {
        let Some(mut connection) = self.connections.remove(key) else {
            return;
        };
        match &mut connection.transport {
            // It goes with the socket anyway; a failure changes nothing.
            Transport::Stream { socket, .. } => {
                let _ = self.poll.registry().deregister(socket);
            }
            Transport::Datagram(link) => {
                if let Some(port) = &mut self.datagrams {
                    port.forget(link.id());
                }
            }
        }
        self.bench.traces.forget(key);
        let channel = connection.channel;
        if let Some(timer) = channel.timer {
            self.bench.wheel.cancel(timer);
        }
        if let Some(output) = channel.output {
            self.bench.pool.give(output);
        }
        self.bench.shared.addresses.leave(channel.peer.ip());
        self.bench.metrics.connections.decrement(1);
    }

    // --- delivered cursors ---

    fn tally_deadline_ms(&self) -> Option<u64> {
        let since_ms = self.bench.tally.since_ms()?;
        Some(since_ms + self.bench.shared.config.push.ack_flush_ms)
    }

    fn tally_due(&self) -> bool {
        self.bench.tally.len() >= self.bench.shared.config.push.ack_cursors_max
            || self
                .tally_deadline_ms()
                .is_some_and(|due_ms| due_ms <= self.bench.now.mono_ms)
    }

    fn flush_tally(&mut self) {
        let bench = &mut self.bench;
        let lanes = &bench.shared.lanes;
        bench.tally.flush(lanes, bench.now, &bench.metrics);
    }
}
