//! How many packets one connection may send. Who goes over is told so; who does
//! not heed it is closed.
//!
//! A `PushAck` costs as many packets as it carries cursors, since each of them
//! is work for the services. It is admitted like any packet, and what it costs
//! beyond the limit is a debt: the limit holds in the long run, and nobody is
//! refused for the size of one packet.
//!
//! Control frames of WebSocket never become packets; the connection has them
//! admitted by the same meter.

use bytes::Bytes;
use sluice_protocol::{
    Refusal,
    limits::PUSH_ACK_CURSORS_MAX,
    packet::{CloseReason, ErrorCode, Packet, packet::Body},
};

use crate::{
    channel::Channel,
    context::ChannelContext,
    pipeline::{Flow, Handler},
    workbench::Workbench,
};

/// A meter a channel ([`crate::rate::RateMeter`]).
#[derive(Debug)]
pub(crate) struct RateLimit;

/// What the limit says to a packet or a control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Taken,
    Refused,
    /// Refused once too often: the channel is to be closed.
    Exhausted,
}

// === impl RateLimit ===

impl Handler for RateLimit {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        match context.channel.admit(context.bench, cost(&packet)) {
            Admission::Taken => Flow::Next(packet),
            Admission::Refused => {
                refuse(context, packet);
                Flow::Done
            }
            Admission::Exhausted => Flow::Close(CloseReason::RateLimited.into()),
        }
    }
}

// === impl Channel ===

impl Channel {
    /// Takes `units`, at least one of which must be there.
    pub(crate) fn admit(&mut self, bench: &Workbench, units: u64) -> Admission {
        let (rate, now_ms) = (bench.shared.packet_rate, bench.now.mono_ms);
        if self.rate.take(rate, now_ms).is_ok() {
            self.rate.charge(rate, units.saturating_sub(1), now_ms);
            // Not forgiven all at once: even a flood has packets taken now and then.
            self.strikes = self.strikes.saturating_sub(1);
            return Admission::Taken;
        }
        self.strikes += 1;
        if self.strikes > bench.shared.config.limits.packets_burst {
            return Admission::Exhausted;
        }
        Admission::Refused
    }
}

/// At least 1. More cursors than the most are refused later, all at once.
fn cost(packet: &Packet) -> u64 {
    match &packet.body {
        Some(Body::PushAck(ack)) => ack.cursors.len().clamp(1, PUSH_ACK_CURSORS_MAX) as u64,
        _ => 1,
    }
}

fn refuse(context: &mut ChannelContext<'_>, packet: Packet) {
    match packet.body {
        Some(Body::Send(send)) => context.busy(packet.id, send.client_msg_id),
        Some(Body::Recall(recall)) => context.busy(packet.id, recall.client_msg_id),
        _ if packet.id == 0 => {}
        _ => {
            let refusal = Refusal::new(
                ErrorCode::RateLimited,
                "too many packets a second from this connection",
            );
            context.refuse(packet.id, &refusal, Bytes::new());
        }
    }
}
