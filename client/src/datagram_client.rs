//! A client over UDP without sockets, clock, threads or runtime: for devices, games
//! and other languages, which bring their own.
//!
//! Two state machines joined: the [session](crate::session), which has all of this
//! crate's promises (order, repeated sends, sync, login anew), and the datagram session
//! of `sluice-codec`, which carries its packets. It connects again by itself.
//!
//! ```text
//! loop {
//!     transmit() until None ─▶ socket;  poll_event() until None ─▶ application
//!     wait for a datagram ─▶ receive(), until timeout() ─▶ on_timeout()
//! }
//! ```
//!
//! Times are `now_us`, microseconds on any clock that doesn't go back. Bounds: those of
//! [`SessionConfig`](crate::SessionConfig), the datagram session's buffers, and one batch of received messages.

mod calls;
mod kept;
mod settings;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sluice_codec::{
    FrameError,
    datagram::{
        AddressTicket, Channel, ClientConnection, Config, ConnectError, End, SendError as Unsent,
        ServerPin, ServerPins,
    },
    decode_packet_bytes, encode_packet,
};
use sluice_protocol::{
    ClientMsgId, DeviceId, UserId,
    limits::FRAME_MAX_BYTES,
    packet::{CloseReason, Packet, packet::Body},
};

use crate::{
    CallError, DisconnectReason, Ended, Event, Response, SendError, SendReceipt, StateError,
    datagrams::{keep, kept_alive},
    session::{Output, Session},
    state::{Change, Saved},
    ticket::Ticket,
};

pub use settings::DatagramSettings;

/// An answer that is late by this, then 2, 4, … times it, is asked after by a ping: a NAT
/// may have given this side another address, which only a packet shows the server.
const CHECK_AFTER_US: u64 = 1_000_000;
const CHECK_DOUBLINGS_MAX: u32 = 4;
/// Told to a server that is left.
const LEFT_CODE: u16 = CloseReason::Unspecified as u16;

/// What the application is told.
#[derive(Debug, Clone, PartialEq)]
pub enum DatagramEvent {
    /// By the session; never [`Event::SendRefused`].
    Session(Event),
    /// A send is settled.
    Sent(ClientMsgId, Result<SendReceipt, SendError>),
    /// A request is settled.
    Answered(u64, Result<Response, CallError>),
    /// The login token ends soon: [`DatagramClient::renew_token`].
    TokenWanted,
}

/// See the module.
pub struct DatagramClient {
    user: UserId,
    device: DeviceId,
    token: String,
    pins: ServerPins,
    config: Arc<Config>,
    rng: StdRng,
    session: Session,
    /// Unix milliseconds, by the device, when `now_us` was 0.
    epoch_ms: u64,
    now_us: u64,
    connection: Option<ClientConnection>,
    /// The handshake is under way; then this is how to log in (`None`: by resuming).
    opening: Option<Option<String>>,
    /// One that was closed, and has still to say so.
    leaving: Option<ClientConnection>,
    received: VecDeque<Bytes>,
    /// The packet that the connection had no room for.
    waiting: Option<(Channel, Bytes)>,
    pin: Option<ServerPin>,
    /// When to ask after an answer, and how often that was done.
    check: Option<(u64, u32)>,
    saved: Saved,
    revision: u64,
    settled: VecDeque<DatagramEvent>,
    /// To be saved when the next event is taken.
    uncommitted: Option<Change>,
}

// === impl DatagramClient ===

impl DatagramClient {
    /// A client that begins to connect. `kept`: what [`DatagramClient::state`] gave in an
    /// earlier life. `seed`: from a cryptographic source, never the same twice; the keys of
    /// all its sessions come from it.
    ///
    /// # Errors
    /// The state is damaged, or another user's or device's.
    pub fn new(
        now_us: u64,
        settings: DatagramSettings,
        kept: Option<&[u8]>,
        seed: [u8; 32],
    ) -> Result<Self, StateError> {
        let saved = match kept {
            Some(bytes) => kept::decode(bytes, &settings.user, &settings.device)?,
            None => Saved::default(),
        };
        let mut rng = StdRng::from_seed(seed);
        let session = Session::new(
            settings.session,
            settings.user.clone(),
            settings.device.clone(),
            saved.clone(),
            false,
            rng.random(),
        );
        let mut client = Self {
            user: settings.user,
            device: settings.device,
            token: settings.token,
            pins: settings.pins,
            config: Arc::new(settings.datagram),
            rng,
            session,
            epoch_ms: settings.unix_ms.saturating_sub(now_us / 1_000),
            now_us,
            connection: None,
            opening: None,
            leaving: None,
            received: VecDeque::new(),
            waiting: None,
            pin: None,
            check: None,
            saved,
            revision: 0,
            settled: VecDeque::new(),
            uncommitted: None,
        };
        client.turn(now_us);
        Ok(client)
    }

    /// Takes a datagram, which is opened in place. What is not from the server is passed over.
    pub fn receive(&mut self, now_us: u64, datagram: &mut [u8]) {
        self.advance(now_us);
        if let Some(connection) = &mut self.connection {
            let received = &mut self.received;
            let mut sink = |_: Channel, message: &[u8]| keep(received, message);
            if let Err(error) = connection.receive(self.now_us, datagram, &mut sink) {
                tracing::trace!(%error, "a datagram was passed over");
            }
        }
        self.turn(now_us);
    }

