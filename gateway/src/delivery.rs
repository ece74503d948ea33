//! What comes down for a channel: answers, events, pushes, word about its
//! session. The channel was found by slot and generation; here the user is
//! compared too.

use std::sync::Arc;

use sluice_protocol::{
    Refusal,
    envelope::{BackendResponse, SessionOpened, SessionRefused},
    limits::BODY_MAX_BYTES,
    packet::{self, CloseReason, ErrorCode, packet::Body},
};

use crate::{
    channel::{Channel, Phase},
    config::PushConfig,
    connection::Connection,
    context::ChannelContext,
    farewell::Farewell,
    handover::Unacked,
    mailbox::{Command, CommandBody},
    pipeline::Outbound,
    push_window::{PushContent, PushWindow},
    workbench::Workbench,
};

/// Of a push beside its entry, about.
const PUSH_OVERHEAD_BYTES: usize = 128;

// === impl Connection ===

impl Connection {
    /// Applies one delivery.
    pub(crate) fn deliver(&mut self, bench: &mut Workbench, command: Command) {
        if self.channel.flags.paused {
            // A burst may fill the output within a turn although the client reads:
            // what the socket takes now need not be dropped.
            self.write_turn(bench);
        }
        let channel = &mut self.channel;
        if !channel.belongs_to(&command.user) {
            bench.metrics.deliveries_stale.increment(1);
            return;
        }
        match (command.body, channel.phase) {
            (CommandBody::Kick(kick), _) => channel.close(bench, Farewell::kicked(*kick)),
            (CommandBody::SessionOpened(opened), Phase::Opening) => {
                self.open_with(bench, *opened, Vec::new());
            }
            (CommandBody::SessionRefused(refused), Phase::Opening) => {
                channel.login_refused(bench, *refused);
            }
            (body, Phase::Open) => channel.deliver_open(bench, body),
            // Before ConnectAck: the client syncs after it, so nothing is lost.
            (_, Phase::AwaitLogin | Phase::Opening | Phase::Closing) => {
                bench.metrics.deliveries_stale.increment(1);
            }
        }
    }

    /// Opens the session if it still waits for that; what its client's connection
    /// before had unacked is pushed first.
    pub(crate) fn open(&mut self, bench: &mut Workbench, opened: Command, pushes: Vec<Unacked>) {
        let is_awaited =
            self.channel.phase == Phase::Opening && self.channel.belongs_to(&opened.user);
        if let CommandBody::SessionOpened(opened) = opened.body
            && is_awaited
        {
            self.open_with(bench, *opened, pushes);
        }
    }

    fn open_with(&mut self, bench: &mut Workbench, opened: SessionOpened, pushes: Vec<Unacked>) {
        let carried = bench.shared.config.push.carried(&pushes);
        // The window bounds it far below 4 billion.
        if self.channel.session_opened(bench, opened, carried as u32) {
            let limits = &bench.shared.config.limits;
            self.transport.set_frame_max_bytes(limits.frame_max_bytes);
            self.channel.carry(bench, pushes, carried);
        }
    }
}

// === impl PushConfig ===

impl PushConfig {
    /// How many of a former connection's pushes a new one takes at once: what its
    /// output has room for, and its window.
    fn carried(&self, pushes: &[Unacked]) -> usize {
        let mut room_bytes = self.window_max_bytes.min(self.output_high_bytes / 2);
        let fits = |push: &&Unacked| {
            let bytes = push.content.entry.len() + PUSH_OVERHEAD_BYTES;
            let has_room = bytes <= room_bytes;
            room_bytes = room_bytes.saturating_sub(bytes);
            has_room
        };
        let pushes = pushes.iter().take(self.window_max);
        pushes.take_while(fits).count()
    }
}

// === impl Channel ===

