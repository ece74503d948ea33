//! One user's session on one device, over any transport: a state machine
//! without I/O and clock.
//!
//! In: packets, connections made and lost, times (Unix milliseconds, never
//! going back), the application's sends and questions. Out, to be polled after
//! each of them: packets, events, outputs, the next deadline. Whoever drives it
//! connects when [`Session::connect_due`] says so.
//!
//! All it holds is bounded by [`SessionConfig`]; what the application doesn't
//! take stays on the server.

mod answer_wait;
mod answers;
mod calls;
mod config;
mod ending;
mod login;
mod moving;
mod online;
mod outbox;
mod pace;
mod push_acks;
mod refresh;
mod sends;
mod sync;
#[cfg(test)]
mod tests;
mod timeline;

pub use answers::{ConversationList, ConversationSummary, HistoryPage, Response, Target};
pub use config::SessionConfig;

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, UserId,
    packet::{self, Packet, packet::Body},
};

use crate::{
    CallError, Ended, Event, SendError, SendReceipt,
    state::{Change, Saved},
};
use calls::Calls;
use login::Phase;
use outbox::Outbox;
use pace::Pace;
use push_acks::PushAcks;
use sync::Sync;

/// Read cursors that are kept until they could be sent.
const READS_MAX: usize = 256;
/// Packets without an answer that wait for the connection to take them.
const NOTICES_MAX: usize = 256;
/// A read cursor sent this long before the connection was lost has arrived.
const READ_DOUBT_MS: u64 = 30_000;

/// What the driver is to do or pass on.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// To be written to the local state.
    Save(Change),
    /// A send is settled.
    Sent(ClientMsgId, Result<SendReceipt, SendError>),
    /// A question of the application is settled.
    Answered(u64, Result<Body, CallError>),
    /// Drop the connection, once what was transmitted before has been written.
    Close,
    /// The server bears silences of twice this many milliseconds; where the
    /// transport keeps itself alive, it must know.
    Heartbeat(u64),
    /// Get a fresh token for [`Session::refresh`].
    RefreshToken,
}

/// The state machine.
pub(crate) struct Session {
    config: SessionConfig,
    user: UserId,
    device: DeviceId,
    rng: SmallRng,
    phase: Phase,
    login: login::Login,
    /// Pushes that came before the answer to the login.
    early: Vec<Body>,
    next_packet_id: u64,
    outbox: Outbox,
    sync: Sync,
    acks: PushAcks,
    pace: Pace,
    /// The pace is kept by sending nothing before.
    transmit_at_ms: Option<u64>,
    calls: Calls,
    reads: HashMap<ConversationId, ReadCursor>,
    /// Some of them may be unsent.
    reads_wait: bool,
    transmit: VecDeque<Packet>,
    notices: VecDeque<Body>,
    events: VecDeque<Event>,
    outputs: VecDeque<Output>,
}

/// How far the user has read a conversation.
#[derive(Debug, Default)]
struct ReadCursor {
    seq: u64,
    sent_ms: Option<u64>,
}

// === impl ReadCursor ===

impl ReadCursor {
    /// It may not have arrived: not sent, or lately.
    fn is_doubtful(&self, now_ms: u64) -> bool {
        self.sent_ms
            .is_none_or(|at| now_ms.saturating_sub(at) < READ_DOUBT_MS)
    }
}

// === impl Session ===

