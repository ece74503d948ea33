//! Logins, refreshes and logouts: on to the session service.

use bytes::Bytes;
use prost::Message;
use sluice_protocol::{
    ConnectionId, Refusal,
    envelope::{CloseSession, OpenSession, Origin, TokenClaims, Up, up},
    limits::SHARED_PARTITIONS,
    packet::{CloseReason, Connect, Disconnect, ErrorCode, Packet, RefreshToken, packet::Body},
    partition_of,
};

use crate::{
    channel::Phase,
    context::ChannelContext,
    farewell::Farewell,
    pipeline::{Flow, Handler},
};

/// Opens, prolongs and ends sessions.
#[derive(Debug)]
pub(crate) struct Session;

// === impl Session ===

impl Handler for Session {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let id = packet.id;
        match packet.body {
            Some(Body::Connect(connect)) => open(context, id, connect),
            Some(Body::RefreshToken(refresh)) => prolong(context, id, &refresh),
            Some(Body::Disconnect(disconnect)) => leave(context, disconnect),
            body => Flow::Next(Packet { id, body }),
        }
    }
}

fn open(context: &mut ChannelContext<'_>, id: u64, connect: Connect) -> Flow {
    // The auth handler has verified the token, if it came with one.
    let claims = context.channel.identity.as_ref().and_then(|identity| {
        identity.token_epoch.map(|token_epoch| TokenClaims {
            token_epoch,
            expires_ms: identity.expires_unix_ms,
        })
    });
    let body = up::Body::OpenSession(OpenSession {
        platform: connect.platform,
        agent: connect.agent,
        claims,
        resume_token: connect.resume_token,
        refresh: false,
        connect_time_ms: connect.time_ms.min(context.now().unix_ms),
    });
    if !hand_up(context, id, body) {
        return Flow::Close(CloseReason::Overloaded.into());
    }
    if let Ok(former) = ConnectionId::parse(&connect.former_connection_id)
        && former.incarnation == context.bench.shared.incarnation
    {
        let heir = context.channel.key;
        context.bench.handovers.announce(heir, former);
    }
    context.channel.enter(Phase::Opening, context.bench);
    Flow::Done
}

/// One at a time: each is a signature to verify here and a write in the stream
/// that other users' logins wait in.
fn prolong(context: &mut ChannelContext<'_>, id: u64, refresh: &RefreshToken) -> Flow {
    let mono_ms = context.now().mono_ms;
    let session = context.channel.identity.as_ref();
    if session.is_some_and(|session| session.is_refreshing(mono_ms)) {
        context.busy(id, Bytes::new());
        return Flow::Done;
    }
    let now_ms = context.now().unix_ms;
    let verified = context.bench.shared.verifier.verify(&refresh.token, now_ms);
    let token = match verified {
        Ok(token) if Some(&token.user) == context.user() => token,
        Ok(_) => {
            let refusal = Refusal::new(ErrorCode::BadToken, "the token is of another user");
            context.refuse(id, &refusal, Bytes::new());
            return Flow::Done;
        }
        Err(refusal) => {
            context.refuse(id, &refusal, Bytes::new());
            return Flow::Done;
        }
    };
    // An older token proves no more than the session's own did: it doesn't shorten it.
    let session = context.channel.identity.as_ref();
    let ends_ms = session.map_or(0, |session| session.expires_unix_ms);
    let body = up::Body::OpenSession(OpenSession {
        claims: Some(TokenClaims {
            token_epoch: token.token_epoch,
            expires_ms: token.expires_ms.max(ends_ms),
        }),
        refresh: true,
        ..OpenSession::default()
    });
    if !hand_up(context, id, body) {
        context.busy(id, Bytes::new());
    } else if let Some(session) = &mut context.channel.identity {
        session.refresh_began(mono_ms);
    }
    Flow::Done
}

fn leave(context: &mut ChannelContext<'_>, disconnect: Disconnect) -> Flow {
    if disconnect.logout && context.channel.is_open() {
        let body = up::Body::CloseSession(CloseSession {
            forget_resume_token: true,
        });
        if !hand_up(context, 0, body) {
            tracing::warn!("a logout found its lane full; its resume token lives on");
        }
    }
    // There is no next connection to leave anything to.
    context.channel.pushes = None;
    Flow::Close(Farewell::silent())
}

/// False when the lane is full.
fn hand_up(context: &ChannelContext<'_>, request_id: u64, body: up::Body) -> bool {
    let (Some(user), Some(device)) = (context.user(), context.device()) else {
        return false;
    };
    let up = Up {
        origin: Some(Origin {
            user_id: user.to_string(),
            device_id: device.to_string(),
            connection_id: context.connection_id().to_bytes().to_vec().into(),
            request_id,
            reply_to: context.bench.shared.reply_to.clone(),
        }),
        received_at_ms: context.now().unix_ms,
        body: Some(body),
    };
    let partition = partition_of(user.as_str().as_bytes(), SHARED_PARTITIONS);
    let lane = context.bench.shared.lanes.session(partition);
    lane.offer(up.encode_to_vec().into(), context.now().mono_ms)
        .is_ok()
}
