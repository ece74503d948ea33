//! Refuses a `Connect` that was recorded and sent again: its nonce was used, or
//! its time is long past. Comes after [`super::Auth`], so that only those who
//! hold a token can fill the memory of nonces.

use sluice_protocol::packet::{CloseReason, Packet, packet::Body};

use super::auth::login_failed;
use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
    replay::ReplayVerdict,
};

/// Asks [`crate::replay::ReplayGuard`].
#[derive(Debug)]
pub(crate) struct Replay;

// === impl Replay ===

impl Handler for Replay {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let Some(Body::Connect(connect)) = &packet.body else {
            return Flow::Next(packet);
        };
        let guard = &context.bench.shared.replay;
        match guard.check(&connect.nonce, connect.time_ms, context.now().unix_ms) {
            ReplayVerdict::Fresh => Flow::Next(packet),
            ReplayVerdict::Refused(refusal) => login_failed(context, packet.id, refusal),
            ReplayVerdict::Full { retry_after_ms } => {
                tracing::warn!(retry_after_ms, "no room for more connect nonces");
                Flow::Close(CloseReason::Overloaded.into())
            }
        }
    }
}
