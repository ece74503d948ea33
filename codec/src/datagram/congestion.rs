//! How much may be under way, and how fast it is let go.
//!
//! A phone's radio loses packets without any queue being full, and a controller
//! that halves at each loss (NewReno, CUBIC) stands still at 5 %. A model of the
//! bottleneck's rate (BBR) needs samples that a chat, which sends a packet now and
//! then, never gives. So this is NewReno (RFC 9002, section 7) with another answer to loss:
//!
//! - In proportion: a round that lost a tenth makes the window smaller by a
//!   fortieth. With a datagram more each round the window stands at 4 / loss
//!   datagrams: 80 at 5 %, 20 at 20 %, where NewReno has 5 and 3. At a bottleneck
//!   without a queue it goes over what fits by four datagrams.
//! - By three tenths, where one of these tells of congestion: the shortest round
//!   trip of the last round is well above the path's, so a queue stands somewhere
//!   (jitter doesn't raise the shortest); or more than a third was lost.
//! - To the least, where several probes brought nothing (persistent congestion).
//!
//! And it yields before anything is lost: slow start ends when the shortest round
//! trip begins to rise (the idea of HyStart) or a quarter is lost, and the window shrinks by an eighth a round
//! while a queue of half a round trip stands, so a bulk doesn't make a chat wait. A session that doesn't use up its
//! window neither grows nor shrinks by proportion.
//!
//! Bytes are those of the UDP payload. All state is given up when a session falls idle:
//! after it the window is that of a new path again (RFC 9002, section 7.8).

use super::config::DATAGRAM_MIN_BYTES;

const DATAGRAM: u64 = DATAGRAM_MIN_BYTES as u64;
/// The window of a new path.
const WINDOW_FIRST: u64 = 10 * DATAGRAM;
/// A window never falls below it.
const WINDOW_MIN: u64 = 4 * DATAGRAM;
/// Losses alone, in proportion, don't make it smaller than this.
const WINDOW_LOSSY: u64 = 6 * DATAGRAM;
/// A window never rises above it: twice what a session can have in its send buffer.
const WINDOW_MAX: u64 = 512 * 1024;
/// Datagrams that may go at once.
const BURST: u64 = 10 * DATAGRAM;
/// The shortest round trip is measured anew after this long.
const FLOOR_EXPIRES_US: u64 = 10_000_000;
/// Until the queue has gone, and one in which it is gone.
const FLOOR_ROUNDS: u8 = 3;
/// A round with fewer packets says nothing of the rate of loss.
const ROUND_MIN_PACKETS: u32 = 40;

/// Window and pacing of one path.
#[derive(Debug)]
pub(crate) struct Congestion {
    window: u64,
    /// Above it the window grows by a datagram a round.
    threshold: u64,
    in_flight: u64,
    round: Round,
    /// Shortest round trip of the path, and when it was measured.
    floor_us: u64,
    floor_at_us: u64,
    /// Rounds left in which the floor is measured anew, with the least window:
    /// otherwise our own queue would come to be taken for the path.
    floor_rounds: u8,
    /// Shortest round trip of the round before.
    last_round_us: u64,
    /// Bytes that may go at once, as of `refilled_us`.
    tokens: u64,
    refilled_us: u64,
}

/// What was seen since a packet that was newest when the round began.
#[derive(Debug)]
struct Round {
    /// The round is over when this packet or a later one is acknowledged.
    ends_at: u64,
    shortest_us: u64,
    acked: u32,
    lost: u32,
    /// The window held the sender back.
    was_full: bool,
    has_shrunk: bool,
}

// === impl Congestion ===

impl Congestion {
    /// Of a new path.
    pub(crate) fn new(now_us: u64) -> Self {
        Self {
            window: WINDOW_FIRST,
            threshold: u64::MAX,
            in_flight: 0,
            round: Round::begin(0),
            floor_us: u64::MAX,
            floor_at_us: now_us,
            floor_rounds: 0,
            last_round_us: 0,
            tokens: BURST,
            refilled_us: now_us,
        }
    }

    /// Whether a datagram more may be under way.
    pub(crate) fn has_room(&self) -> bool {
        let window = match self.floor_rounds {
            0 => self.window,
            _ => WINDOW_MIN,
        };
        self.in_flight + DATAGRAM <= window
    }

    /// A packet that must be acknowledged was sent.
    pub(crate) fn on_sent(&mut self, now_us: u64, bytes: u64, smoothed_us: u64) {
        self.tokens = self.tokens_at(now_us, smoothed_us).saturating_sub(bytes);
        self.refilled_us = now_us;
        self.in_flight += bytes;
    }

    /// A packet is no longer under way, for a reason that says nothing of the path.
    pub(crate) fn forget(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// A packet was acknowledged. `was_full`: the window, and not the want of
    /// something to send, had held the sender back.
    pub(crate) fn on_acked(&mut self, bytes: u64, was_full: bool) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.round.acked += 1;
        self.round.was_full |= was_full;
        if !was_full || self.has_queue() {
            return;
        }
        self.window += if self.window < self.threshold {
            bytes
        } else {
            DATAGRAM * bytes / self.window
        };
        self.window = self.window.min(WINDOW_MAX);
    }

