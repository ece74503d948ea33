//! ACKs, losses, probes, and all that time alone brings about (RFC 9002).

use super::super::{
    End, Violation,
    config::{ACK_DELAY_MAX_US, DATAGRAM_MIN_BYTES},
    congestion::Congestion,
    frame::Ack,
    mtu::MtuSearch,
    rtt::{PROBE_MAX_US, Rtt},
    sent::{Kind, Packet, SentFrame},
};
use super::{Active, Session, Side, transmit};

/// Packets by which another may be overtaken before it counts as lost, at first
/// (RFC 9002, section 6.1.1). It rises where the network reorders more.
pub(super) const PATIENCE_MIN: u8 = 3;
const PATIENCE_MAX: u8 = 6;
/// What a probe carries again, about.
pub(super) const PROBE_BYTES: usize = DATAGRAM_MIN_BYTES as usize - 100;
/// Probes without an answer after which the window is that of a dead path.
const PERSISTENT_PROBES: u8 = 3;

impl Session {
    /// An ACK frame came.
    pub(super) fn on_ack(
        &mut self,
        now_us: u64,
        active: &mut Active,
        ack: &Ack,
    ) -> Result<(), Violation> {
        let Some((_, largest)) = ack.ranges().first().copied() else {
            return Ok(());
        };
        if largest >= self.next_packet {
            return Err(Violation::AckOfUnsent);
        }
        self.acked_next = self.acked_next.max(largest + 1);
        let was_full = !active.congestion.has_room() || active.outgoing.bytes() > 64 * 1024;
        let mut is_news = false;
        // Also where the largest asks for no ACK itself.
        let largest_us = active.sent.sent_us(largest);
        let mut oldest_us = u64::MAX;
        let numbers = active.sent.numbers();
        for (low, high) in ack.ranges() {
            // Only numbers that have a record are walked through, however far a
            // range goes.
            for number in (*low).max(numbers.start)..=(*high).min(numbers.end.saturating_sub(1)) {
                let Some((packet, was_lost)) = active.sent.acknowledge(number) else {
                    continue;
                };
                if packet.kind != Kind::Silent && number >= active.path_first {
                    oldest_us = oldest_us.min(packet.sent_us);
                    if number == largest {
                        self.on_round_trip(now_us, active, &packet, ack.delay_us);
                    }
                }
                is_news |= packet.kind != Kind::Silent;
                self.on_packet_acked(active, number, &packet, was_lost, was_full);
            }
        }
        if is_news {
            active.probe_count = 0;
        }
        if let Some(apart_us) = largest_us.and_then(|at_us| at_us.checked_sub(oldest_us)) {
            active.learn_held(apart_us + ack.delay_us);
        }
        self.find_losses(now_us, active);
        active.congestion.end_of_ack(largest, self.next_packet);
        let keep_us = 2 * self.rtt.probe_us(0, ACK_DELAY_MAX_US);
        active.sent.trim(now_us.saturating_sub(keep_us));
        Ok(())
    }

    fn on_round_trip(&mut self, now_us: u64, active: &mut Active, packet: &Packet, delay_us: u64) {
        let sample_us = now_us.saturating_sub(packet.sent_us);
        self.rtt.sample(sample_us, delay_us.min(ACK_DELAY_MAX_US));
        let path_us = sample_us.saturating_sub(delay_us.min(ACK_DELAY_MAX_US));
        active.congestion.on_rtt(now_us, path_us);
        active.learn_longest(path_us, self.rtt.smoothed_us());
    }

