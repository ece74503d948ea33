//! One session: messages to the payloads of packets and back, whatever the
//! network does to these in between.
//!
//! No sockets, no clock, no keys, no addresses: packets come in opened
//! ([`Session::receive`]) and go out to be sealed ([`Session::transmit`]), time is
//! an argument. After each call the caller sends what `transmit` gives until it
//! gives nothing, and calls [`Session::on_timeout`] when [`Session::timeout`] has come.
//!
//! A session between two messages is this struct alone, without heap. What is
//! needed only while something is under way lies in [`Active`], which is kept for
//! a second after the last message and then dropped. From then on the session may
//! sleep as some fifty bytes ([`Session::pack`]).
//!
//! Loss recovery is that of RFC 9002: frames of lost packets go out again in new
//! packets, so that every ACK gives an unambiguous round trip.

mod active;
mod packed;
mod receive;
mod recovery;
mod transmit;

use std::sync::Arc;

use bytes::Bytes;

use self::active::Active;
use super::{
    Channel, Config, End, SendError, Violation, config::DATAGRAM_MIN_BYTES, credit::Credit,
    frame::TOKEN_MAX_BYTES, incoming::Sink, keepalive::Keepalive, numbers::ChannelNumbers,
    rtt::Rtt,
};

pub use receive::{Received, Source};
pub use transmit::Transmit;

/// The state of a session is kept for this long after the last message.
const LINGER_US: u64 = 1_000_000;

/// Which end of a session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It pings, and its address may change.
    Client,
    /// It proves the client's address.
    Server,
}

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    active: Option<Box<Active>>,
    config: Arc<Config>,
    numbers: ChannelNumbers,
    /// Number of the next packet.
    next_packet: u64,
    /// One above the largest packet that the peer acknowledged.
    acked_next: u64,
    /// One above the largest packet received, while `active` is none.
    received_next: u64,
    last_received_us: u64,
    last_sent_us: u64,
    rtt: Rtt,
    credit: Credit,
    keepalive: Keepalive,
    /// Size of a datagram that this path is known to carry.
    datagram_bytes: u16,
    /// Packets by which another may be overtaken before it counts as lost.
    patience: u8,
    side: Side,
    end: Option<End>,
}

// === impl Session ===

impl Session {
    /// A session whose handshake is over. `round_trip_us`: that of the
    /// handshake, if it was measured.
    pub fn new(side: Side, config: Arc<Config>, now_us: u64, round_trip_us: Option<u64>) -> Self {
        let mut session = Self {
            active: None,
            keepalive: Keepalive::new(&config),
            config,
            numbers: ChannelNumbers::default(),
            next_packet: 0,
            acked_next: 0,
            received_next: 0,
            last_received_us: now_us,
            last_sent_us: now_us,
            rtt: Rtt::new(),
            credit: Credit::new(),
            datagram_bytes: DATAGRAM_MIN_BYTES,
            patience: recovery::PATIENCE_MIN,
            side,
            end: None,
        };
        session.begin(now_us, round_trip_us);
        session
    }

    /// The handshake is over; what was sent before may go out now.
    pub(crate) fn begin(&mut self, now_us: u64, round_trip_us: Option<u64>) {
        if let Some(sample_us) = round_trip_us {
            self.rtt.sample(sample_us, 0);
        }
        self.last_received_us = now_us;
        self.last_sent_us = now_us;
    }

    /// Other bounds hold from now on; of those of the keepalive only lower ones.
    pub(crate) fn configure(&mut self, config: Arc<Config>) {
        self.keepalive.rebound(&config);
        self.config = config;
    }

    /// Takes a message for sending. It is shared, not copied.
    pub fn send(&mut self, now_us: u64, channel: Channel, payload: Bytes) -> Result<(), SendError> {
        if self.end.is_some() {
            return Err(SendError::Closed);
        }
        let id = self.numbers.of(channel).send;
        let active = self.activate(now_us);
        active.outgoing.push(channel, id, payload)?;
        active.had_messages = true;
        let numbers = self.numbers.of(channel);
        numbers.send = numbers.send.wrapping_add(1);
        Ok(())
    }

    /// Hands on reliable messages that the sink had no room for. To be called
    /// when it has room again.
    pub fn drain(&mut self, sink: &mut Sink<'_>) {
        if let Some(active) = &mut self.active {
            active.incoming.drain(&mut self.credit, sink);
            active.is_credit_due |= self.credit.should_tell();
        }
    }

