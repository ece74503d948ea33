//! PushAcks: empty the window, raise delivered cursors.

use sluice_protocol::{
    ConversationId, Refusal,
    limits::{PUSH_ACK_CURSORS_MAX, PUSH_ACK_RANGES_MAX},
    packet::{Packet, PushAck, packet::Body},
};

use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
};

/// Takes PushAcks.
#[derive(Debug)]
pub(crate) struct PushAcks;

// === impl PushAcks ===

impl Handler for PushAcks {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let id = packet.id;
        let Some(Body::PushAck(ack)) = packet.body else {
            return Flow::Next(packet);
        };
        if let Err(refusal) = take(context, &ack) {
            context.refuse(id, &refusal, bytes::Bytes::new());
        }
        Flow::Done
    }
}

fn take(context: &mut ChannelContext<'_>, ack: &PushAck) -> Result<(), Refusal> {
    if ack.ranges.len() > 2 * PUSH_ACK_RANGES_MAX || ack.ranges.len() % 2 == 1 {
        return Err(Refusal::bad_request(format!(
            "ranges must be at most {PUSH_ACK_RANGES_MAX} pairs"
        )));
    }
    if !ascend(ack.cumulative, &ack.ranges) {
        return Err(Refusal::bad_request(
            "ranges must ascend, without overlap, above cumulative",
        ));
    }
    if ack.cursors.len() > PUSH_ACK_CURSORS_MAX {
        return Err(Refusal::bad_request(format!(
            "cursors must be at most {PUSH_ACK_CURSORS_MAX}"
        )));
    }
    let now_ms = context.now().mono_ms;
    let connection = context.connection_id();
    let (channel, bench) = (&mut *context.channel, &mut *context.bench);
    let Some(identity) = &channel.identity else {
        return Ok(());
    };
    if let Some(window) = &mut channel.pushes {
        let (tally, acked) = (&mut bench.tally, &bench.metrics.pushes_acked);
        let traces = &bench.traces;
        let rtt = &mut channel.rtt;
        window.acknowledge(ack.cumulative, &ack.ranges, now_ms, rtt, |content| {
            acked.increment(1);
            if let Some(message) = content.trace {
                traces.push_acked(connection, message);
            }
            tally.delivered(&identity.user, &content.conversation, content.seq, now_ms);
        });
    }
    for cursor in &ack.cursors {
        let conversation = ConversationId::parse(&cursor.conversation_id)?;
        conversation.check_party(&identity.user)?;
        let conversation = conversation.as_str().into();
        bench
            .tally
            .delivered(&identity.user, &conversation, cursor.seq, now_ms);
    }
    channel.shrink_window(bench);
    Ok(())
}

/// True if each pair (first, last) lies above what comes before it.
fn ascend(cumulative: u64, ranges: &[u64]) -> bool {
    let mut told = cumulative;
    ranges.chunks_exact(2).all(|pair| {
        let (first, last) = (pair[0], pair[1]);
        let ascends = told < first && first <= last;
        told = last;
        ascends
    })
}
