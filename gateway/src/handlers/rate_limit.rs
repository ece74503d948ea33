//! How many packets one connection may send. Who goes over is told so; who does
//! not heed it is closed.

use bytes::Bytes;
use sluice_protocol::{
    Refusal,
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
        if context.channel.rate.take(rate, now_ms).is_ok() {
            context.channel.strikes = 0;
            return Flow::Next(packet);
        }
        context.channel.strikes += 1;
        if context.channel.strikes > context.bench.shared.config.limits.packets_burst {
            return Flow::Close(CloseReason::RateLimited.into());
        }
        refuse(context, packet);
        Flow::Done
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