    /// A packet was lost.
    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.round.lost += 1;
    }

    /// A round trip was measured.
    pub(crate) fn on_rtt(&mut self, now_us: u64, sample_us: u64) {
        if sample_us <= self.floor_us {
            self.floor_us = sample_us;
            self.floor_at_us = now_us;
        } else if now_us.saturating_sub(self.floor_at_us) > FLOOR_EXPIRES_US {
            self.floor_at_us = now_us;
            if self.has_queue_or_longer_path() {
                self.floor_rounds = FLOOR_ROUNDS;
            }
        }
        self.round.shortest_us = self.round.shortest_us.min(sample_us);
    }

    /// After an ACK, and after losses were found. `largest`: newest packet
    /// acknowledged; `next`: the one that will be sent next.
    pub(crate) fn end_of_ack(&mut self, largest: u64, next: u64) {
        if self.round.lost > 0 && !self.round.has_shrunk && self.is_congested() {
            self.shrink();
        }
        if largest < self.round.ends_at {
            return;
        }
        if self.window < self.threshold && self.has_queue_begun() {
            self.threshold = self.window;
        }
        if self.floor_rounds > 0 {
            self.floor_rounds -= 1;
            if self.floor_rounds == 0 {
                self.floor_us = self.round.shortest_us;
            }
        } else if self.round.was_full && self.has_queue() {
            self.window = (self.window - self.window / 8).max(WINDOW_MIN);
            self.threshold = self.window;
        }
        if self.round.was_full && !self.round.has_shrunk {
            let packets = u64::from(self.round.acked + self.round.lost).max(1);
            let less = self.window * u64::from(self.round.lost) / packets / 4;
            self.window = (self.window - less).max(WINDOW_LOSSY.min(self.window));
            if u64::from(self.round.lost) * 4 >= packets {
                self.threshold = self.threshold.min(self.window);
            }
        }
        self.last_round_us = self.round.shortest_us;
        self.round = Round::begin(next);
    }

    /// Nothing was acknowledged for several probes.
    pub(crate) fn on_persistent(&mut self) {
        self.threshold = (self.window / 2).max(WINDOW_MIN);
        self.window = WINDOW_MIN;
    }

    /// When the next packet may go, none if now.
    pub(crate) fn paced_until_us(&self, now_us: u64, smoothed_us: u64) -> Option<u64> {
        let tokens = self.tokens_at(now_us, smoothed_us);
        if tokens >= DATAGRAM {
            return None;
        }
        // Rounded up: a timer that is early by a byte would come again and again.
        let wait_us = ((DATAGRAM - tokens) * smoothed_us.max(1)).div_ceil(self.rate());
        Some(now_us + wait_us)
    }

    /// Bytes a round trip: 1.25 windows (RFC 9002, section 7.7).
    fn rate(&self) -> u64 {
        self.window * 5 / 4
    }

    fn tokens_at(&self, now_us: u64, smoothed_us: u64) -> u64 {
        let smoothed_us = smoothed_us.max(1);
        let passed_us = now_us.saturating_sub(self.refilled_us).min(smoothed_us);
        (self.tokens + self.rate() * passed_us / smoothed_us).min(BURST)
    }

    fn is_congested(&self) -> bool {
        if self.has_queue_or_longer_path() {
            return true;
        }
        let packets = self.round.acked + self.round.lost;
        packets >= ROUND_MIN_PACKETS && self.round.lost * 20 > packets * 7
    }

    /// The shortest round trip of late is well above the path's.
    fn has_queue_or_longer_path(&self) -> bool {
        let shortest_us = self.last_shortest_us();
        let queue_us = (self.floor_us / 4).max(10_000);
        shortest_us != u64::MAX && shortest_us > self.floor_us.saturating_add(queue_us)
    }

    /// A queue of half a round trip.
    fn has_queue(&self) -> bool {
        let shortest_us = self.last_shortest_us();
        let queue_us = (self.floor_us / 2).max(20_000);
        shortest_us != u64::MAX && shortest_us > self.floor_us.saturating_add(queue_us)
    }

    fn last_shortest_us(&self) -> u64 {
        match self.last_round_us {
            0 | u64::MAX => self.round.shortest_us,
            last => last.min(self.round.shortest_us),
        }
    }

    fn has_queue_begun(&self) -> bool {
        let shortest_us = self.round.shortest_us;
        let rise_us = (self.floor_us / 8).clamp(4_000, 16_000);
        self.round.acked >= 8
            && shortest_us != u64::MAX
            && shortest_us > self.floor_us.saturating_add(rise_us)
    }

    fn shrink(&mut self) {
        self.round.has_shrunk = true;
        self.window = (self.window * 7 / 10).max(WINDOW_MIN);
        self.threshold = self.window;
    }
}

// === impl Round ===

impl Round {
    fn begin(next: u64) -> Self {
        Self {
            ends_at: next,
            shortest_us: u64::MAX,
            acked: 0,
            lost: 0,
            was_full: false,
            has_shrunk: false,
        }
    }
}
