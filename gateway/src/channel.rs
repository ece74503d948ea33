//! One client connection as the handlers see it: who it is, what it still has
//! to write, what waits for an answer. Touched by its own loop only.
//!
//! Cost: about 200 bytes for an idle, logged-in channel and about 150 for names and
//! session; buffers, windows and tables exist only while something is in them. One
//! that sleeps ([`crate::connections`]) has some 90 bytes in all.

mod packed;

use std::net::SocketAddr;

use bytes::Bytes;
use sluice_bus::{Bind, Route};
use sluice_codec::Framing;
use sluice_protocol::{
    DeviceId, Refusal, UserId,
    envelope::LiveSession,
    packet::{self, CloseReason, Packet, packet::Body},
};
use sluice_timer::TimerHandle;

use crate::{
    farewell::Farewell, handover::Legacy, output::Output, push_window::PushWindow, rate::RateMeter,
    requests::PendingRequests, rtt::RttEstimator, slab::ChannelKey, workbench::Workbench,
};

/// Where a channel stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; waits for `Connect`.
    AwaitLogin,
    /// `Connect` was verified here and is with the session service.
    Opening,
    /// `ConnectAck` was sent.
    Open,
    /// Its last packets are being written; what comes in is ignored.
    Closing,
}

/// Who is connected.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) platform: i32,
    /// Until when a refresh counts as under way; 0: none is. Whole seconds of the
    /// loop's clock, for which there is room beside the platform.
    refresh_until_s: u32,
    /// `Packet.id` of the Connect.
    pub(crate) connect_id: u64,
    /// Of the token it came with; when resuming, known once the session is open.
    pub(crate) token_epoch: Option<u64>,
    /// Number of the login; 0 before it is open.
    pub(crate) login: u64,
    /// When the session must have been refreshed.
    pub(crate) expires_unix_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) key: ChannelKey,
    pub(crate) peer: SocketAddr,
    pub(crate) framing: Framing,
    pub(crate) phase: Phase,
    pub(crate) flags: Flags,
    pub(crate) identity: Option<Box<Identity>>,
    pub(crate) accepted_ms: u64,
    pub(crate) last_inbound_ms: u64,
    /// When the frame began that is still open; 0: none is.
    pub(crate) frame_began_ms: u64,
    /// Since when the phase, or a full output, lasts.
    pub(crate) phase_since_ms: u64,
    pub(crate) output_full_since_ms: u64,
    pub(crate) timer: Option<TimerHandle>,
    pub(crate) timer_due_ms: u64,
    pub(crate) output: Option<Box<Output>>,
    /// Bytes ever appended to the output, and written of them.
    pub(crate) appended_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) pushes: Option<Box<PushWindow>>,
    pub(crate) next_push: u64,
    pub(crate) rtt: RttEstimator,
    /// Pushes dropped since the last `Overflow`.
    pub(crate) pushes_dropped: u32,
    /// Pulls, too.
    pub(crate) requests: Option<Box<PendingRequests>>,
    pub(crate) rate: RateMeter,
    /// Packets refused that none was taken for since.
    pub(crate) strikes: u32,
    /// Packets handed to services whose answer has not come.
    pub(crate) unanswered: u32,
    pub(crate) last_handed_up_ms: u64,
}

/// What is the matter with the socket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    /// There may be bytes to read.
    pub(crate) readable: bool,
    /// The peer has finished writing: read to the end.
    pub(crate) read_closed: bool,
    /// The last write filled the socket; an edge will tell.
    pub(crate) write_blocked: bool,
    pub(crate) on_ready_list: bool,
    pub(crate) on_dirty_list: bool,
    /// Output over its high-water mark: no reading, no timers but one.
    pub(crate) paused: bool,
    /// WebSocket: the handshake was answered. TCP: always.
    pub(crate) established: bool,
    /// Everything is written and the write side is shut.
    pub(crate) shut: bool,
    /// To be taken out of the slab.
    pub(crate) gone: bool,
}

