//! Packets over a datagram session (SPEC.md, chapter 16): one UDP socket, one session.
//!
//! The session is codec's; here are its socket, its clock and its timer. A link
//! whose server stays silent takes another socket once: where the network has
//! changed unnoticed, or a NAT has, the session goes on from the new address.
//!
//! An idle link owns a datagram's worth of buffer.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use sluice_codec::{
    FrameError,
    datagram::{
        AddressTicket, Channel, ClientConnection, Config, SendError, ServerPin, ServerPins,
    },
    decode_packet_bytes, encode_packet,
};
use sluice_protocol::{
    limits::FRAME_MAX_BYTES,
    packet::{CloseReason, Packet},
};
use tokio::{
    io::ReadBuf,
    net::UdpSocket,
    time::{Instant, Sleep},
};

use super::socket;
use crate::{
    LinkError,
    datagrams::{keep, kept_alive},
    ticket::Ticket,
};

/// No datagram of a session is longer.
const DATAGRAM_MAX_BYTES: usize = 2048;
/// Datagrams that are taken before answers go out.
const BATCH_MAX: usize = 32;
/// A timer that is due already, though all that was due is done, rings again then.
const TICK: Duration = Duration::from_millis(1);
/// So long after the last message a ping goes out, then after 2, 4, … times that: a
/// NAT may have given this side another address, which only a packet shows the
/// server. While a conversation goes on, what it sends to the old one is found
/// again within about the time that has gone by.
const CHECK_AFTER: Duration = Duration::from_secs(2);
/// The same while the session waits for an answer.
const CHECK_SOON: Duration = Duration::from_secs(1);
/// Pings after the last message; then the keepalive's silence is long enough.
const CHECKS_MAX: u32 = 3;
/// Where a ping has found that a NAT had forgotten this side, the next come as soon
/// as the first did, for so long after the last message.
const WATCHED: Duration = Duration::from_secs(60);
/// Of the time between them, while the session waits for an answer.
const CHECK_DOUBLINGS_MAX: u32 = 4;
/// After a silence this long another socket is tried.
const REBIND_AFTER: Duration = Duration::from_millis(2_500);
/// After a silence this long another way is looked for.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// The same when the network has just changed: nothing is known of the new one.
const SILENT_AFTER_CHANGE: Duration = Duration::from_secs(1);
/// The same when the system says that nobody listens there. Others could make it say
/// so, but hardly keep the server silent.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// After a silence this long the session is given up: a login anew costs a round
/// trip or two.
const GIVE_UP_AFTER_MS: u32 = 15_000;
/// Told to a server that is left.
const LEFT_CODE: u16 = CloseReason::Unspecified as u16;

/// See the module.
pub(crate) struct DatagramLink {
    socket: UdpSocket,
    server: SocketAddr,
    session: ClientConnection,
    /// The session's time counts from here.
    began: Instant,
    timer: Pin<Box<Sleep>>,
    /// A datagram on its way to the socket.
    outgoing: Vec<u8>,
    received: VecDeque<Bytes>,
    /// What the session had no room for.
    waiting: VecDeque<(Channel, Bytes)>,
    waiting_bytes: usize,
    pin: Option<ServerPin>,
    ticket: Option<Ticket>,
    /// The system says that nobody listens there.
    is_refused: bool,
    /// Another socket was tried in this silence.
    has_rebound: bool,
    is_cut: bool,
    silent_after: Duration,
    awaits_answer: bool,
    /// When to ping, and how often that was done since the last message.
    check: Option<(Instant, u32)>,
    /// When that was.
    talked_at: Instant,
}

// === impl DatagramLink ===

