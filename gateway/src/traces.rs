//! What one loop reports of messages that are followed ([`sluice_trace`]).
//!
//! Cost while nothing is: a relaxed load a turn, and a look at a flag or an empty list
//! where a packet comes, an answer goes or something was written.

use prost::Message as _;
use sluice_protocol::{
    ClientMsgId, ConnectionId,
    packet::{Packet, packet::Body},
};
use sluice_trace::{PushStage, Sighting, Stage, TraceId, Tracer};

use crate::{channel::Channel, slab::ChannelKey};

/// A loop's hand in the tracer; see the module.
pub(crate) struct LoopTraces {
    tracer: Tracer,
    is_on: bool,
    /// When the bytes came that are worked on.
    read_us: u64,
    /// The followed message that goes through the pipeline.
    current: Option<TraceId>,
    /// In outputs, and not written yet.
    unwritten: Vec<Unwritten>,
}

/// Where in a channel's output a followed message ends.
struct Unwritten {
    key: ChannelKey,
    output_offset: u64,
    message: TraceId,
    bears: Bears,
}

/// What is in the output.
#[derive(Clone, Copy)]
enum Bears {
    Ack,
    Push(ConnectionId),
}

/// Of what isn't written yet; what is over is told as never written.
const UNWRITTEN_MAX: usize = 4_096;

// === impl LoopTraces ===

impl LoopTraces {
    pub(crate) fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            is_on: false,
            read_us: 0,
            current: None,
            unwritten: Vec::new(),
        }
    }

    /// A turn begins: is anything followed in it?
    pub(crate) fn begin_turn(&mut self) {
        self.is_on = self.tracer.is_armed();
        if !self.is_on && !self.unwritten.is_empty() {
            self.unwritten = Vec::new();
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Bytes have just come from a client.
    pub(crate) fn note_read(&mut self) {
        if self.is_on {
            self.read_us = self.tracer.now_us();
        }
    }

    /// The followed message that goes through the pipeline, if one does: it is to be
    /// handed to its lane.
    pub(crate) fn enter_lane(&self) -> Option<TraceId> {
        let message = self.current?;
        self.tracer.mark(message, Stage::Lane);
        Some(message)
    }

    /// The packet that went through the pipeline is done with.
    pub(crate) fn end_packet(&mut self) {
        self.current = None;
    }

    /// Something was written of a channel's output, up to this offset.
    pub(crate) fn written(&mut self, key: ChannelKey, output_offset: u64) {
        if self.unwritten.is_empty() {
            return;
        }
        let tracer = &self.tracer;
        self.unwritten.retain(|it| {
            let is_written = it.key == key && it.output_offset <= output_offset;
            match it.bears {
                _ if !is_written => {}
                Bears::Ack => tracer.mark(it.message, Stage::AckWrite),
                Bears::Push(to) => {
                    tracer.mark_push(it.message, to, PushStage::Write);
                }
            }
            !is_written
        });
    }

    /// The channel is gone.
    pub(crate) fn forget(&mut self, key: ChannelKey) {
        if !self.unwritten.is_empty() {
            self.unwritten.retain(|it| it.key != key);
        }
    }

    /// A push of a followed message is in the channel's output, where it ends there.
    pub(crate) fn pushed(&mut self, channel: &Channel, to: ConnectionId, message: TraceId) {
        if self.tracer.mark_push(message, to, PushStage::Push) {
            self.expect(channel, message, Bears::Push(to));
        }
    }

    /// Its PushAck has come.
    pub(crate) fn push_acked(&self, from: ConnectionId, message: TraceId) {
        self.tracer.mark_push(message, from, PushStage::Ack);
    }

    /// Looks at a packet that was just decoded; asked only while it [is on](Self::is_on).
    pub(crate) fn note_packet(&mut self, channel: &Channel, from: ConnectionId, packet: &Packet) {
        let Some(Body::Send(send)) = &packet.body else {
            return;
        };
        self.current = self.find(channel, from, &send.client_msg_id, true);
        if let Some(message) = self.current {
            self.tracer.mark_at(message, Stage::Read, self.read_us);
            self.tracer.mark(message, Stage::Decode);
        }
    }

    /// Looks at an answer that was just put into the channel's output; asked only while
    /// it [is on](Self::is_on).
    pub(crate) fn note_answer(&mut self, channel: &Channel, to: ConnectionId, packet: &[u8]) {
        let Ok(Packet {
            body: Some(Body::SendAck(ack)),
            ..
        }) = Packet::decode(packet)
        else {
            return;
        };
        if let Some(message) = self.find(channel, to, &ack.client_msg_id, false) {
            self.tracer.mark(message, Stage::Ack);
            self.expect(channel, message, Bears::Ack);
        }
    }

    fn find(
        &self,
        channel: &Channel,
        connection: ConnectionId,
        client_msg_id: &[u8],
        is_fresh: bool,
    ) -> Option<TraceId> {
        self.tracer.find(&Sighting {
            sender: &channel.identity.as_ref()?.user,
            message: ClientMsgId::parse(client_msg_id).ok()?,
            connection: Some(connection),
            is_fresh,
        })
    }

    fn expect(&mut self, channel: &Channel, message: TraceId, bears: Bears) {
        if self.unwritten.len() < UNWRITTEN_MAX {
            self.unwritten.push(Unwritten {
                key: channel.key,
                output_offset: channel.appended_bytes,
                message,
                bears,
            });
        }
    }
}