/// An answer that was lost must not shut a session out from refreshing for ever.
const REFRESH_WAIT_MS: u64 = 10_000;

// === impl Identity ===

impl Identity {
    /// Of a login that is not open yet.
    pub(crate) fn new(
        user: UserId,
        device: DeviceId,
        platform: i32,
        connect_id: u64,
        token_epoch: Option<u64>,
        expires_unix_ms: u64,
    ) -> Self {
        Self {
            user,
            device,
            platform,
            refresh_until_s: 0,
            connect_id,
            token_epoch,
            login: 0,
            expires_unix_ms,
        }
    }

    /// True while the answer to a refresh is waited for.
    pub(crate) fn is_refreshing(&self, now_ms: u64) -> bool {
        u64::from(self.refresh_until_s) * 1000 > now_ms
    }

    /// A refresh was handed up.
    pub(crate) fn refresh_began(&mut self, now_ms: u64) {
        let until_s = now_ms.saturating_add(REFRESH_WAIT_MS).div_ceil(1000);
        self.refresh_until_s = u32::try_from(until_s).unwrap_or(u32::MAX);
    }

    /// It was answered, one way or the other.
    pub(crate) fn refresh_ended(&mut self) {
        self.refresh_until_s = 0;
    }
}

// === impl Channel ===

impl Channel {
    pub(crate) fn new(key: ChannelKey, peer: SocketAddr, framing: Framing, now_ms: u64) -> Self {
        Self {
            key,
            peer,
            framing,
            phase: Phase::AwaitLogin,
            flags: Flags {
                established: framing == Framing::Tcp,
                ..Flags::default()
            },
            identity: None,
            accepted_ms: now_ms,
            last_inbound_ms: now_ms,
            frame_began_ms: 0,
            phase_since_ms: now_ms,
            output_full_since_ms: 0,
            timer: None,
            timer_due_ms: 0,
            output: None,
            appended_bytes: 0,
            written_bytes: 0,
            read_bytes: 0,
            pushes: None,
            next_push: 1,
            rtt: RttEstimator::default(),
            pushes_dropped: 0,
            requests: None,
            rate: RateMeter::default(),
            strikes: 0,
            unanswered: 0,
            last_handed_up_ms: 0,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    pub(crate) fn enter(&mut self, phase: Phase, bench: &Workbench) {
        self.phase = phase;
        self.phase_since_ms = bench.now.mono_ms;
    }

    pub(crate) fn output_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.bytes())
    }

