//! The pipeline: an ordered list of handlers, built once and shared by all
//! channels. A packet goes through them one by one until one has done with it.

use std::{fmt, sync::Arc};

use sluice_protocol::{
    Refusal,
    packet::{CloseReason, ErrorCode, Packet},
};

use crate::{context::ChannelContext, farewell::Farewell, handlers};

/// One stage of the pipeline. Synchronous and quick: it runs on the event loop.
/// What must wait goes over the bus.
pub trait Handler: Send + Sync + 'static {
    /// A packet from the client.
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow;

    /// A packet that a service sends to the client, still encoded; `false`
    /// keeps it back. Asked only if [`Handler::sees_outbound`].
    fn outbound(&self, context: &mut ChannelContext<'_>, packet: Outbound<'_>) -> bool {
        let _ = (context, packet);
        true
    }

    /// Whether [`Handler::outbound`] is to be asked: most stages don't care,
    /// and a push should not pay for them.
    fn sees_outbound(&self) -> bool {
        false
    }
}

/// What becomes of an inbound packet.
#[derive(Debug)]
pub enum Flow {
    /// On to the next handler.
    Next(Packet),
    /// This handler has done with it.
    Done,
    /// The channel is to be closed, with these last words.
    Close(Farewell),
}

/// A packet on its way to a client.
#[derive(Debug, Clone, Copy)]
pub enum Outbound<'a> {
    /// An encoded answer to one of its packets.
    Answer(&'a [u8]),
    /// An encoded ephemeral packet.
    Event(&'a [u8]),
    /// An encoded `Entry`, about to be pushed.
    Push(&'a [u8]),
}

/// See the module.
#[derive(Clone)]
pub struct Pipeline {
    handlers: Arc<[Arc<dyn Handler>]>,
    outbound: Arc<[Arc<dyn Handler>]>,
}

// === impl Pipeline ===

impl Pipeline {
    /// The shipped handlers in their order, with `extra` ones (a user's own)
    /// where a packet is known to come from a logged-in client and has not gone
    /// anywhere yet.
    pub fn standard(extra: impl IntoIterator<Item = Arc<dyn Handler>>) -> Self {
        let mut handlers: Vec<Arc<dyn Handler>> = vec![
            Arc::new(handlers::RateLimit),
            Arc::new(handlers::Heartbeat),
            Arc::new(handlers::Auth),
            Arc::new(handlers::Replay),
        ];
        handlers.extend(extra);
        handlers.push(Arc::new(handlers::PushAcks));
        handlers.push(Arc::new(handlers::Session));
        handlers.push(Arc::new(handlers::Requests));
        handlers.push(Arc::new(handlers::Dispatch));
        Self::of(handlers)
    }

    fn of(handlers: Vec<Arc<dyn Handler>>) -> Self {
        let outbound = handlers.iter().filter(|handler| handler.sees_outbound());
        Self {
            outbound: outbound.cloned().collect(),
            handlers: handlers.into(),
        }
    }

    pub(crate) fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let id = packet.id;
        let mut packet = packet;
        for handler in self.handlers.iter() {
            match handler.inbound(context, packet) {
                Flow::Next(next) => packet = next,
                flow @ (Flow::Done | Flow::Close(_)) => return flow,
            }
        }
        // Nobody took it: a packet that only a server sends.
        let refusal = Refusal::new(
            ErrorCode::UnexpectedPacket,
            "only the server sends packets of this type",
        );
        Flow::Close(Farewell::refused(
            CloseReason::UnexpectedPacket,
            id,
            refusal,
        ))
    }

    /// True if the packet may go out.
    pub(crate) fn outbound(&self, context: &mut ChannelContext<'_>, packet: Outbound<'_>) -> bool {
        self.outbound
            .iter()
            .all(|handler| handler.outbound(context, packet))
    }

    pub(crate) fn watches_outbound(&self) -> bool {
        !self.outbound.is_empty()
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({} handlers)", self.handlers.len())
    }
}
