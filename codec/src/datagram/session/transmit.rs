//! A packet that goes out.

use super::super::{
    End,
    frame::{self, CREDIT_BYTES, PATH_BYTES, PING_BYTES},
    outgoing::Put,
    sent::{Kind, SentFrame},
};
use super::{Active, Session};

/// With less room than this nothing is sent to an unproven address.
pub(super) const USEFUL_MIN_BYTES: u64 = 100;
/// Padding of the first packet from a new address; the server may answer with
/// three times as much.
const PADDED_BYTES: usize = 500;
/// Messages in one packet. It keeps the 16 bits of a message's number unambiguous
/// over the 1,024 packets of the replay window.
const DATA_FRAMES_MAX: u8 = 31;

/// A packet to be sealed and sent to the peer's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Goes into the header and the nonce.
    pub number: u64,
}

/// What a packet was found to hold.
struct Load {
    told: u64,
    is_eliciting: bool,
    is_full: bool,
}

impl Session {
    /// Appends the payload of the next packet to `out`. `overhead`: bytes that header and
    /// seal add at most. To be called until it gives nothing.
    pub fn transmit(
        &mut self,
        now_us: u64,
        overhead: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let mut active = self.active.take()?;
        let transmit = self.build(now_us, &mut active, overhead, out);
        self.active = Some(active);
        if self.end.is_none() {
            self.settle(now_us);
        }
        transmit
    }

    fn build(
        &mut self,
        now_us: u64,
        active: &mut Active,
        overhead: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let room_bytes = active.room_bytes();
        if room_bytes < USEFUL_MIN_BYTES {
            return None;
        }
        let datagram = u64::from(self.datagram_bytes).min(room_bytes) as usize;
        let start = out.len();
        let end = start + datagram.saturating_sub(overhead);
        if self.end.is_some() {
            return self.build_close(now_us, active, overhead, end, out);
        }
        let may_send = self.may_send(now_us, active);
        if active.probes_due > 0 && !active.has_load(&self.credit) {
            active.probes_due = 0;
        }
        let has_data = may_send && active.has_load(&self.credit);
        let is_ack_due = active
            .received
            .ack_at_us()
            .is_some_and(|at_us| now_us >= at_us);
        if !is_ack_due && !has_data && !active.has_control() {
            return self.build_mtu_probe(now_us, active, overhead, out);
        }
        let mut load = Load {
            told: put_ack(now_us, active, end, out),
            is_eliciting: false,
            is_full: false,
        };
        if std::mem::take(&mut active.is_padding_due) {
            // Before the other frames: DATA goes on to the end.
            frame::put_padding(out, end.min(start + PADDED_BYTES));
        }
        self.put_control(now_us, active, end, out, &mut load);
        if has_data {
            let full = usize::from(self.datagram_bytes).saturating_sub(overhead);
            self.put_data(now_us, active, end, full, out, &mut load);
        }
        if out.len() == start {
            return None;
        }
        let kind = match load.is_eliciting {
            true => Kind::Eliciting,
            false => Kind::Silent,
        };
        active.mtu.on_sent(load.is_full);
        let bytes = out.len() - start + overhead;
        Some(self.note(now_us, active, bytes, load.told, kind))
    }

    fn may_send(&self, now_us: u64, active: &Active) -> bool {
        let smoothed_us = self.rtt.smoothed_us();
        let has_window = || {
            let paced_until_us = active.congestion.paced_until_us(now_us, smoothed_us);
            active.sent.has_room() && active.congestion.has_room() && paced_until_us.is_none()
        };
        self.has_path_room(active) && (active.probes_due > 0 || has_window())
    }

    /// Whether a whole datagram may go to the peer's address.
    pub(super) fn has_path_room(&self, active: &Active) -> bool {
        active.room_bytes() >= u64::from(self.datagram_bytes)
    }

    fn put_control(
        &mut self,
        now_us: u64,
        active: &mut Active,
        end: usize,
        out: &mut Vec<u8>,
        load: &mut Load,
    ) {
        let start = out.len();
        let fits = |out: &Vec<u8>, bytes: usize| out.len() + bytes <= end;
        if let Some(token) = active.response.filter(|_| fits(out, PATH_BYTES)) {
            frame::put_response(out, token);
            active.response = None;
        }
        let probe_us = self.rtt.probe_us(0, 0);
        if let Some(path) = &mut active.path
            && let Some(token) = path.challenge()
            && fits(out, PATH_BYTES)
        {
            frame::put_challenge(out, token);
            path.on_challenge_sent(now_us, probe_us);
        }
        if active.is_credit_due && fits(out, CREDIT_BYTES) {
            frame::put_credit(out, self.credit.tell());
            active.sent.push_frame(SentFrame::Credit);
            active.is_credit_due = false;
        }
        if let Some(token) = &active.token_out
            && active.is_token_due
            && fits(out, token.len() + 3)
        {
            frame::put_token(out, token);
            active.sent.push_frame(SentFrame::Token);
            active.is_token_due = false;
        }
        if active.is_ping_due && fits(out, PING_BYTES) {
            frame::put_ping(out);
            active.is_ping_due = false;
        }
        load.is_eliciting |= out.len() > start;
    }

