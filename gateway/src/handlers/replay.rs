//! Refuses a `Connect` that was recorded and sent again: its nonce was used, or
//! its time is long past. Comes after [`super::Auth`], which has verified the
//! token, if there is one: only the nonces of those are remembered. A resume
//! token is proven by the store alone, which takes each of them once.

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
        let identity = context.channel.identity.as_ref();
        let proven = identity.is_some_and(|identity| identity.token_epoch.is_some());
        let (guard, now_ms) = (&context.bench.shared.replay, context.now().unix_ms);
        match guard.check(&connect.nonce, connect.time_ms, proven, now_ms) {
            ReplayVerdict::Fresh => Flow::Next(packet),
            ReplayVerdict::Refused(refusal) => login_failed(context, packet.id, refusal),
            ReplayVerdict::Full { retry_after_ms } => {
                tracing::warn!(retry_after_ms, "no room for more connect nonces");
                Flow::Close(CloseReason::Overloaded.into())
            }
        }
    }
}