    /// True if this is the user's channel, after login.
    pub(crate) fn belongs_to(&self, user: &str) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| identity.user.as_str() == user)
    }

    /// As the directory knows it; `None` unless it is open.
    pub(crate) fn bind(&self, bench: &Workbench) -> Option<Bind> {
        let identity = self.identity.as_ref().filter(|_| self.is_open())?;
        Some(Bind {
            user: identity.user.clone(),
            route: Route {
                device: identity.device.clone(),
                platform: identity.platform,
                connection: bench.connection_id(self.key),
            },
            login: identity.login,
        })
    }

    /// As its standing is checked; `None` unless it is open.
    pub(crate) fn live_session(&self, bench: &Workbench) -> Option<LiveSession> {
        let identity = self.identity.as_ref().filter(|_| self.is_open())?;
        let connection = bench.connection_id(self.key);
        Some(LiveSession {
            user_id: identity.user.to_string(),
            connection_id: Bytes::copy_from_slice(&connection.to_bytes()),
            token_epoch: identity.token_epoch?,
        })
    }

    /// The client has shown to be at another address. True if that is another host's.
    pub(crate) fn settle_at(&mut self, bench: &Workbench, address: SocketAddr) -> bool {
        let old = std::mem::replace(&mut self.peer, address);
        let has_other_host = old.ip() != address.ip();
        if has_other_host {
            let addresses = &bench.shared.addresses;
            addresses.move_over(old.ip(), address.ip(), bench.now.mono_ms);
        }
        has_other_host
    }

    // --- what goes out ---

    /// Sends a packet of the gateway's own.
    pub(crate) fn send(&mut self, bench: &mut Workbench, id: u64, body: Body) {
        if self.flags.shut || !self.flags.established {
            return;
        }
        let packet = Packet {
            id,
            body: Some(body),
        };
        let (cap, framing) = (bench.shared.config.limits.frame_max_bytes, self.framing);
        let output = self.output.get_or_insert_with(|| bench.pool.take());
        let bytes = output.packet(framing, &packet, cap, &mut bench.pool);
        self.appended(bytes, bench);
    }

    /// Sends an encoded packet from a service.
    pub(crate) fn send_encoded(&mut self, bench: &mut Workbench, packet: &Bytes) {
        let framing = self.framing;
        let output = self.output.get_or_insert_with(|| bench.pool.take());
        let bytes = output.payload(framing, packet, &mut bench.pool);
        self.appended(bytes, bench);
    }

    /// Sends the answer to the opening of an encrypted stream.
    pub(crate) fn send_opening(&mut self, bench: &mut Workbench, answer: &[u8]) {
        let output = self.output.get_or_insert_with(|| bench.pool.take());
        output.stage(answer);
        self.appended(answer.len(), bench);
    }

    /// Sends bytes outside of packets: WebSocket control frames, HTTP answers.
    pub(crate) fn send_raw(
        &mut self,
        bench: &mut Workbench,
        append: impl FnOnce(&mut bytes::BytesMut),
    ) {
        let mut bytes = bytes::BytesMut::new();
        append(&mut bytes);
        let output = self.output.get_or_insert_with(|| bench.pool.take());
        output.raw(&bytes, &mut bench.pool);
        self.appended(bytes.len(), bench);
    }

    /// Answers with the error.
    pub(crate) fn refuse(
        &mut self,
        bench: &mut Workbench,
        id: u64,
        refusal: &Refusal,
        client_msg_id: Bytes,
    ) {
        crate::metrics::refused(refusal.label());
        let error = packet::Error {
            client_msg_id,
            ..refusal.to_packet(bench.now.unix_ms)
        };
        self.send(bench, id, Body::Error(error));
    }

    /// Answers "not now".
    pub(crate) fn busy(&mut self, bench: &mut Workbench, id: u64, client_msg_id: Bytes) {
        bench.metrics.busy.increment(1);
        let retry_after_ms = bench.spread_ms(bench.shared.config.lanes.retry_after_ms);
        let busy = packet::Busy {
            retry_after_ms,
            client_msg_id,
        };
        self.send(bench, id, Body::Busy(busy));
    }

    /// Bytes were appended to the output: they are written at the turn's end.
    pub(crate) fn appended(&mut self, bytes: usize, bench: &mut Workbench) {
        self.appended_bytes += bytes as u64;
        self.mark_dirty(bench);
        let push = &bench.shared.config.push;
        let queued = self.output_bytes();
        if queued > push.output_max_bytes && !self.is_closing() {
            self.close(bench, CloseReason::SlowReader.into());
        } else if queued > push.output_high_bytes && !self.flags.paused {
            self.flags.paused = true;
            self.output_full_since_ms = bench.now.mono_ms;
            let due_ms = bench.now.mono_ms + bench.shared.config.timeouts.slow_reader_ms;
            self.arm(bench, due_ms);
        }
    }

    pub(crate) fn mark_dirty(&mut self, bench: &mut Workbench) {
        if !self.flags.on_dirty_list {
            self.flags.on_dirty_list = true;
            bench.dirty.push(self.key);
        }
    }

    pub(crate) fn mark_ready(&mut self, bench: &mut Workbench) {
        if !self.flags.on_ready_list {
            self.flags.on_ready_list = true;
            bench.ready.push(self.key);
        }
    }

    // --- pushes ---

    /// Lets an emptied window go, and owns up to dropped pushes once there is
    /// room for what the client will pull.
    pub(crate) fn shrink_window(&mut self, bench: &mut Workbench) {
        let push = &bench.shared.config.push;
        let unacked = self.pushes.as_ref().map_or(0, |window| window.len());
        if self.pushes_dropped > 0
            && unacked <= push.window_max / 2
            && self.output_bytes() <= push.output_low_bytes
        {
            let overflow = packet::Overflow {
                scope: packet::OverflowScope::All.into(),
                dropped: std::mem::take(&mut self.pushes_dropped).into(),
            };
            bench.metrics.overflows.increment(1);
            self.send(bench, 0, Body::Overflow(overflow));
        }
        if unacked == 0
            && let Some(window) = self.pushes.take()
        {
            self.next_push = window.next_number();
        }
    }

    // --- the end ---

    /// Says why, stops all that the channel took part in, and leaves only its
    /// output to be written.
    pub(crate) fn close(&mut self, bench: &mut Workbench, farewell: Farewell) {
        if self.is_closing() {
            return;
        }
        crate::metrics::closed(farewell.label());
        farewell.say(self, bench);
        self.leave(bench);
        self.enter(Phase::Closing, bench);
        self.arm(
            bench,
            bench.now.mono_ms + bench.shared.config.timeouts.closing_ms,
        );
        self.mark_dirty(bench);
    }

    /// Gone without a word: the peer closed, or the socket failed.
    pub(crate) fn abandon(&mut self, bench: &mut Workbench, why: &'static str) {
        if !self.is_closing() {
            crate::metrics::closed(why);
            self.leave(bench);
            self.enter(Phase::Closing, bench);
        }
        self.flags.gone = true;
        self.mark_dirty(bench);
    }

    /// Takes the channel out of the directory and lets go of its tables; what it has
    /// not seen acked is left to the next connection.
    fn leave(&mut self, bench: &mut Workbench) {
        let pushes = self.pushes.take();
        self.requests = None;
        let phase = self.phase;
        let Some(identity) = self.identity.take() else {
            return;
        };
        let Identity { user, device, .. } = *identity;
        let now_ms = bench.now.mono_ms;
        match phase {
            Phase::Open => {
                if let Some(window) = pushes.filter(|window| window.len() > 0) {
                    let legacy = Legacy {
                        user: user.clone(),
                        device: device.clone(),
                        pushes: window.into_unacked(),
                    };
                    let rule = bench.shared.legacy_rule;
                    bench.handovers.keep(self.key, legacy, now_ms, rule);
                }
                bench.unbind(user, device, self.key);
            }
            Phase::Opening if bench.handovers.forget(self.key) => {
                bench.unbind(user, device, self.key);
            }
            Phase::Opening => bench.orphans.remember(self.key, user, device, now_ms),
            Phase::AwaitLogin | Phase::Closing => {}
        }
    }

    /// Makes the timer fire at this time or earlier.
    pub(crate) fn arm(&mut self, bench: &mut Workbench, due_ms: u64) {
        if let Some(timer) = self.timer {
            if self.timer_due_ms <= due_ms {
                return;
            }
            if bench.wheel.rearm(timer, due_ms) {
                self.timer_due_ms = due_ms;
                return;
            }
        }
        self.timer_due_ms = due_ms;
        self.timer = bench.wheel.schedule(due_ms, self.key.slot).ok();
        if self.timer.is_none() {
            // The wheel has room for every slot of the slab, so this is a fault
            // of ours; without a timer the channel must not live on.
            tracing::error!("the timing wheel is full");
            self.flags.gone = true;
            self.mark_dirty(bench);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_under_way_until_its_answer_or_for_ten_seconds() {
        let (user, device) = (UserId::parse("alice"), DeviceId::parse("phone"));
        let mut identity = Identity::new(user.unwrap(), device.unwrap(), 0, 1, None, 0);
        assert!(!identity.is_refreshing(0));
        identity.refresh_began(1_234);
        assert!(identity.is_refreshing(11_233));
        assert!(!identity.is_refreshing(12_234));
        identity.refresh_began(20_000);
        identity.refresh_ended();
        assert!(!identity.is_refreshing(20_000));
    }
}
