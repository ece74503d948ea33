//! How many packets one connection may send. Who goes over is told so; who does
//! not heed it is closed.
//!
//! A `PushAck` costs as many packets as it carries cursors, since each of them
//! is work for the services. It is admitted like any packet, and what it costs
//! beyond the limit is a debt: the limit holds in the long run, and nobody is
//! refused for the size of one packet.

use bytes::Bytes;
use sluice_protocol::{
    Refusal,
    limits::PUSH_ACK_CURSORS_MAX,
    packet::{CloseReason, ErrorCode, Packet, packet::Body},
};

use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
};

/// A meter a channel ([`crate::rate::RateMeter`]).
#[derive(Debug)]
pub(crate) struct RateLimit;

// === impl RateLimit ===

impl Handler for RateLimit {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let (rate, now_ms) = (context.bench.shared.packet_rate, context.now().mono_ms);
        let channel = &mut *context.channel;
        if channel.rate.take(rate, now_ms).is_ok() {
            channel.rate.charge(rate, cost(&packet) - 1, now_ms);
            // Not forgiven all at once: even a flood has packets taken now and then.
            channel.strikes = channel.strikes.saturating_sub(1);
            return Flow::Next(packet);
        }
        channel.strikes += 1;
        if channel.strikes > context.bench.shared.config.limits.packets_burst {
            return Flow::Close(CloseReason::RateLimited.into());
        }
        refuse(context, packet);
        Flow::Done
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