impl Channel {
    fn deliver_open(&mut self, bench: &mut Workbench, body: CommandBody) {
        match body {
            CommandBody::Answer(packet) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                if let Some(requests) = &mut self.requests {
                    requests.settle_pull(&packet);
                    self.requests.take_if(|requests| requests.is_empty());
                }
                if self.may_go_out(bench, Outbound::Answer(&packet)) {
                    self.send_encoded(bench, &packet);
                    if bench.traces.is_on() {
                        let to = bench.connection_id(self.key);
                        bench.traces.note_answer(self, to, &packet);
                    }
                }
            }
            CommandBody::Event(packet) => {
                // Dropped first: nobody misses a typing notice.
                if self.output_bytes() > bench.shared.config.push.output_low_bytes {
                    bench.metrics.events_dropped.increment(1);
                } else if self.may_go_out(bench, Outbound::Event(&packet)) {
                    self.send_encoded(bench, &packet);
                }
            }
            CommandBody::Push { content, user_seq } => self.push(bench, content, user_seq),
            CommandBody::Response(response) => self.respond(bench, *response),
            CommandBody::SessionOpened(opened) => self.session_prolonged(bench, opened.as_ref()),
            CommandBody::SessionRefused(refused) => {
                if let Some(identity) = &mut self.identity {
                    identity.refresh_ended();
                }
                let id = refused.request_id;
                let refusal = refusal_of(*refused);
                self.refuse(bench, id, &refusal, bytes::Bytes::new());
            }
            CommandBody::Kick(kick) => self.close(bench, Farewell::kicked(*kick)),
        }
    }

    fn may_go_out(&mut self, bench: &mut Workbench, packet: Outbound<'_>) -> bool {
        if !bench.shared.pipeline.watches_outbound() {
            return true;
        }
        let pipeline = bench.shared.pipeline.clone();
        let mut context = ChannelContext {
            channel: self,
            bench,
            raw: &[],
        };
        pipeline.outbound(&mut context, packet)
    }

    /// Pushes an entry, or drops it and lets an `Overflow` say so once there is
    /// room: past the bounds nothing is queued, since the store has it.
    fn push(&mut self, bench: &mut Workbench, content: Arc<PushContent>, user_seq: u64) {
        if !self.may_go_out(bench, Outbound::Push(&content.entry)) {
            return;
        }
        let limits = &bench.shared.config.push;
        let (unacked, unacked_bytes) = self
            .pushes
            .as_ref()
            .map_or((0, 0), |window| (window.len(), window.bytes()));
        if self.pushes_dropped > 0
            || unacked >= limits.window_max
            || unacked_bytes > limits.window_max_bytes
            || self.output_bytes() > limits.output_high_bytes
        {
            bench.metrics.pushes_dropped.increment(1);
            self.pushes_dropped = self.pushes_dropped.saturating_add(1);
            return;
        }
        bench.metrics.pushes.increment(1);
        let next_push = self.next_push;
        let window = self
            .pushes
            .get_or_insert_with(|| Box::new(PushWindow::new(next_push)));
        let number = window.next_number();
        let output = self.output.get_or_insert_with(|| bench.pool.take());
        let bytes = output.push(self.framing, &content, number, user_seq, &mut bench.pool);
        let trace = content.trace;
        window.append(content, user_seq, self.appended_bytes + bytes as u64);
        self.appended(bytes, bench);
        if let Some(message) = trace {
            let to = bench.connection_id(self.key);
            bench.traces.pushed(self, to, message);
        }
    }

    /// Passes a backend's answer on, if the request is pending.
    fn respond(&mut self, bench: &mut Workbench, response: BackendResponse) {
        let id = response.request_id;
        let pending = self.requests.as_mut().is_some_and(|r| r.settle(id));
        if !pending {
            bench.metrics.answers_late.increment(1);
            return;
        }
        self.requests.take_if(|requests| requests.is_empty());
        if response.payload.len() > BODY_MAX_BYTES {
            let refusal = Refusal::new(ErrorCode::Internal, "the service's answer is too large");
            return self.refuse(bench, id, &refusal, bytes::Bytes::new());
        }
        let response = packet::Response {
            status: response.status,
            payload: response.payload,
        };
        self.send(bench, id, Body::Response(response));
    }

    /// Pushes anew what the client's former connection had unacked. For what there
    /// is no room, an `Overflow` makes good.
    fn carry(&mut self, bench: &mut Workbench, pushes: Vec<Unacked>, carried: usize) {
        let left = pushes.len() - carried;
        bench.metrics.pushes_carried.increment(carried as u64);
        for push in pushes.into_iter().take(carried) {
            self.push(bench, push.content, push.user_seq);
        }
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        self.pushes_dropped = self.pushes_dropped.saturating_add(left);
    }

    /// False when the answer is to another Connect.
    fn session_opened(
        &mut self,
        bench: &mut Workbench,
        opened: SessionOpened,
        carried_pushes: u32,
    ) -> bool {
        let connection_id = bench.connection_id(self.key).to_bytes().to_vec();
        let Some(identity) = &mut self.identity else {
            return false;
        };
        if identity.connect_id != opened.request_id {
            return false;
        }
        identity.login = opened.login;
        identity.token_epoch.get_or_insert(opened.token_epoch);
        identity.expires_unix_ms = opened.session_expires_ms;
        let (id, user_id) = (identity.connect_id, identity.user.to_string());
        self.enter(Phase::Open, bench);
        let config = &bench.shared.config;
        let ack = packet::ConnectAck {
            connection_id: connection_id.into(),
            user_id,
            server_time_ms: bench.now.unix_ms,
            heartbeat_interval_ms: config.timeouts.heartbeat_interval_ms,
            // Frames are capped far below 4 GiB.
            frame_max_bytes: config.limits.frame_max_bytes as u32,
            body_max_bytes: BODY_MAX_BYTES as u32,
            send_window: sluice_protocol::limits::SEND_WINDOW,
            resume_token: opened.resume_token,
            resume_token_expires_ms: opened.resume_token_expires_ms,
            token_expires_ms: opened.session_expires_ms,
            inbox_seq: opened.inbox_seq,
            packets_per_s: config.limits.packets_per_s,
            packets_burst: config.limits.packets_burst,
            carried_pushes,
        };
        self.send(bench, id, Body::ConnectAck(ack));
        self.arm_anew(bench);
        true
    }

    fn session_prolonged(&mut self, bench: &mut Workbench, opened: &SessionOpened) {
        // Answers of two refreshes may cross, when the first was given up.
        let mut ends_ms = opened.session_expires_ms;
        if let Some(identity) = &mut self.identity {
            identity.refresh_ended();
            ends_ms = ends_ms.max(identity.expires_unix_ms);
            identity.expires_unix_ms = ends_ms;
        }
        let refreshed = packet::TokenRefreshed {
            token_expires_ms: ends_ms,
            resume_token: opened.resume_token.clone(),
            resume_token_expires_ms: opened.resume_token_expires_ms,
        };
        self.send(bench, opened.request_id, Body::TokenRefreshed(refreshed));
    }

    fn login_refused(&mut self, bench: &mut Workbench, refused: SessionRefused) {
        let (address, now_ms) = (self.peer.ip(), bench.now.mono_ms);
        bench.shared.addresses.login_failed(address, now_ms);
        let id = refused.request_id;
        let farewell = Farewell::refused(CloseReason::LoginFailed, id, refusal_of(refused));
        self.close(bench, farewell);
    }
}

fn refusal_of(refused: SessionRefused) -> Refusal {
    let code = ErrorCode::try_from(refused.code).unwrap_or(ErrorCode::Internal);
    Refusal::new(code, refused.reason)
}
