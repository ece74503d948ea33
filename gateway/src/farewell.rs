//! The last packet of a channel: why it is closed.

use sluice_codec::{FrameError, Framing, decode_packet, websocket};
use sluice_protocol::{
    Refusal,
    packet::{self, CloseReason, ErrorCode, packet::Body},
};

use crate::{channel::Channel, workbench::Workbench};

/// Why a channel is closed and what its client is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Farewell {
    reason: CloseReason,
    last_words: LastWords,
}

#[derive(Debug, Clone, PartialEq)]
enum LastWords {
    /// The reason says it all: `Kick` where the session is over for good, else
    /// `GoAway`.
    Reason,
    /// What was wrong with the client's packet.
    Error { id: u64, refusal: Refusal },
    /// As the service put it.
    Kick(packet::Kick),
    /// The frame was broken; a peer that speaks no packets is told in HTTP or
    /// not at all.
    Frame(FrameError),
    /// Come back somewhere else.
    GoAway { delay_max_ms: u32 },
    /// The client is leaving by itself.
    Nothing,
}

// === impl Farewell ===

impl Farewell {
    /// Tells the client what was wrong with its packet.
    pub fn refused(reason: CloseReason, id: u64, refusal: Refusal) -> Self {
        Self {
            reason,
            last_words: LastWords::Error { id, refusal },
        }
    }

    pub(crate) fn kicked(kick: packet::Kick) -> Self {
        Self {
            reason: CloseReason::try_from(kick.reason).unwrap_or(CloseReason::Unspecified),
            last_words: LastWords::Kick(kick),
        }
    }

    pub(crate) fn broken_frame(error: FrameError) -> Self {
        Self {
            reason: error.close_reason(),
            last_words: LastWords::Frame(error),
        }
    }

    /// To a client that came in the clear, and said this first.
    pub(crate) fn encryption_required(packet: &[u8]) -> Self {
        let id = decode_packet(packet).map_or(0, |packet| packet.id);
        let reason = "this port takes encrypted connections only (SPEC, 17)";
        let refusal = Refusal::new(ErrorCode::EncryptionRequired, reason);
        Self::refused(CloseReason::LoginFailed, id, refusal)
    }

    pub(crate) fn going_away(delay_max_ms: u32) -> Self {
        Self {
            reason: CloseReason::GoingAway,
            last_words: LastWords::GoAway { delay_max_ms },
        }
    }

    pub(crate) fn silent() -> Self {
        Self {
            reason: CloseReason::Unspecified,
            last_words: LastWords::Nothing,
        }
    }

    /// For metrics: `bad_frame`.
    pub(crate) fn label(&self) -> &'static str {
        if self.last_words == LastWords::Nothing {
            return "client_left";
        }
        label(self.reason)
    }

    /// Puts the last packets into the channel's output.
    pub(crate) fn say(self, channel: &mut Channel, bench: &mut Workbench) {
        let mut close_code = websocket::close_code(self.reason);
        match self.last_words {
            LastWords::Reason if is_final(self.reason) => {
                let kick = packet::Kick {
                    reason: self.reason.into(),
                    message: String::new(),
                };
                channel.send(bench, 0, Body::Kick(kick));
            }
            LastWords::Reason => go_away(self.reason, 0, channel, bench),
            LastWords::GoAway { delay_max_ms } => {
                go_away(self.reason, delay_max_ms, channel, bench);
            }
            LastWords::Error { id, refusal } => {
                channel.refuse(bench, id, &refusal, bytes::Bytes::new());
            }
            LastWords::Kick(kick) => channel.send(bench, 0, Body::Kick(kick)),
            LastWords::Frame(error) => {
                close_code = error.websocket_close_code();
                broken(&error, channel, bench);
            }
            LastWords::Nothing => {}
        }
        if channel.framing == Framing::WebSocket && channel.flags.established {
            channel.send_raw(bench, |out| {
                websocket::append_close(close_code, label(self.reason), out);
            });
        }
    }
}

impl From<CloseReason> for Farewell {
    fn from(reason: CloseReason) -> Self {
        Self {
            reason,
            last_words: LastWords::Reason,
        }
    }
}

/// True where the client must not come back by itself (`packet.proto`).
fn is_final(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Replaced
            | CloseReason::LoggedOut
            | CloseReason::Banned
            | CloseReason::TokenRevoked
    )
}

/// The reason as the text of a WebSocket close frame (SPEC.md, 2.3), and as a
/// label of metrics.
fn label(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Unspecified => "unspecified",
        CloseReason::Replaced => "replaced",
        CloseReason::LoggedOut => "logged_out",
        CloseReason::Banned => "banned",
        CloseReason::TokenRevoked => "token_revoked",
        CloseReason::BadFrame => "bad_frame",
        CloseReason::BadPacket => "bad_packet",
        CloseReason::LoginRequired => "login_required",
        CloseReason::LoginFailed => "login_failed",
        CloseReason::LoginTimeout => "login_timeout",
        CloseReason::FrameTimeout => "frame_timeout",
        CloseReason::Idle => "idle",
        CloseReason::RateLimited => "rate_limited",
        CloseReason::TokenExpired => "token_expired",
        CloseReason::SlowReader => "slow_reader",
        CloseReason::UnexpectedPacket => "unexpected_packet",
        CloseReason::GoingAway => "going_away",
        CloseReason::Overloaded => "overloaded",
        CloseReason::Internal => "internal",
    }
}

pub(crate) fn go_away(
    reason: CloseReason,
    delay_max_ms: u32,
    channel: &mut Channel,
    bench: &mut Workbench,
) {
    let go_away = packet::GoAway {
        reason: reason.into(),
        reconnect_delay_min_ms: 0,
        reconnect_delay_max_ms: delay_max_ms,
    };
    channel.send(bench, 0, Body::GoAway(go_away));
}

fn broken(error: &FrameError, channel: &mut Channel, bench: &mut Workbench) {
    if error.is_foreign() {
        crate::metrics::refused(error.label().to_owned());
        if let Some(answer) = error.http_answer() {
            channel.send_raw(bench, |out| out.extend_from_slice(&answer));
        }
        return;
    }
    let id = match error {
        FrameError::UnknownPacket { id } => *id,
        _ => 0,
    };
    channel.refuse(bench, id, &error.refusal(), bytes::Bytes::new());
}
