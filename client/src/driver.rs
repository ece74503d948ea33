//! Connects a session to its socket, its local state and the application: one
//! tokio task a client.
//!
//! Each turn: do what is due, write what must be kept, tell events, transmit;
//! then sleep until a command, a packet, room for events, a commit or a deadline.

mod moving;
mod saving;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use sluice_protocol::{ClientMsgId, packet::packet::Body};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    CallError, DisconnectReason, Ended, Endpoint, Event, LinkError, LocalState, SendError,
    TokenError, TokenSource,
    choice::Choice,
    client::Shared,
    clock::Clock,
    command::{Command, SendReply},
    link::Link,
    race::Raced,
    session::{Output, Session},
    state::Change,
    ticket::Ticket,
};

/// No more packets are taken from the session while this much waits to be written.
const QUEUED_MAX_BYTES: usize = 128 * 1024;
/// Commands and packets that are taken in one turn.
const TURN_MAX: usize = 64;

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) state: LocalState,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) choice: Choice,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) token: TokenSource,
    pub(crate) connect_timeout: Duration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<(u64, Event)>,
    pub(crate) persisted: watch::Sender<u64>,
}

type Connected = Result<(Raced, Option<String>), NotConnected>;
type Refreshed = Result<String, TokenError>;
type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// The task of one client.
pub(crate) struct Driver {
    parts: Parts,
    clock: Clock,
    link: Option<Link>,
    /// Where it goes, or the try under way.
    endpoint: usize,
    connecting: Pending<Connected>,
    /// Beside the link: a way out when that is silent, or back to UDP.
    rival: Pending<Result<Raced, LinkError>>,
    /// No other one before.
    rival_at_ms: u64,
    /// The rival that takes the link's place.
    next_link: Option<Raced>,
    refreshing: Pending<Refreshed>,
    /// Who waits for a send to be settled.
    sends: HashMap<ClientMsgId, SendReply>,
    /// Who waits for a send to be kept.
    keeping: Vec<(oneshot::Sender<Result<ClientMsgId, SendError>>, ClientMsgId)>,
    /// Who waits for an answer.
    calls: HashMap<u64, oneshot::Sender<Result<Body, CallError>>>,
    unsaved: Vec<Change>,
    save_at_ms: Option<u64>,
    /// Entries told, by event number, that the application isn't done with.
    uncommitted: VecDeque<(u64, Change)>,
    events_told: u64,
    commands_are_closed: bool,
    /// Who waits for the end.
    farewells: Vec<oneshot::Sender<()>>,
}

/// Why there is no connection.
struct NotConnected {
    reason: DisconnectReason,
    /// When the server wants to be tried again.
    retry_after_ms: Option<u32>,
}

