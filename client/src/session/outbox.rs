//! Sends that aren't acked yet, a line a conversation.
//!
//! A line is sent like a go-back-n window: its first `sent` sends are under way,
//! the others wait. Each transmission names the one before it in the line, so
//! the server stores them in this order or refuses (`out_of_order`), and then
//! the line goes back. Each transmission has a packet id of its own, so that a
//! late refusal of an earlier one is known as such.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;
use sluice_protocol::{ClientMsgId, ConversationId, packet};

use crate::state::SavedSend;

/// All unacked sends.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lines: HashMap<ConversationId, Line>,
    /// Lines that may have something to transmit, each at most once.
    ready: VecDeque<ConversationId>,
    sends: usize,
    under_way: usize,
    next_order: u64,
    /// Not later than the earliest deadline of a line; exact after `expire`.
    deadline_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Line {
    sends: VecDeque<Unacked>,
    /// So many at the front are under way.
    sent: usize,
    /// Nothing goes out before.
    paused_until_ms: Option<u64>,
    is_ready: bool,
    /// Refusals in a row without an ack between.
    setbacks: u32,
}

/// A send that isn't acked.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) order: u64,
    pub(super) send: SavedSend,
    /// Of its last transmission.
    packet_id: u64,
    resend_at_ms: u64,
    transmissions: u32,
    /// How often the server had trouble with it.
    troubles: u32,
}

/// The longest wait for an ack is the shortest times 2 to this.
const RESEND_SHIFT_MAX: u32 = 3;
/// As [`RESEND_SHIFT_MAX`], for the wait after refusals in a row.
const SETBACK_SHIFT_MAX: u32 = 9;
/// A line that was refused goes on after this span, doubled each time.
const SETBACK_PAUSE_MS: u64 = 20;
/// A send that the server had trouble with goes out again after this span,
/// doubled each time up to about 30 s.
const TROUBLE_PAUSE_MS: u64 = 1_000;
const TROUBLE_SHIFT_MAX: u32 = 5;

// === impl Outbox ===

impl Outbox {
    /// How many sends are unacked.
    pub(super) fn len(&self) -> usize {
        self.sends
    }

    /// Takes back what was saved.
    pub(super) fn restore(&mut self, order: u64, send: SavedSend) {
        self.next_order = self.next_order.max(order.saturating_add(1));
        self.enqueue(order, send);
    }

    /// Takes a new send; returns its place in the order of all.
    pub(super) fn push(&mut self, send: SavedSend) -> u64 {
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        self.enqueue(order, send);
        order
    }

    fn enqueue(&mut self, order: u64, send: SavedSend) {
        let conversation = send.conversation.clone();
        let line = self.lines.entry(conversation.clone()).or_default();
        line.sends.push_back(Unacked {
            order,
            send,
            packet_id: 0,
            resend_at_ms: 0,
            transmissions: 0,
            troubles: 0,
        });
        self.sends += 1;
        self.make_ready(&conversation);
    }

    fn make_ready(&mut self, conversation: &ConversationId) {
        if let Some(line) = self.lines.get_mut(conversation)
            && !line.is_ready
            && line.has_more()
        {
            line.is_ready = true;
            self.ready.push_back(conversation.clone());
        }
    }

    /// The next send to go out, as packet `packet_id`, unless `window` are under
    /// way. Lines take turns.
    pub(super) fn transmit(
        &mut self,
        now_ms: u64,
        window: usize,
        packet_id: u64,
        ack_timeout_ms: u64,
    ) -> Option<packet::Send> {
        while self.under_way < window {
            let conversation = self.ready.pop_front()?;
            let Some(line) = self.lines.get_mut(&conversation) else {
                continue;
            };
            line.is_ready = false;
            let Some(send) = line.transmit(now_ms, packet_id, ack_timeout_ms) else {
                continue;
            };
            let deadline = line.deadline_ms();
            self.under_way += 1;
            self.expect(deadline);
            self.make_ready(&conversation);
            return Some(send);
        }
        None
    }

    /// Takes out a send that is stored, or refused for good.
    pub(super) fn settle(
        &mut self,
        conversation: &ConversationId,
        id: &ClientMsgId,
    ) -> Option<Unacked> {
        let line = self.lines.get_mut(conversation)?;
        let at = line
            .sends
            .iter()
            .position(|it| it.send.client_msg_id == *id)?;
        let unacked = line.sends.remove(at)?;
        line.setbacks = 0;
        self.sends -= 1;
        if at < line.sent {
            line.sent -= 1;
            self.under_way -= 1;
        }
        if line.sends.is_empty() {
            self.lines.remove(conversation);
        }
        Some(unacked)
    }

    /// Which send is under way as packet `packet_id`; `None` when it was settled
    /// or sent again since.
    pub(super) fn find(&self, packet_id: u64) -> Option<(ConversationId, ClientMsgId)> {
        self.lines.iter().find_map(|(conversation, line)| {
            let mut under_way = line.sends.iter().take(line.sent);
            let found = under_way.find(|it| it.packet_id == packet_id)?;
            Some((conversation.clone(), found.send.client_msg_id))
        })
    }

    /// This send and those behind it in its line go out again, after a pause.
    pub(super) fn go_back_to(
        &mut self,
        conversation: &ConversationId,
        id: &ClientMsgId,
        resume_at_ms: u64,
    ) {
        let Some(line) = self.lines.get_mut(conversation) else {
            return;
        };
        let at = line
            .sends
            .iter()
            .position(|it| it.send.client_msg_id == *id);
        let at = at.unwrap_or(0).min(line.sent);
        self.under_way -= line.sent - at;
        line.sent = at;
        line.paused_until_ms = Some(resume_at_ms);
        self.expect(Some(resume_at_ms));
    }