    /// Whether messages lie here that the sink had no room for.
    pub fn has_ready(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|it| it.incoming.has_ready())
    }

    /// Hands `token` to the peer, which finds it in [`Session::take_token`]; again
    /// until it is acknowledged. At most 512 bytes; a newer one takes the
    /// place of one that is under way.
    pub fn send_token(&mut self, now_us: u64, token: &[u8]) {
        if self.end.is_none() && token.len() <= TOKEN_MAX_BYTES {
            let active = self.activate(now_us);
            active.token_out = Some(token.into());
            active.is_token_due = true;
        }
    }

    /// The token that came from the peer, once.
    pub fn take_token(&mut self) -> Option<Box<[u8]>> {
        self.active.as_mut()?.token_in.take()
    }

    /// Ends the session. What waits goes out with the CLOSE as far as it fits in
    /// one packet. The state need not be kept after [`Session::transmit`] gave
    /// that; if it is, packets of a peer that missed it are answered by it.
    pub fn close(&mut self, now_us: u64, code: u16, reason: &str) {
        if self.end.is_none() {
            self.end = Some(End::Closed(code));
            self.begin_close(now_us, code, reason.as_bytes());
        }
    }

    /// The peer answered that it doesn't know the session.
    pub fn on_reset(&mut self) {
        self.finish(End::Forgotten);
    }

    /// Why the session has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Has the peer answer: it shows that it is there, and sees this side's address
    /// should that be another one by now.
    pub fn ping(&mut self, now_us: u64) {
        if self.end.is_none() {
            self.activate(now_us).is_ping_due = true;
        }
    }

    /// The network of this side has changed (client): forgets what was learnt of
    /// the old path and lets the server see the new address soon.
    pub fn rebind(&mut self, now_us: u64) {
        if self.end.is_none() {
            self.keepalive = Keepalive::new(&self.config);
            self.activate(now_us);
            self.reset_path(now_us);
            if let Some(active) = &mut self.active {
                active.is_ping_due = true;
                active.is_padding_due = true;
            }
        }
    }

    /// Whether the peer didn't prove its new address, once. The caller goes back to
    /// the old one, if it has one, by [`Session::return_to_old_path`].
    pub fn take_path_failure(&mut self) -> bool {
        let active = self.active.as_mut();
        active.is_some_and(|active| std::mem::take(&mut active.has_path_failed))
    }

    /// Packets go to an address again that was proven before.
    pub fn return_to_old_path(&mut self, now_us: u64) {
        if self.end.is_none() {
            self.activate(now_us);
            self.reset_path(now_us);
            self.settle(now_us);
        }
    }

    /// Number of the next packet. A header holds as many of its bytes as tell it
    /// from all since [`Session::acked_next`].
    pub fn next_packet(&self) -> u64 {
        self.next_packet
    }

    /// One above the largest packet that the peer acknowledged.
    pub fn acked_next(&self) -> u64 {
        self.acked_next
    }

    /// One above the largest packet received; a truncated number is completed by it.
    pub fn received_next(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(self.received_next, |active| active.received.next())
    }

    /// Whether `number` has not come before; to be asked after the packet was
    /// opened, or before it to save the work.
    pub fn is_new(&self, number: u64) -> bool {
        match &self.active {
            Some(active) => active.received.is_new(number),
            None => number >= self.received_next,
        }
    }

    /// Bytes that wait for sending or for an ACK, with their overhead.
    pub fn send_bytes(&self) -> usize {
        self.active.as_ref().map_or(0, |it| it.outgoing.bytes())
    }

    /// Smoothed round trip, in microseconds; none before the first.
    pub fn round_trip_us(&self) -> Option<u64> {
        self.rtt.is_measured().then(|| self.rtt.smoothed_us())
    }

    /// Since when something is under way that the peer must answer, and nothing at
    /// all has come from it; none if that is not so.
    pub fn silent_since_us(&self) -> Option<u64> {
        let active = self.active.as_ref()?;
        (active.waiting_since_us != u64::MAX).then_some(active.waiting_since_us)
    }

    /// Size of a datagram that the path carries.
    pub fn datagram_bytes(&self) -> u16 {
        self.datagram_bytes
    }

    /// Heap that the session holds, in bytes, without the payloads to be sent
    /// (they are shared) and without the allocator's own.
    pub fn heap_bytes(&self) -> usize {
        let active = self.active.as_ref().map_or(0, |it| it.heap_bytes());
        active + self.numbers.heap_bytes()
    }

    fn activate(&mut self, now_us: u64) -> &mut Active {
        self.active.get_or_insert_with(|| {
            Box::new(Active::new(now_us, self.next_packet, self.received_next))
        })
    }

    fn fail(&mut self, now_us: u64, violation: Violation) {
        if self.end.is_none() {
            self.end = Some(End::Violated(violation));
            self.begin_close(now_us, violation.close_code(), b"");
        }
    }

    fn begin_close(&mut self, now_us: u64, code: u16, reason: &[u8]) {
        let active = self.activate(now_us);
        active.closing = Some(active::Closing::new(code, reason));
    }

    /// Ends without a word.
    pub(crate) fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        self.received_next = self.received_next();
        self.active = None;
    }

    /// Drops what is needed only while something is under way, when nothing is.
    fn settle(&mut self, now_us: u64) {
        let Some(active) = &mut self.active else {
            return;
        };
        if !active.is_quiet() {
            active.linger_until_us = u64::MAX;
            return;
        }
        if active.linger_until_us == u64::MAX {
            let lingers = active.had_messages || active.received.has_gaps();
            active.linger_until_us = now_us + if lingers { LINGER_US } else { 0 };
        }
        if now_us >= active.linger_until_us {
            self.received_next = active.received.next();
            self.active = None;
        }
    }
}