    fn on_packet_acked(
        &mut self,
        active: &mut Active,
        number: u64,
        packet: &Packet,
        was_lost: bool,
        was_full: bool,
    ) {
        if packet.told > 0 {
            active.received.on_ack_acked(packet.told - 1);
        }
        for index in 0..u8::MAX {
            match active.sent.frame(packet, index) {
                Some(SentFrame::Data {
                    message,
                    index,
                    count,
                }) => active.outgoing.on_acked(message, index, count),
                Some(SentFrame::Token) if !active.is_token_due => active.token_out = None,
                Some(SentFrame::Token | SentFrame::Credit) => {}
                None => break,
            }
        }
        if packet.kind == Kind::Silent || number < active.path_first {
            return;
        }
        if was_lost {
            // It was only overtaken: be more patient on this path.
            self.patience = (self.patience + 1).min(PATIENCE_MAX);
            return;
        }
        active
            .congestion
            .on_acked(u64::from(packet.bytes), was_full);
        if packet.kind == Kind::MtuProbe {
            self.datagram_bytes = self.datagram_bytes.max(packet.bytes);
            active.mtu.on_probe_acked();
        } else if packet.bytes > DATAGRAM_MIN_BYTES {
            active.mtu.on_large_acked();
        }
    }

    /// Gives packets up that were overtaken by too many, or for too long.
    fn find_losses(&mut self, now_us: u64, active: &mut Active) {
        active.loss_at_us = u64::MAX;
        let loss_us = self.rtt.loss_us(self.patience - PATIENCE_MIN + 1);
        let numbers = active.sent.numbers();
        for number in numbers.start..numbers.end.min(self.acked_next) {
            let Some(packet) = active.sent.in_flight_at(number) else {
                continue;
            };
            let lost_at_us = packet.sent_us + loss_us;
            if self.acked_next > number + u64::from(self.patience) || lost_at_us <= now_us {
                self.on_packet_lost(active, number);
            } else {
                active.loss_at_us = active.loss_at_us.min(lost_at_us);
            }
        }
    }

    fn on_packet_lost(&mut self, active: &mut Active, number: u64) {
        let Some(packet) = active.sent.lose(number) else {
            return;
        };
        for index in 0..u8::MAX {
            match active.sent.frame(&packet, index) {
                Some(SentFrame::Data {
                    message,
                    index,
                    count,
                }) => active.outgoing.on_lost(message, index, count, number),
                Some(SentFrame::Token) => active.is_token_due = active.token_out.is_some(),
                Some(SentFrame::Credit) => active.is_credit_due = true,
                None => break,
            }
        }
        if number < active.path_first {
            return;
        }
        if packet.kind == Kind::MtuProbe {
            active.congestion.forget(u64::from(packet.bytes));
            active.mtu.on_probe_lost();
            return;
        }
        active.congestion.on_lost(u64::from(packet.bytes));
        if packet.bytes > DATAGRAM_MIN_BYTES
            && let Some(bytes) = active.mtu.on_large_lost()
        {
            self.datagram_bytes = bytes;
        }
    }

    /// When [`Session::on_timeout`] must be called, if nothing happens before.
    pub fn timeout(&self) -> Option<u64> {
        if self.end.is_some() {
            return None;
        }
        let idle_at_us = self.last_received_us + u64::from(self.config.idle_ms) * 1_000;
        let ping_at_us = match self.side {
            Side::Client => self.last_sent_us + self.keepalive.interval_us(),
            Side::Server => u64::MAX,
        };
        let at_us = idle_at_us.min(ping_at_us);
        let Some(active) = &self.active else {
            return Some(at_us);
        };
        let silent_at_us = active
            .waiting_since_us
            .saturating_add(u64::from(self.config.silence_ms) * 1_000);
        let path_at_us = active.path.as_ref().and_then(|it| it.again_at_us());
        let at_us = at_us
            .min(silent_at_us)
            .min(active.linger_until_us)
            .min(active.loss_at_us)
            .min(self.probe_at_us(active))
            .min(path_at_us.unwrap_or(u64::MAX));
        if active.room_bytes() < transmit::USEFUL_MIN_BYTES {
            return Some(at_us); // an unproven path has had its share
        }
        let ack_at_us = active.received.ack_at_us().unwrap_or(u64::MAX);
        Some(at_us.min(ack_at_us).min(self.paced_at_us(active)))
    }