impl Session {
    /// A session that goes on from what was saved. It wants to be connected at once.
    pub(crate) fn new(
        config: SessionConfig,
        user: UserId,
        device: DeviceId,
        saved: Saved,
        token_is_renewable: bool,
        seed: [u8; 32],
    ) -> Self {
        let mut outbox = Outbox::default();
        for (order, send) in saved.outbox {
            outbox.restore(order, send);
        }
        Self {
            config,
            user,
            device,
            rng: SmallRng::from_seed(seed),
            phase: Phase::Offline {
                connect_at_ms: Some(0),
                is_asked: false,
            },
            login: login::Login::new(
                saved.resume_token,
                saved.clock_offset_ms,
                token_is_renewable,
            ),
            early: Vec::new(),
            next_packet_id: 1,
            outbox,
            sync: Sync::new(saved.inbox, saved.groups),
            acks: PushAcks::default(),
            pace: Pace::default(),
            transmit_at_ms: None,
            calls: Calls::default(),
            reads: HashMap::new(),
            reads_wait: false,
            transmit: VecDeque::new(),
            notices: VecDeque::new(),
            events: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes a packet from the connection.
    pub(crate) fn handle_packet(&mut self, now_ms: u64, packet: Packet) {
        let Some(body) = packet.body else { return };
        match &mut self.phase {
            Phase::LoggingIn { .. } => self.handle_login_packet(now_ms, body),
            Phase::Online(online) => {
                online.last_received_ms = now_ms;
                self.handle_online_packet(now_ms, packet.id, body);
                self.check_caught_up();
            }
            Phase::Offline { .. } | Phase::Connecting | Phase::Ended(_) => {}
        }
    }

    fn handle_online_packet(&mut self, now_ms: u64, id: u64, body: Body) {
        match body {
            Body::Push(push) => self.handle_push(now_ms, push),
            Body::GroupNotice(notice) => self.handle_group_notice(now_ms, notice),
            Body::SendAck(ack) => self.handle_send_ack(now_ms, id, ack),
            Body::Error(error) => self.handle_error(now_ms, id, error),
            Body::Busy(busy) => self.handle_busy(now_ms, id, busy),
            Body::InboxPage(page) => self.handle_inbox_page(now_ms, id, page),
            Body::HeadsPage(page) => self.handle_heads_page(now_ms, id, page),
            Body::ConversationPage(page) => self.handle_conversation_page(now_ms, id, page),
            body @ (Body::ConversationList(_) | Body::Response(_)) => self.answer(id, Ok(body)),
            Body::Overflow(_) => self.sync_within(now_ms, 0),
            Body::Resync(resync) => self.sync_within(now_ms, resync.delay_max_ms.into()),
            Body::Pong(pong) => self.adopt_server_time(now_ms, pong.server_time_ms),
            Body::TokenRefreshed(refreshed) => self.handle_refreshed(now_ms, refreshed),
            Body::Kick(kick) => self.handle_kick(now_ms, kick),
            Body::GoAway(go_away) => self.handle_go_away(now_ms, go_away),
            Body::DeliveredNotice(_)
            | Body::ReadNotice(_)
            | Body::TypingNotice(_)
            | Body::EphemeralMessage(_) => self.handle_notice(body),
            // What only a client sends: harmless, and no reason to lose the connection.
            _ => {}
        }
    }

    fn handle_notice(&mut self, body: Body) {
        // Names that the server itself would not take are passed over.
        let event =
            match body {
                Body::DeliveredNotice(it) => parse_cursor(&it.conversation_id, &it.user_id, it.seq)
                    .map(|(conversation, user, seq)| Event::Delivered {
                        conversation,
                        user,
                        seq,
                    }),
                Body::ReadNotice(it) => parse_cursor(&it.conversation_id, &it.user_id, it.seq).map(
                    |(conversation, user, seq)| Event::Read {
                        conversation,
                        user,
                        seq,
                    },
                ),
                Body::TypingNotice(it) => parse_cursor(&it.conversation_id, &it.user_id, 0)
                    .map(|(conversation, user, _)| Event::Typing { conversation, user }),
                Body::EphemeralMessage(it) => parse_cursor(&it.conversation_id, &it.sender, 0).map(
                    |(conversation, sender, _)| Event::Ephemeral {
                        conversation,
                        sender,
                        server_time_ms: it.server_time_ms,
                        content_type: packet::ContentType::try_from(it.content_type).ok(),
                        body: it.body,
                    },
                ),
                _ => None,
            };
        if let Some(event) = event {
            self.tell(event);
        }
    }

    fn handle_error(&mut self, now_ms: u64, id: u64, error: packet::Error) {
        if self.calls.contains(id) {
            self.handle_call_error(now_ms, id, error);
        } else {
            // Or it answers what expects no answer (typing, read, ephemeral, refresh).
            self.handle_send_error(now_ms, id, error);
        }
    }

    fn handle_busy(&mut self, now_ms: u64, id: u64, busy: packet::Busy) {
        let retry_at_ms = now_ms.saturating_add(busy.retry_after_ms.into());
        if self.calls.contains(id) {
            self.retry_call(now_ms, id, retry_at_ms);
        } else if !self.retry_refresh(id, retry_at_ms) {
            self.handle_send_busy(id, retry_at_ms);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        self.check_connection(now_ms);
        self.outbox.expire(now_ms);
        self.expire_calls(now_ms);
        if self.is_online() {
            self.start_due_pulls(now_ms);
            self.start_due_heads(now_ms);
            self.acks.expire(now_ms);
            self.transmit_at_ms.take_if(|at| *at <= now_ms);
        }
        self.check_caught_up();
    }

    /// When [`Session::handle_timeout`] is to be called, if nothing comes before.
    pub(crate) fn next_timeout_ms(&self) -> Option<u64> {
        let mut next = self.connection_deadline_ms();
        let mut expect = |deadline: Option<u64>| {
            next = match (next, deadline) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        };
        expect(self.calls.deadline_ms());
        if self.is_online() {
            expect(self.outbox.deadline_ms());
            expect(self.sync.deadline_ms().filter(|_| !self.acks.is_full()));
            expect(self.acks.due_ms());
            expect(self.transmit_at_ms);
        }
        next
    }

    /// The next packet for the connection, as fast as the server allows. Control
    /// traffic first, then acks, then sends, as the window allows; so poll only
    /// what can be written.
    pub(crate) fn poll_transmit(&mut self, now_ms: u64) -> Option<Packet> {
        if !self.is_online() {
            return self.transmit.pop_front();
        }
        self.transmit_at_ms = self.pace.wait_until_ms(now_ms);
        if self.transmit_at_ms.is_some() {
            return None;
        }
        let packet = match self.transmit.pop_front() {
            Some(packet) => packet,
            None => self
                .next_read(now_ms)
                .or_else(|| self.next_ack(now_ms))
                .or_else(|| self.next_notice())
                .or_else(|| self.next_send(now_ms))?,
        };
        self.pace.went(&packet, now_ms);
        if let Phase::Online(online) = &mut self.phase {
            online.last_sent_ms = now_ms;
        }
        Some(packet)
    }

    fn next_ack(&mut self, now_ms: u64) -> Option<Packet> {
        let ack = self.acks.poll(now_ms, &self.pace)?;
        Some(Packet {
            id: 0,
            body: Some(Body::PushAck(ack)),
        })
    }

    /// The next event for the application.
    pub(crate) fn poll_event(&mut self, now_ms: u64) -> Option<Event> {
        let event = self.events.pop_front()?;
        if self.sync.is_blocked && self.events.len() <= self.config.events_max / 2 {
            self.unblock(now_ms);
        }
        Some(event)
    }

    /// An event waits for the application.
    #[cfg(feature = "runtime")]
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What else there is to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Why the session is over, if it is.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// A packet that isn't answered; dropped while there is no connection, and
    /// refused while too many of them wait for a connection that has stalled.
    pub(crate) fn notify(&mut self, body: Body) -> Result<(), SendError> {
        if self.notices.len() >= NOTICES_MAX {
            return Err(SendError::Stalled(self.notices.len()));
        }
        if self.is_online() {
            self.notices.push_back(body);
        }
        Ok(())
    }

    fn next_notice(&mut self) -> Option<Packet> {
        let body = Some(self.notices.pop_front()?);
        Some(Packet { id: 0, body })
    }

    /// This user has read up to `seq`; told when there is a connection.
    pub(crate) fn read(&mut self, now_ms: u64, conversation: ConversationId, seq: u64) {
        if self.reads.len() >= READS_MAX {
            self.reads.retain(|_, cursor| cursor.is_doubtful(now_ms));
        }
        if self.reads.len() < READS_MAX || self.reads.contains_key(&conversation) {
            let cursor = self.reads.entry(conversation).or_default();
            if seq > cursor.seq {
                *cursor = ReadCursor { seq, sent_ms: None };
                self.reads_wait = true;
            }
        }
    }

    fn next_read(&mut self, now_ms: u64) -> Option<Packet> {
        if !self.reads_wait {
            return None;
        }
        let mut unsent = self.reads.iter_mut().filter(|(_, it)| it.sent_ms.is_none());
        let Some((conversation, cursor)) = unsent.next() else {
            self.reads_wait = false;
            return None;
        };
        cursor.sent_ms = Some(now_ms);
        Some(Packet {
            id: 0,
            body: Some(Body::Read(packet::Read {
                conversation_id: conversation.to_string(),
                seq: cursor.seq,
            })),
        })
    }

    /// Read cursors have no answer: those sent lately are sent again.
    fn reads_lost_connection(&mut self, now_ms: u64) {
        self.reads.retain(|_, cursor| cursor.is_doubtful(now_ms));
        for cursor in self.reads.values_mut() {
            cursor.sent_ms = None;
        }
        self.reads_wait = true;
    }

    /// Queues an event that may be missed when nobody takes any for long: not an entry.
    fn tell(&mut self, event: Event) {
        if self.events.len() < self.config.events_max.saturating_mul(2) {
            self.events.push_back(event);
        }
    }

    fn packet_id(&mut self) -> u64 {
        let id = self.next_packet_id;
        self.next_packet_id = id.wrapping_add(1).max(1);
        id
    }

    /// A random span up to this, inclusive.
    fn jitter(&mut self, max_ms: u64) -> u64 {
        self.rng.random_range(0..=max_ms)
    }

    /// A client message id by the server's clock.
    fn stamp(&mut self, now_ms: u64) -> ClientMsgId {
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        ClientMsgId::new(self.login.server_time_ms(now_ms), random)
    }

    fn save(&mut self, change: Change) {
        self.outputs.push_back(Output::Save(change));
    }
}

fn parse_cursor(
    conversation: &str,
    user: &str,
    seq: u64,
) -> Option<(ConversationId, UserId, sluice_protocol::Seq)> {
    Some((
        ConversationId::parse(conversation).ok()?,
        UserId::parse(user).ok()?,
        sluice_protocol::Seq(seq),
    ))
}

fn refusal(error: &packet::Error) -> sluice_protocol::Refusal {
    sluice_protocol::Refusal::new(error.code(), error.reason.clone())
}

fn client_msg_id(id: &ClientMsgId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
