//! Who may speak: nothing but `Connect` before login, and a `Connect` whose
//! token is good. Whether the user still exists and is not banned is for the
//! session service to say, which is asked next ([`super::Session`]).

use sluice_protocol::{
    DeviceId, PROTOCOL_VERSION, Refusal, UserId,
    limits::NAME_MAX_BYTES,
    packet::{CloseReason, Connect, ErrorCode, Packet, packet::Body},
};

use crate::{
    channel::{Identity, Phase},
    context::ChannelContext,
    farewell::Farewell,
    pipeline::{Flow, Handler},
};

/// Checks `Connect` packets and lets nothing else through before login.
#[derive(Debug)]
pub(crate) struct Auth;

// === impl Auth ===

impl Handler for Auth {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        match (context.phase(), &packet.body) {
            (Phase::AwaitLogin, Some(Body::Connect(connect))) => {
                match identify(context, packet.id, connect) {
                    Ok(identity) => {
                        context.channel.identity = Some(Box::new(identity));
                        Flow::Next(packet)
                    }
                    Err(refusal) => login_failed(context, packet.id, refusal),
                }
            }
            (Phase::Open, Some(Body::Connect(_))) => {
                let refusal = Refusal::new(
                    ErrorCode::UnexpectedPacket,
                    "this connection is logged in already",
                );
                Flow::Close(Farewell::refused(
                    CloseReason::UnexpectedPacket,
                    packet.id,
                    refusal,
                ))
            }
            // One may leave at any time.
            (Phase::Open, _) | (_, Some(Body::Disconnect(_))) => Flow::Next(packet),
            (Phase::AwaitLogin | Phase::Opening | Phase::Closing, _) => {
                let refusal = Refusal::new(
                    ErrorCode::LoginRequired,
                    "log in with Connect and wait for ConnectAck first",
                );
                Flow::Close(Farewell::refused(
                    CloseReason::LoginRequired,
                    packet.id,
                    refusal,
                ))
            }
        }
    }
}

/// Counts the failure against the address and ends the connection.
pub(super) fn login_failed(context: &ChannelContext<'_>, id: u64, refusal: Refusal) -> Flow {
    let (shared, address) = (&context.bench.shared, context.channel.peer.ip());
    shared
        .addresses
        .login_failed(address, context.now().mono_ms);
    Flow::Close(Farewell::refused(CloseReason::LoginFailed, id, refusal))
}

fn identify(context: &ChannelContext<'_>, id: u64, connect: &Connect) -> Result<Identity, Refusal> {
    let shared = &context.bench.shared;
    if !shared
        .addresses
        .may_log_in(context.channel.peer.ip(), context.now().mono_ms)
    {
        return Err(Refusal::new(
            ErrorCode::RateLimited,
            "too many failed logins from this address; wait a minute",
        ));
    }
    if connect.protocol_version != PROTOCOL_VERSION {
        return Err(Refusal::new(
            ErrorCode::UnsupportedVersion,
            format!("this server speaks protocol version {PROTOCOL_VERSION}"),
        ));
    }
    if connect.agent.len() > NAME_MAX_BYTES {
        return Err(Refusal::bad_request(format!(
            "agent must have at most {NAME_MAX_BYTES} bytes"
        )));
    }
    let device = DeviceId::parse(&connect.device_id)?;
    let (user, token_epoch, expires_unix_ms) = if connect.resume_token.is_empty() {
        let token = shared
            .verifier
            .verify(&connect.token, context.now().unix_ms)?;
        if !connect.user_id.is_empty() && connect.user_id != token.user.as_str() {
            return Err(Refusal::new(
                ErrorCode::BadToken,
                "the token is of another user than user_id",
            ));
        }
        (token.user, Some(token.token_epoch), token.expires_ms)
    } else {
        // Only the service can tell a resume token; it names the expiry too.
        (UserId::parse(&connect.user_id)?, None, 0)
    };
    let platform = connect.platform;
    Ok(Identity::new(
        user,
        device,
        platform,
        id,
        token_epoch,
        expires_unix_ms,
    ))
}