    fn put_data(
        &mut self,
        now_us: u64,
        active: &mut Active,
        end: usize,
        full: usize,
        out: &mut Vec<u8>,
        load: &mut Load,
    ) {
        let number = self.next_packet;
        let begun = active.outgoing.begun();
        let mut last = None;
        for _ in 0..DATA_FRAMES_MAX {
            let at = out.len();
            let room = end.saturating_sub(at);
            match active
                .outgoing
                .put_next(out, room, full, number, &mut self.credit)
            {
                Put::Nothing => {
                    load.is_full = active.outgoing.has_sendable(&self.credit);
                    break;
                }
                Put::Tracked(frame) => active.sent.push_frame(frame),
                Put::Untracked => {}
            }
            last = Some(at);
        }
        let may_echo = !load.is_full && (last.is_some() || active.probes_due > 0);
        while let Some(room) = end.checked_sub(out.len()).filter(|_| may_echo) {
            let at = out.len();
            let Some(frame) = active.outgoing.put_echo(out, room, number) else {
                break;
            };
            active.sent.push_frame(frame);
            last = Some(at);
        }
        if active.outgoing.begun() != begun {
            active.received.on_company(now_us);
        }
        if let Some(at) = last {
            load.is_eliciting = true;
            frame::strip_length(out, at);
        }
    }

    fn build_mtu_probe(
        &mut self,
        now_us: u64,
        active: &mut Active,
        overhead: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let max = self.config.datagram_max_bytes;
        if active.path.is_some() || !active.congestion.has_room() {
            return None;
        }
        let bytes = usize::from(active.mtu.probe(self.datagram_bytes, max)?);
        let padded = out.len() + bytes - overhead;
        frame::put_ping(out);
        frame::put_padding(out, padded);
        active.mtu.on_probe_sent();
        Some(self.note(now_us, active, bytes, 0, Kind::MtuProbe))
    }

    fn build_close(
        &mut self,
        now_us: u64,
        active: &mut Active,
        overhead: usize,
        end: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let mut closing = active.closing.take_if(|closing| closing.is_due)?;
        let start = out.len();
        let full = end - start;
        let told = put_ack(now_us, active, end, out);
        if matches!(self.end, Some(End::Closed(_))) {
            let room = full.saturating_sub(closing.reason.len() + 5);
            active.outgoing.make_due(room, u64::MAX);
            while out.len() - start < room {
                let left = room - (out.len() - start);
                let number = self.next_packet;
                let put = active
                    .outgoing
                    .put_next(out, left, full, number, &mut self.credit);
                if put == Put::Nothing {
                    break;
                }
            }
        }
        frame::put_close(out, closing.code, &closing.reason);
        closing.on_sent();
        active.closing = Some(closing);
        let bytes = out.len() - start + overhead;
        Some(self.note(now_us, active, bytes, told, Kind::Silent))
    }

    /// Records the packet that was built.
    fn note(
        &mut self,
        now_us: u64,
        active: &mut Active,
        bytes: usize,
        told: u64,
        kind: Kind,
    ) -> Transmit {
        let number = self.next_packet;
        self.next_packet += 1;
        active.sent.push(number, now_us, bytes as u16, told, kind);
        if let Some(path) = &mut active.path {
            path.on_sent(bytes as u64);
        }
        if kind != Kind::Silent {
            self.keepalive
                .on_sent(now_us.saturating_sub(self.last_sent_us));
            active.probes_due = active.probes_due.saturating_sub(1);
            active.outgoing.earn_echo(bytes);
            active.waiting_since_us = active.waiting_since_us.min(now_us);
            let smoothed_us = self.rtt.smoothed_us();
            active.congestion.on_sent(now_us, bytes as u64, smoothed_us);
        }
        self.last_sent_us = now_us;
        Transmit { number }
    }
}

/// The largest number told and one, or 0 if no ACK was put.
fn put_ack(now_us: u64, active: &mut Active, end: usize, out: &mut Vec<u8>) -> u64 {
    match active.received.ack(now_us) {
        Some(ack) if out.len() + ack.max_len() <= end => {
            ack.put(out);
            active.received.next()
        }
        _ => 0,
    }
}