impl DatagramLink {
    /// Connects: the handshake is over on return, and nobody has logged in.
    pub(super) async fn connect(
        server: SocketAddr,
        pins: ServerPins,
        ticket: Option<Ticket>,
    ) -> Result<Self, LinkError> {
        let ticket = ticket.map(|it| (it.pin, it.ticket));
        let (attempt, ephemeral) = (rand::random(), rand::random());
        let config = Arc::new(config());
        let began = Instant::now();
        let mut link = Self {
            socket: socket::open(server)?,
            server,
            session: ClientConnection::connect(0, pins, ticket, attempt, ephemeral, config),
            began,
            timer: Box::pin(tokio::time::sleep_until(began)),
            outgoing: Vec::with_capacity(DATAGRAM_MAX_BYTES),
            received: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pin: None,
            ticket: None,
            is_refused: false,
            has_rebound: false,
            is_cut: false,
            silent_after: SILENT_AFTER,
            awaits_answer: false,
            check: None,
            talked_at: began,
        };
        std::future::poll_fn(|cx| link.poll_open(cx)).await?;
        Ok(link)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let is_blocked = self.flush(cx);
            if self.session.is_open() {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.session.failure() {
                return Poll::Ready(Err(error.into()));
            }
            if self.is_refused {
                return Poll::Ready(Err(refused()));
            }
            if self.receive_batch(cx) == 0 && (is_blocked || self.poll_timer(cx).is_pending()) {
                return Poll::Pending;
            }
        }
    }

    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), LinkError> {
        let bytes = encode_packet(packet, FRAME_MAX_BYTES)
            .map_err(|error| LinkError::BadFrame(error.to_string()))?;
        self.waiting_bytes += bytes.len();
        self.begin_checks();
        self.waiting
            .push_back((Channel::of_client_packet(packet, bytes.len()), bytes));
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        let session = self.session.session();
        self.waiting_bytes + session.map_or(0, |session| session.send_bytes())
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        loop {
            self.check_silence();
            self.check_address();
            let is_blocked = self.flush(cx);
            if let Some(packet) = self.next_received() {
                return Poll::Ready(packet);
            }
            if let Some(end) = self.session.end() {
                return Poll::Ready(Err(end.into()));
            }
            let is_silent = self.silence().is_some_and(|it| it >= GONE_AFTER);
            if self.is_refused && is_silent {
                return Poll::Ready(Err(refused()));
            }
            if self.receive_batch(cx) == 0 && (is_blocked || self.poll_timer(cx).is_pending()) {
                return Poll::Pending;
            }
        }
    }

    pub(super) fn next_received(&mut self) -> Option<Result<Packet, LinkError>> {
        loop {
            if self.received.is_empty() {
                let received = &mut self.received;
                self.session
                    .drain(&mut |_, message: &[u8]| keep(received, message));
            }
            match decode_packet_bytes(self.received.pop_front()?) {
                Ok(packet) => return Some(Ok(packet)),
                Err(FrameError::UnknownPacket { .. }) => {}
                Err(error) => return Some(Err(LinkError::BadFrame(error.to_string()))),
            }
        }
    }

    /// Waits until all has arrived, then says that it is over.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let is_blocked = self.flush(cx);
            self.received.clear();
            if self.session.end().is_some() || self.queued_bytes() == 0 {
                // The CLOSE goes with the drop.
                return Poll::Ready(Ok(()));
            }
            if self.receive_batch(cx) == 0 && (is_blocked || self.poll_timer(cx).is_pending()) {
                return Poll::Pending;
            }
        }
    }

    pub(super) fn cut(mut self) {
        self.is_cut = true;
    }

    pub(super) fn keep_alive(&mut self, heartbeat: Duration) {
        let config = kept_alive(&config(), heartbeat);
        self.session.configure(Arc::new(config));
    }

    pub(super) fn expect_answer(&mut self, is_expected: bool) {
        if self.awaits_answer != is_expected {
            self.awaits_answer = is_expected;
            self.begin_checks();
        }
    }

    /// A message has come or gone.
    fn begin_checks(&mut self) {
        let after = if self.awaits_answer {
            CHECK_SOON
        } else {
            CHECK_AFTER
        };
        self.talked_at = Instant::now();
        self.check = Some((self.talked_at + after, 0));
    }

    fn check_address(&mut self) {
        let now = Instant::now();
        if self.session.take_moved()
            && !self.awaits_answer
            && now.duration_since(self.talked_at) < WATCHED
        {
            self.check = Some((now + CHECK_AFTER, 0));
        }
        let Some((_, pings)) = self.check.take_if(|(at, _)| *at <= now) else {
            return;
        };
        let now_us = self.now_us();
        self.session.ping(now_us);
        let pings = (pings + 1).min(CHECK_DOUBLINGS_MAX);
        if self.awaits_answer {
            self.check = Some((now + CHECK_SOON * (1 << pings), pings));
        } else if pings < CHECKS_MAX {
            self.check = Some((now + CHECK_AFTER * (1 << pings), pings));
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        let silence = self.silence();
        silence.is_some_and(|silence| silence >= self.silent_after)
    }

    fn silence(&self) -> Option<Duration> {
        self.silent_since().map(|since| since.elapsed())
    }

    fn silent_since(&self) -> Option<Instant> {
        let since_us = self.session.session()?.silent_since_us()?;
        Some(self.began + Duration::from_micros(since_us))
    }

    /// Another network carries the packets from now on.
    pub(crate) fn change_network(&mut self) {
        self.silent_after = SILENT_AFTER_CHANGE;
        self.rebind();
    }

    /// Goes on from another socket, and tells the server.
    fn rebind(&mut self) {
        match socket::open(self.server) {
            Ok(socket) => self.socket = socket,
            // As long as there is no network; the next silence tries again.
            Err(error) => tracing::debug!(%error, "no other socket"),
        }
        // A datagram on its way went to the old one's address; it is lost.
        self.outgoing.clear();
        self.session.rebind(self.now_us());
    }

    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// A smoothed round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        let round_trip_us = self.session.session()?.round_trip_us()?;
        Some(Duration::from_micros(round_trip_us))
    }

    fn check_silence(&mut self) {
        match self.silence() {
            Some(silence) if silence >= REBIND_AFTER && !self.has_rebound => {
                self.has_rebound = true;
                self.rebind();
            }
            Some(_) => {}
            None => {
                self.is_refused = false;
                self.has_rebound = false;
                self.silent_after = SILENT_AFTER;
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Does what is due, and sends what may go. True if the socket takes no more.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let now_us = self.now_us();
        self.session.on_timeout(now_us);
        loop {
            self.feed(now_us);
            if self.outgoing.is_empty()
                && self.session.transmit(now_us, &mut self.outgoing).is_none()
            {
                return false;
            }
            match self.socket.poll_send(cx, &self.outgoing) {
                Poll::Pending => return true,
                Poll::Ready(Ok(_)) => {}
                // Lost, as on any network; the session sends it again.
                Poll::Ready(Err(error)) => self.note(&error),
            }
            self.outgoing.clear();
        }
    }

    /// Hands on to the session what it has room for.
    fn feed(&mut self, now_us: u64) {
        if !self.session.is_open() {
            return;
        }
        while let Some((channel, bytes)) = self.waiting.front() {
            match self.session.send(now_us, *channel, bytes.clone()) {
                Err(SendError::Full) => return,
                Ok(()) | Err(SendError::TooLarge { .. } | SendError::Empty | SendError::Closed) => {
                }
            }
            self.waiting_bytes -= bytes.len();
            self.waiting.pop_front();
        }
        self.waiting = VecDeque::new();
    }

    /// Takes what has come, up to a batch; how many datagrams that were.
    fn receive_batch(&mut self, cx: &mut Context<'_>) -> usize {
        for taken in 0..BATCH_MAX {
            let mut scratch = [MaybeUninit::uninit(); DATAGRAM_MAX_BYTES];
            let mut read = ReadBuf::uninit(&mut scratch);
            match self.socket.poll_recv(cx, &mut read) {
                Poll::Pending => return taken,
                Poll::Ready(Ok(())) => self.receive(read.filled_mut()),
                Poll::Ready(Err(error)) => self.note(&error),
            }
        }
        BATCH_MAX
    }

    fn receive(&mut self, datagram: &mut [u8]) {
        let now_us = self.now_us();
        let had = self.received.len();
        let received = &mut self.received;
        let taken = self
            .session
            .receive(now_us, datagram, &mut |_, message: &[u8]| {
                keep(received, message)
            });
        if self.received.len() > had {
            self.begin_checks();
        }
        if let Err(error) = taken {
            tracing::trace!(%error, "a datagram was passed over");
        }
        if let Some((pin, ticket)) = self.session.take_ticket() {
            self.pin = Some(pin);
            self.ticket = Some(Ticket { pin, ticket });
        }
        // A fresh one for the address that the client has moved to.
        if let Some(token) = self.session.take_token()
            && let (Some(pin), Ok(bytes)) = (self.pin, <[u8; _]>::try_from(&*token))
        {
            let ticket = AddressTicket::from_bytes(bytes);
            self.ticket = Some(Ticket { pin, ticket });
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.session.timeout();
        let session = session.map(|at_us| self.began + Duration::from_micros(at_us));
        let silence = self.silent_since().into_iter().flat_map(|since| {
            let rebind = (!self.has_rebound).then_some(since + REBIND_AFTER);
            let silent = (!self.is_silent()).then_some(since + self.silent_after);
            let gone = self.is_refused.then_some(since + GONE_AFTER);
            [rebind, silent, gone].into_iter().flatten()
        });
        let check = self.check.map(|(at, _)| at);
        let Some(at) = session.into_iter().chain(silence).chain(check).min() else {
            return Poll::Pending;
        };
        let at = at.max(Instant::now() + TICK);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx)
    }

    fn note(&mut self, error: &io::Error) {
        self.is_refused |= error.kind() == io::ErrorKind::ConnectionRefused;
        tracing::trace!(%error, "a datagram was not sent or received");
    }
}

/// Tells the server, so that it needn't wait for the end of a silence.
impl Drop for DatagramLink {
    fn drop(&mut self) {
        if self.is_cut || !self.session.is_open() || self.session.end().is_some() {
            return;
        }
        let now_us = self.now_us();
        self.feed(now_us);
        self.session.close(now_us, LEFT_CODE, "");
        self.outgoing.clear();
        if self.session.transmit(now_us, &mut self.outgoing).is_some() {
            // Nobody is left to be told that it failed.
            let _ = self.socket.try_send(&self.outgoing);
        }
    }
}

fn config() -> Config {
    Config {
        silence_ms: GIVE_UP_AFTER_MS,
        ..Config::default()
    }
}

fn refused() -> LinkError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}