    /// Appends the next datagram to `out`; its length, or none if none is due.
    pub fn transmit(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<usize> {
        self.turn(now_us);
        if let Some(leaving) = &mut self.leaving {
            if let Some(bytes) = leaving.transmit(self.now_us, out) {
                return Some(bytes);
            }
            self.leaving = None;
        }
        self.connection.as_mut()?.transmit(self.now_us, out)
    }

    /// When [`DatagramClient::on_timeout`] must be called. None: all is over.
    pub fn timeout(&self) -> Option<u64> {
        let session = self.session.next_timeout_ms();
        let session = session.map(|at| at.saturating_sub(self.epoch_ms).saturating_mul(1_000));
        let connection = self.connection.as_ref().and_then(ClientConnection::timeout);
        let check = self.check.map(|(at_us, _)| at_us);
        session.into_iter().chain(connection).chain(check).min()
    }

    /// Time has passed. Early calls do nothing.
    pub fn on_timeout(&mut self, now_us: u64) {
        self.turn(now_us);
    }

    /// The next event. Taking it says that the application is done with the one before,
    /// which a later life won't be told again.
    pub fn poll_event(&mut self, now_us: u64) -> Option<DatagramEvent> {
        self.turn(now_us);
        if let Some(change) = self.uncommitted.take() {
            self.save(change);
        }
        if let Some(event) = self.settled.pop_front() {
            return Some(event);
        }
        loop {
            match self.session.poll_event(self.now_ms())? {
                // Told as `Sent`.
                Event::SendRefused { .. } => {}
                event => {
                    self.uncommitted = Change::after(&event);
                    return Some(DatagramEvent::Session(event));
                }
            }
        }
    }

    /// The network has changed, or the socket is another one: the session goes on from there.
    pub fn rebind(&mut self, now_us: u64) {
        self.advance(now_us);
        if let Some(connection) = &mut self.connection {
            connection.rebind(self.now_us);
        }
        let now_ms = self.now_ms();
        self.session.hurry(now_ms);
        self.turn(now_us);
    }

    /// For how many microseconds nothing has come from a server that owed something. After
    /// some seconds another socket may help.
    pub fn silence(&self, now_us: u64) -> u64 {
        let session = self.connection.as_ref().and_then(|it| it.session());
        let since_us = session.and_then(|it| it.silent_since_us());
        since_us.map_or(0, |since_us| now_us.saturating_sub(since_us))
    }

    /// Why it has ended for good, if it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.session.ended()
    }