    /// Time has passed. Calling it early or twice does nothing.
    pub fn on_timeout(&mut self, now_us: u64) {
        if self.end.is_some() {
            return;
        }
        if now_us >= self.last_received_us + u64::from(self.config.idle_ms) * 1_000 {
            return self.finish(End::Silent);
        }
        if self.side == Side::Client && now_us >= self.last_sent_us + self.keepalive.interval_us() {
            self.activate(now_us).is_ping_due = true;
        }
        let Some(mut active) = self.active.take() else {
            return;
        };
        let silence_us = u64::from(self.config.silence_ms) * 1_000;
        if now_us >= active.waiting_since_us.saturating_add(silence_us) {
            self.active = Some(active);
            return self.finish(End::Silent);
        }
        if now_us >= active.loss_at_us {
            self.find_losses(now_us, &mut active);
            active.congestion.end_of_ack(0, self.next_packet);
        }
        if now_us >= self.probe_at_us(&active) {
            self.probe(now_us, &mut active);
        }
        if active
            .path
            .as_mut()
            .is_some_and(|path| !path.on_time(now_us))
        {
            active.path = None;
            active.has_path_failed = true;
        }
        self.active = Some(active);
        self.settle(now_us);
    }

    /// Sends something again although nothing tells that it was lost: the last
    /// packets have none after them whose ACK could.
    fn probe(&self, now_us: u64, active: &mut Active) {
        active.probe_count = active.probe_count.saturating_add(1);
        // From the third time on two packets: if both paths lose many, one probe
        // after the other could be lost until the peer counts as dead.
        active.probes_due = 1 + u8::from(active.probe_count > 2);
        active.probed_us = now_us;
        let overdue_us = now_us.saturating_sub(self.rtt.smoothed_us());
        let overdue = active.sent.newest_before(overdue_us);
        active
            .outgoing
            .make_due(PROBE_BYTES, overdue.unwrap_or(u64::MAX));
        active.is_token_due = active.token_out.is_some();
        let has_load = active.outgoing.has_sendable(&self.credit) || active.has_control();
        active.is_ping_due |= !has_load;
        if active.probe_count == PERSISTENT_PROBES {
            active.congestion.on_persistent();
        }
    }

    fn probe_at_us(&self, active: &Active) -> u64 {
        if active.loss_at_us != u64::MAX {
            return u64::MAX;
        }
        // Source the oldest packet that nothing is known of, not from the newest
        // (RFC 9002): a chat that goes on at its own pace must not put the probe off.
        let Some(oldest_us) = active.sent.oldest_us() else {
            return u64::MAX;
        };
        // The first repetition comes as soon as the probe itself did: where one
        // in five packets is lost, that is the likely reason. Then twofold.
        let backoff = u32::from(active.probe_count.saturating_sub(1)).min(16);
        let wait_us = self.rtt.probe_us(active.longest_us, active.held_us) << backoff;
        // Some probes must fit into the silence after which the peer counts as dead.
        let most_us = PROBE_MAX_US.min(u64::from(self.config.silence_ms) * 1_000 / 8);
        oldest_us.max(active.probed_us) + wait_us.min(most_us)
    }

    fn paced_at_us(&self, active: &Active) -> u64 {
        let is_held_up = !active.congestion.has_room() || !self.has_path_room(active);
        if is_held_up || !active.outgoing.has_sendable(&self.credit) {
            return u64::MAX;
        }
        active
            .congestion
            .paced_until_us(self.last_sent_us, self.rtt.smoothed_us())
            .unwrap_or(u64::MAX)
    }

    /// Begins on a path of which nothing is known.
    pub(super) fn reset_path(&mut self, now_us: u64) {
        self.rtt = Rtt::new();
        self.datagram_bytes = DATAGRAM_MIN_BYTES;
        self.patience = PATIENCE_MIN;
        let next = self.next_packet;
        if let Some(active) = &mut self.active {
            active.congestion = Congestion::new(now_us);
            active.mtu = MtuSearch::default();
            active.path_first = next;
            active.repeat_under_way(now_us);
        }
    }
}