/// What has ended the sleep.
enum Woken {
    Commands(usize),
    Packet(Result<sluice_protocol::packet::Packet, LinkError>),
    /// The link takes packets again, or has gone silent.
    Link,
    Connected(Connected),
    Rival(Result<Raced, LinkError>),
    Refreshed(Refreshed),
    /// A deadline, room for events, a commit, or the events were dropped: the
    /// turn finds out.
    Other,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            clock: Clock::start(),
            link: None,
            // The first try goes to the first.
            endpoint: usize::MAX,
            connecting: None,
            rival: None,
            rival_at_ms: 0,
            next_link: None,
            refreshing: None,
            sends: HashMap::new(),
            keeping: Vec::new(),
            calls: HashMap::new(),
            unsaved: Vec::new(),
            save_at_ms: None,
            uncommitted: VecDeque::new(),
            events_told: 0,
            commands_are_closed: false,
            farewells: Vec::new(),
        }
    }

    /// Runs until the session has ended.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::new();
        loop {
            self.turn().await;
            if self.parts.session.ended().is_some() {
                break;
            }
            match self.sleep(&mut commands).await {
                Woken::Commands(0) => self.commands_are_closed = true,
                Woken::Commands(_) => {
                    for command in commands.drain(..) {
                        self.obey(command).await;
                    }
                }
                Woken::Packet(packet) => self.take_packets(packet),
                Woken::Connected(connected) => self.take_link(connected),
                Woken::Rival(rival) => self.take_rival(rival),
                Woken::Refreshed(refreshed) => {
                    self.refreshing = None;
                    // Without a fresh token the session goes on until the old one ends.
                    if let Ok(token) = refreshed {
                        self.parts.session.refresh(token);
                    }
                }
                Woken::Link | Woken::Other => {}
            }
            if self.commands_are_closed && self.parts.events.is_closed() {
                self.leave(false).await;
            }
        }
        self.end().await;
    }

    async fn turn(&mut self) {
        let now_ms = self.clock.now_ms();
        let session = &mut self.parts.session;
        if session.next_timeout_ms().is_some_and(|at| at <= now_ms) {
            session.handle_timeout(now_ms);
        }
        if session.connect_due(now_ms) {
            self.connect();
        }
        self.seek_other_ways(now_ms);
        self.keep_ticket();
        self.tell_events(now_ms);
        self.take_outputs();
        self.take_commits();
        self.save(now_ms).await;
        self.transmit(now_ms);
    }

    async fn sleep(&mut self, commands: &mut Vec<Command>) -> Woken {
        let deadline = [
            self.parts.session.next_timeout_ms(),
            self.save_at_ms,
            self.other_ways_at_ms(),
        ];
        let deadline = deadline.into_iter().flatten().min();
        let deadline = deadline.map(|at_ms| self.clock.instant(at_ms));
        let has_events = self.parts.session.has_events();
        let Self {
            parts,
            link,
            connecting,
            rival,
            refreshing,
            commands_are_closed,
            ..
        } = self;
        tokio::select! {
            packet = poll_link(link) => packet.map_or(Woken::Link, Woken::Packet),
            n = parts.commands.recv_many(commands, TURN_MAX), if !*commands_are_closed => {
                Woken::Commands(n)
            }
            _ = parts.events.reserve(), if has_events && !parts.events.is_closed() => Woken::Other,
            () = parts.shared.wake.notified() => Woken::Other,
            connected = poll_pending(connecting) => Woken::Connected(connected),
            found = poll_pending(rival) => Woken::Rival(found),
            refreshed = poll_pending(refreshing) => Woken::Refreshed(refreshed),
            () = parts.events.closed(), if *commands_are_closed => Woken::Other,
            () = sleep_until(deadline) => Woken::Other,
        }
    }

    fn take_packets(&mut self, first: Result<sluice_protocol::packet::Packet, LinkError>) {
        let now_ms = self.clock.now_ms();
        let mut received = Some(first);
        let mut left = TURN_MAX;
        while let Some(packet) = received {
            match packet {
                Ok(packet) => self.parts.session.handle_packet(now_ms, packet),
                Err(error) => return self.lose_link(error),
            }
            left -= 1;
            received = match &mut self.link {
                Some(link) if left > 0 => link.next_received(),
                _ => None,
            };
        }
    }

    async fn obey(&mut self, command: Command) {
        let now_ms = self.clock.now_ms();
        let session = &mut self.parts.session;
        match command {
            Command::Send {
                conversation,
                content_type,
                body,
                kept,
                outcome,
            } => match session.send(now_ms, conversation, content_type, body) {
                Ok(id) => {
                    self.sends.insert(id, outcome);
                    self.keeping.push((kept, id));
                }
                // The caller may have gone; then nobody is to be told.
                Err(error) => drop(kept.send(Err(error))),
            },
            Command::Notify { body, taken } => {
                // The caller may have gone.
                let _ = taken.send(session.notify(body));
            }
            Command::Read(conversation, seq) => session.read(now_ms, conversation, seq),
            Command::Call {
                body,
                timeout_ms,
                reply,
            } => match session.ask(now_ms, body, timeout_ms) {
                Ok(id) => {
                    self.calls.insert(id, reply);
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Sync => session.sync_within(now_ms, 0),
            Command::Cut => self.cut(now_ms),
            Command::NetworkChanged => self.change_network(now_ms),
            Command::GoBy(transport) => self.go_by(now_ms, transport),
            Command::Disconnect { logout, done } => {
                self.farewells.push(done);
                self.leave(logout).await;
            }
        }
    }

    /// Says farewell and closes.
    async fn leave(&mut self, logout: bool) {
        let now_ms = self.clock.now_ms();
        self.parts.session.disconnect(now_ms, logout);
        self.transmit(now_ms);
        self.connecting = None;
        self.rival = None;
        if let Some(link) = self.link.take() {
            link.finish().await;
        }
    }

    fn tell_events(&mut self, now_ms: u64) {
        let parts = &mut self.parts;
        while parts.session.has_events() {
            match parts.events.try_reserve() {
                Ok(permit) => {
                    let Some(event) = parts.session.poll_event(now_ms) else {
                        return;
                    };
                    self.events_told += 1;
                    if let Some(change) = Change::after(&event) {
                        self.uncommitted.push_back((self.events_told, change));
                    }
                    permit.send((self.events_told, event));
                }
                Err(mpsc::error::TrySendError::Full(())) => return,
                // Nobody listens: nothing is committed either.
                Err(mpsc::error::TrySendError::Closed(())) => {
                    while parts.session.poll_event(now_ms).is_some() {}
                }
            }
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.parts.session.poll_output() {
            match output {
                Output::Save(change) => self.unsaved.push(change),
                Output::Sent(id, outcome) => {
                    if let Some(reply) = self.sends.remove(&id) {
                        drop(reply.send(outcome));
                    }
                }
                Output::Answered(id, answer) => {
                    if let Some(reply) = self.calls.remove(&id) {
                        drop(reply.send(answer));
                    }
                }
                Output::Close => self.drop_link(self.clock.now_ms()),
                Output::Heartbeat(ms) => {
                    if let Some(link) = &mut self.link {
                        link.keep_alive(Duration::from_millis(ms));
                    }
                }
                Output::RefreshToken => {
                    let token = self.parts.token.clone();
                    if token.is_renewable() {
                        self.refreshing = Some(Box::pin(async move { token.token().await }));
                    }
                }
            }
        }
    }

    fn transmit(&mut self, now_ms: u64) {
        let Some(link) = &mut self.link else { return };
        link.expect_answer(self.parts.session.awaits_answer());
        while link.queued_bytes() < QUEUED_MAX_BYTES {
            let Some(packet) = self.parts.session.poll_transmit(now_ms) else {
                return;
            };
            if let Err(error) = link.queue(&packet) {
                // Only a packet over the frame limit, which the handle doesn't take.
                tracing::warn!(%error, "a packet was not sent");
            }
        }
    }

    /// The session is over: the last events are told, the last commits written.
    async fn end(mut self) {
        let ended = self.parts.session.ended().cloned();
        // Set once only, here.
        let _ = self
            .parts
            .shared
            .ended
            .set(ended.unwrap_or(Ended::Disconnected));
        self.parts.commands.close();
        self.link = None;
        self.take_outputs();
        self.sends.clear();
        self.keeping.clear();
        self.calls.clear();
        loop {
            self.tell_events(self.clock.now_ms());
            self.take_commits();
            if !self.unsaved.is_empty() {
                self.save_now(self.parts.state.is_durable()).await;
            }
            let is_told = !self.parts.session.has_events();
            if self.parts.events.is_closed() || (is_told && self.uncommitted.is_empty()) {
                break;
            }
            bid_farewell(&mut self.farewells);
            tokio::select! {
                _ = self.parts.events.reserve(), if !is_told => {}
                () = self.parts.shared.wake.notified() => {}
                () = self.parts.events.closed() => {}
            }
        }
        if self.uncommitted.is_empty() {
            // The events that are left move no position.
            self.report_persisted(u64::MAX);
        }
        let mut farewells = std::mem::take(&mut self.farewells);
        // Also lets go of the local state: its file can be opened again.
        drop(self);
        bid_farewell(&mut farewells);
    }
}

fn bid_farewell(farewells: &mut Vec<oneshot::Sender<()>>) {
    for done in farewells.drain(..) {
        // The caller may have gone.
        let _ = done.send(());
    }
}

/// The next packet; `None` when what was too much to take more has been written,
/// or the server has gone silent.
async fn poll_link(
    link: &mut Option<Link>,
) -> Option<Result<sluice_protocol::packet::Packet, LinkError>> {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    let was_full = link.queued_bytes() >= QUEUED_MAX_BYTES;
    let was_silent = link.is_silent();
    poll_fn(|cx| match link.poll(cx) {
        Poll::Ready(packet) => Poll::Ready(Some(packet)),
        Poll::Pending if was_full && link.queued_bytes() < QUEUED_MAX_BYTES => Poll::Ready(None),
        Poll::Pending if !was_silent && link.is_silent() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn poll_pending<T>(pending: &mut Pending<T>) -> T {
    match pending {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