    /// Time never goes back.
    fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        if let Some(connection) = &mut self.connection {
            connection.on_timeout(self.now_us);
        }
    }

    fn now_ms(&self) -> u64 {
        self.epoch_ms.saturating_add(self.now_us / 1_000)
    }

    /// Does all that can be done now.
    fn turn(&mut self, now_us: u64) {
        self.advance(now_us);
        let now_ms = self.now_ms();
        if self
            .session
            .next_timeout_ms()
            .is_some_and(|at| at <= now_ms)
        {
            self.session.handle_timeout(now_ms);
            self.take_outputs();
        }
        if self.session.connect_due(now_ms) {
            self.connect();
        }
        self.log_in();
        self.take_packets();
        self.check_end();
        self.take_outputs();
        self.feed();
        self.ask_after();
    }

    /// Pings for an answer that is late.
    fn ask_after(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|it| it.is_open()) else {
            self.check = None;
            return;
        };
        if !self.session.awaits_answer() {
            self.check = None;
            return;
        }
        let (at_us, pings) = *self
            .check
            .get_or_insert((self.now_us.saturating_add(CHECK_AFTER_US), 0));
        if at_us <= self.now_us {
            connection.ping(self.now_us);
            let pings = (pings + 1).min(CHECK_DOUBLINGS_MAX);
            let after_us = CHECK_AFTER_US << pings;
            self.check = Some((self.now_us.saturating_add(after_us), pings));
        }
    }

    fn connect(&mut self) {
        let needs_token = self.session.connecting();
        self.opening = Some(needs_token.then(|| self.token.clone()));
        self.received.clear();
        self.waiting = None;
        // Shown once: who sees a ticket twice knows the client again.
        let ticket = self.saved.ticket.take().map(|it| (it.pin, it.ticket));
        self.connection = Some(ClientConnection::connect(
            self.now_us,
            self.pins.clone(),
            ticket,
            self.rng.random(),
            self.rng.random(),
            Arc::clone(&self.config),
        ));
    }

    /// Once the handshake is over.
    fn log_in(&mut self) {
        let now_ms = self.now_ms();
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Some((pin, ticket)) = connection.take_ticket() {
            self.pin = Some(pin);
            self.saved.ticket = Some(Ticket { pin, ticket });
            self.revision += 1;
        }
        // A fresh one for the address that the client has moved to.
        if let Some(token) = connection.take_token()
            && let (Some(pin), Ok(bytes)) = (self.pin, <[u8; _]>::try_from(&*token))
        {
            let ticket = AddressTicket::from_bytes(bytes);
            self.saved.ticket = Some(Ticket { pin, ticket });
            self.revision += 1;
        }
        if connection.is_open()
            && let Some(token) = self.opening.take()
        {
            self.session.handle_connected(now_ms, token, true);
        }
    }

    fn take_packets(&mut self) {
        let now_ms = self.now_ms();
        loop {
            if self.received.is_empty()
                && let Some(connection) = &mut self.connection
            {
                let received = &mut self.received;
                connection.drain(&mut |_, message: &[u8]| keep(received, message));
            }
            let Some(message) = self.received.pop_front() else {
                return;
            };
            match decode_packet_bytes(message) {
                Ok(packet) => self.session.handle_packet(now_ms, packet),
                // Newer than this client.
                Err(FrameError::UnknownPacket { .. }) => {}
                Err(error) => {
                    let reason = DisconnectReason::BadPacket(error.to_string());
                    self.session.handle_disconnected(now_ms, reason);
                }
            }
            self.take_outputs();
        }
    }

    fn check_end(&mut self) {
        let now_ms = self.now_ms();
        let Some(connection) = &self.connection else {
            return;
        };
        let (failure, end) = (connection.failure(), connection.end());
        if let Some(error) = failure {
            self.connection = None;
            self.opening = None;
            let reason = DisconnectReason::ConnectFailed(error.to_string());
            match error {
                ConnectError::Busy { retry_after_ms } => {
                    let at_ms = now_ms.saturating_add(retry_after_ms.into());
                    self.session.reconnect_at(now_ms, reason, at_ms);
                }
                _ => self.session.handle_disconnected(now_ms, reason),
            }
        } else if let Some(end) = end {
            self.connection = None;
            self.opening = None;
            self.session.handle_disconnected(now_ms, ended(end));
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Save(change) => self.save(change),
                Output::Sent(id, outcome) => {
                    self.settled.push_back(DatagramEvent::Sent(id, outcome));
                }
                Output::Answered(id, answer) => {
                    let answer = match answer {
                        Ok(Body::Response(response)) => Ok(Response {
                            status: response.status,
                            payload: response.payload,
                        }),
                        Ok(_) => Err(CallError::BadAnswer),
                        Err(error) => Err(error),
                    };
                    self.settled.push_back(DatagramEvent::Answered(id, answer));
                }
                Output::Heartbeat(ms) => {
                    if let Some(connection) = &mut self.connection {
                        let config = kept_alive(&self.config, Duration::from_millis(ms));
                        connection.configure(Arc::new(config));
                    }
                }
                Output::Close => self.drop_connection(),
                Output::RefreshToken => self.settled.push_back(DatagramEvent::TokenWanted),
            }
        }
    }

    /// Says what is left to say, and that it leaves.
    fn drop_connection(&mut self) {
        self.opening = None;
        if self.connection.as_ref().is_some_and(|it| it.is_open()) {
            self.feed();
            if let Some(mut connection) = self.connection.take() {
                connection.close(self.now_us, LEFT_CODE, "");
                self.leaving = Some(connection);
            }
        }
        self.connection = None;
        self.waiting = None;
        self.received.clear();
    }

    /// Hands the session's packets to the connection, as it has room.
    fn feed(&mut self) {
        let now_ms = self.now_ms();
        let Some(connection) = self.connection.as_mut().filter(|it| it.is_open()) else {
            return;
        };
        loop {
            let next = self.waiting.take();
            let next = next.or_else(|| encoded(&self.session.poll_transmit(now_ms)?));
            let Some((channel, bytes)) = next else { return };
            match connection.send(self.now_us, channel, bytes.clone()) {
                Ok(()) => {}
                Err(Unsent::Full) => {
                    self.waiting = Some((channel, bytes));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "a packet was not sent");
                }
            }
        }
    }

    fn save(&mut self, change: Change) {
        self.saved.apply(change);
        self.revision += 1;
    }
}

impl std::fmt::Debug for DatagramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.user, self.device)
    }
}

/// Where the packet goes, and its bytes; an empty message for one over the limit, which the
/// calls don't take.
fn encoded(packet: &Packet) -> Option<(Channel, Bytes)> {
    let bytes = encode_packet(packet, FRAME_MAX_BYTES).unwrap_or_default();
    Some((Channel::of_client_packet(packet, bytes.len()), bytes))
}

fn ended(end: End) -> DisconnectReason {
    match end {
        End::ClosedByPeer(code) => {
            let reason = CloseReason::try_from(i32::from(code)).ok();
            DisconnectReason::Closed(reason.filter(|it| *it != CloseReason::Unspecified))
        }
        End::Silent => DisconnectReason::Silent,
        End::Violated(violation) => DisconnectReason::BadPacket(violation.to_string()),
        End::Forgotten => DisconnectReason::Broken("the server has forgotten the session".into()),
        // The next session has other keys.
        End::Closed(_) | End::Exhausted | End::Forged => DisconnectReason::Closed(None),
    }
}
