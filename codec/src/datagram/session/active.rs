//! What a session holds only while something is under way.

use super::super::{
    config::ACK_DELAY_MAX_US, congestion::Congestion, credit::Credit, incoming::Incoming,
    mtu::MtuSearch, outgoing::Outgoing, path::PathCheck, received::Received, sent::Sent,
};

use super::recovery::PROBE_BYTES;

/// CLOSE frames sent at most.
const CLOSES_MAX: u8 = 8;

/// All that an idle session doesn't need.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) received: Received,
    pub(super) sent: Sent,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) congestion: Congestion,
    pub(super) mtu: MtuSearch,
    pub(super) path: Option<PathCheck>,
    pub(super) closing: Option<Closing>,
    pub(super) token_out: Option<Box<[u8]>>,
    pub(super) token_in: Option<Box<[u8]>>,
    /// The answer that a challenge of the peer awaits.
    pub(super) response: Option<u64>,
    /// Packets below went out on a path that was left.
    pub(super) path_first: u64,
    /// When the oldest packet not acknowledged would be lost by time.
    pub(super) loss_at_us: u64,
    /// When the last probe went out.
    pub(super) probed_us: u64,
    /// When one was first sent since anything came; `u64::MAX` if none was.
    pub(super) waiting_since_us: u64,
    pub(super) linger_until_us: u64,
    /// How long the peer holds ACKs back, by those of late.
    pub(super) held_us: u64,
    /// The longest round trip of late, less what the peer held its ACK back; 0 before the first.
    pub(super) longest_us: u64,
    /// Probes without an ACK in between.
    pub(super) probe_count: u8,
    /// Packets that may go although the window is full.
    pub(super) probes_due: u8,
    pub(super) is_ping_due: bool,
    /// The next packet is to be long, so that the answer to it may be.
    pub(super) is_padding_due: bool,
    pub(super) is_credit_due: bool,
    pub(super) is_token_due: bool,
    /// The new address was given up; the caller has to go back to the old one.
    pub(super) has_path_failed: bool,
    pub(super) had_messages: bool,
}

/// A session that ends by a CLOSE.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) code: u16,
    pub(super) reason: Box<[u8]>,
    pub(super) is_due: bool,
    sent: u8,
}

// === impl Active ===

impl Active {
    pub(super) fn new(now_us: u64, next_packet: u64, received_next: u64) -> Self {
        Self {
            received: Received::new(received_next),
            sent: Sent::new(next_packet),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            congestion: Congestion::new(now_us),
            mtu: MtuSearch::default(),
            path: None,
            closing: None,
            token_out: None,
            token_in: None,
            response: None,
            path_first: 0,
            loss_at_us: u64::MAX,
            probed_us: 0,
            waiting_since_us: u64::MAX,
            linger_until_us: u64::MAX,
            held_us: ACK_DELAY_MAX_US,
            longest_us: 0,
            probe_count: 0,
            probes_due: 0,
            is_ping_due: false,
            is_padding_due: false,
            is_credit_due: false,
            is_token_due: false,
            has_path_failed: false,
            had_messages: false,
        }
    }

    /// Whether nothing is under way, so that all this could go.
    pub(super) fn is_quiet(&self) -> bool {
        self.sent.in_flight() == 0
            && self.outgoing.is_empty()
            && self.incoming.is_empty()
            && self.received.ack_at_us().is_none()
            && self.path.is_none()
            && self.closing.is_none()
            && self.token_out.is_none()
            && self.token_in.is_none()
            && self.response.is_none()
            && self.probes_due == 0
            && !self.is_ping_due
            && !self.is_credit_due
            && !self.has_path_failed
    }

    /// Whether a message could be put into a packet now.
    pub(super) fn has_load(&self, credit: &Credit) -> bool {
        self.outgoing.has_sendable(credit) || (self.probes_due > 0 && self.outgoing.has_echo())
    }

    /// Whether a frame waits that is sent whatever the window says.
    pub(super) fn has_control(&self) -> bool {
        self.is_ping_due
            || self.is_credit_due
            || self.is_token_due
            || self.response.is_some()
            || self
                .path
                .as_ref()
                .is_some_and(|it| it.challenge().is_some())
    }

    /// An ACK was held back for so long, from the first packet on that it tells.
    pub(super) fn learn_held(&mut self, held_us: u64) {
        let held_us = held_us.min(ACK_DELAY_MAX_US);
        self.held_us =
            held_us.max(self.held_us - self.held_us.saturating_sub(held_us).div_ceil(16));
    }

    /// A round trip was measured.
    pub(super) fn learn_longest(&mut self, sample_us: u64, smoothed_us: u64) {
        let over_us = self.longest_us.saturating_sub(smoothed_us);
        self.longest_us = sample_us.max(self.longest_us - over_us / 16);
    }

    /// What is under way may have gone to where nobody is any more: some of it is
    /// sent again at once.
    pub(super) fn repeat_under_way(&mut self, now_us: u64) {
        self.probe_count = 0;
        self.probed_us = now_us;
        if self.sent.in_flight() > 0 {
            self.probes_due = 1;
            self.outgoing.make_due(PROBE_BYTES, u64::MAX);
        }
    }

    /// Bytes that may go to the peer's address, while it isn't proven.
    pub(super) fn room_bytes(&self) -> u64 {
        if self.has_path_failed {
            return 0; // until the caller has gone back to the old one
        }
        self.path.as_ref().map_or(u64::MAX, PathCheck::room_bytes)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.sent.heap_bytes()
            + self.outgoing.heap_bytes()
            + self.incoming.heap_bytes()
            + self.token_out.as_ref().map_or(0, |token| token.len())
            + self.token_in.as_ref().map_or(0, |token| token.len())
    }
}

// === impl Closing ===

impl Closing {
    pub(super) fn new(code: u16, reason: &[u8]) -> Self {
        Self {
            code,
            reason: reason.into(),
            is_due: true,
            sent: 0,
        }
    }

    /// A packet of the peer came: it has not got the CLOSE.
    pub(super) fn on_received(&mut self) {
        self.is_due = self.sent < CLOSES_MAX;
    }

    pub(super) fn on_sent(&mut self) {
        self.is_due = false;
        self.sent += 1;
    }
}