    /// A predecessor isn't stored: the whole line goes out again, after a pause
    /// that grows when that doesn't help.
    pub(super) fn go_back(&mut self, conversation: &ConversationId, now_ms: u64) {
        let Some(line) = self.lines.get_mut(conversation) else {
            return;
        };
        let pause = match line.setbacks {
            0 => 0,
            n => SETBACK_PAUSE_MS << (n - 1).min(SETBACK_SHIFT_MAX),
        };
        line.setbacks = line.setbacks.saturating_add(1);
        self.under_way -= line.sent;
        line.sent = 0;
        let resume_at = now_ms.saturating_add(pause);
        line.paused_until_ms = Some(resume_at);
        self.expect(Some(resume_at));
    }

    /// The server has trouble: this send and those behind it go out again after
    /// a pause that grows. Says how often that has happened to this send.
    pub(super) fn go_back_to_troubled(
        &mut self,
        conversation: &ConversationId,
        id: &ClientMsgId,
        now_ms: u64,
    ) -> u32 {
        let line = self.lines.get_mut(conversation);
        let send = line.and_then(|line| {
            let mut sends = line.sends.iter_mut();
            sends.find(|it| it.send.client_msg_id == *id)
        });
        let Some(unacked) = send else { return 0 };
        let pause = TROUBLE_PAUSE_MS << unacked.troubles.min(TROUBLE_SHIFT_MAX);
        unacked.troubles = unacked.troubles.saturating_add(1);
        let troubles = unacked.troubles;
        self.go_back_to(conversation, id, now_ms.saturating_add(pause));
        troubles
    }

    /// The connection is gone: everything goes out again on the next.
    pub(super) fn connection_lost(&mut self) {
        self.under_way = 0;
        self.deadline_ms = None;
        self.ready.clear();
        // By the order of the calls, so that the oldest goes first.
        let mut order: Vec<_> = Vec::with_capacity(self.lines.len());
        for (conversation, line) in &mut self.lines {
            line.sent = 0;
            line.paused_until_ms = None;
            line.is_ready = true;
            line.setbacks = 0;
            order.extend(
                line.sends
                    .front()
                    .map(|it| (it.order, conversation.clone())),
            );
        }
        order.sort_unstable_by_key(|(order, _)| *order);
        self.ready
            .extend(order.into_iter().map(|(_, conversation)| conversation));
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Ends pauses that are over and goes back where acks are overdue.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if self.deadline_ms.is_none_or(|deadline| deadline > now_ms) {
            return;
        }
        let mut earliest: Option<u64> = None;
        let mut awake = Vec::new();
        for (conversation, line) in &mut self.lines {
            if line
                .deadline_ms()
                .is_some_and(|deadline| deadline <= now_ms)
            {
                if line.paused_until_ms.is_some_and(|until| until <= now_ms) {
                    line.paused_until_ms = None;
                }
                if line.is_overdue(now_ms) {
                    tracing::debug!(%conversation, sent = line.sent, "an ack is overdue");
                    self.under_way -= line.sent;
                    line.sent = 0;
                }
                let order = line.sends.front().map_or(0, |it| it.order);
                awake.push((order, conversation.clone()));
            }
            if let Some(deadline) = line.deadline_ms() {
                earliest = Some(earliest.map_or(deadline, |it| it.min(deadline)));
            }
        }
        self.deadline_ms = earliest;
        awake.sort_unstable_by_key(|(order, _)| *order);
        for (_, conversation) in awake {
            self.make_ready(&conversation);
        }
    }

    fn expect(&mut self, deadline_ms: Option<u64>) {
        self.deadline_ms = match (self.deadline_ms, deadline_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

// === impl Line ===

impl Line {
    fn has_more(&self) -> bool {
        self.sent < self.sends.len() && self.paused_until_ms.is_none()
    }

    fn transmit(
        &mut self,
        now_ms: u64,
        packet_id: u64,
        ack_timeout_ms: u64,
    ) -> Option<packet::Send> {
        if !self.has_more() {
            return None;
        }
        let predecessor = match self.sent.checked_sub(1) {
            Some(before) => {
                Bytes::copy_from_slice(self.sends.get(before)?.send.client_msg_id.as_bytes())
            }
            None => Bytes::new(),
        };
        let unacked = self.sends.get_mut(self.sent)?;
        let wait = ack_timeout_ms << unacked.transmissions.min(RESEND_SHIFT_MAX);
        unacked.packet_id = packet_id;
        unacked.resend_at_ms = now_ms.saturating_add(wait);
        unacked.transmissions = unacked.transmissions.saturating_add(1);
        self.sent += 1;
        Some(packet::Send {
            predecessor,
            ..unacked.send.to_wire()
        })
    }

    fn is_overdue(&self, now_ms: u64) -> bool {
        let first = self.sends.front().filter(|_| self.sent > 0);
        first.is_some_and(|it| it.resend_at_ms <= now_ms)
    }

    fn deadline_ms(&self) -> Option<u64> {
        let first = self.sends.front().filter(|_| self.sent > 0);
        let resend = first.map(|it| it.resend_at_ms);
        match (resend, self.paused_until_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}
