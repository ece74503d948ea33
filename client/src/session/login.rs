//! A connection's beginning and life: log in or resume, heartbeat. Its end is in
//! `ending.rs`.

use bytes::Bytes;
use rand::RngExt;
use sluice_protocol::{
    PROTOCOL_VERSION,
    limits::{NONCE_BYTES, SEND_WINDOW},
    packet::{self, CloseReason, ErrorCode, Packet, packet::Body},
};

use super::{Output, Session, online::Online, pace::Pace, refresh::refresh_at_ms, refusal};
use crate::{DisconnectReason, Ended, Event, state::Change};

/// Tokens of a source that are refused in a row before the client gives up.
const TOKENS_REFUSED_MAX: u32 = 3;
/// Too many logins from this address failed: the next try comes after this span.
const LOGINS_LIMITED_PAUSE_MS: u64 = 60_000;
/// Pushes that are kept until the answer which they have overtaken is here.
const EARLY_MAX: usize = 512;
/// Heartbeat intervals are held within these, whatever the server says.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;

#[derive(Debug)]
pub(super) enum Phase {
    /// Without a connection until then (`None` only while it is decided), to back
    /// off or because it `is_asked`.
    Offline {
        connect_at_ms: Option<u64>,
        is_asked: bool,
    },
    /// The driver makes a connection (and gets a token).
    Connecting,
    /// `Connect` is on its way.
    LoggingIn {
        deadline_ms: u64,
        resuming: bool,
        keeps_itself_alive: bool,
    },
    /// Logged in.
    Online(Online),
    /// Over for good.
    Ended(Ended),
}

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Login {
    resume_token: Bytes,
    /// Of the last connection that stood: what it has not seen acked comes along to
    /// the next one.
    connection_id: Bytes,
    /// Server's clock minus the local one.
    clock_offset_ms: i64,
    /// Failed tries and short connections in a row.
    pub(super) failures: u32,
    tokens_refused: u32,
    /// Asking for a token again may give another one.
    token_is_renewable: bool,
    clock_was_adopted: bool,
    /// Of the last `Connect`. The server takes the later of two for the newer one.
    connect_time_ms: u64,
}

// === impl Login ===

impl Login {
    pub(super) fn new(resume_token: Bytes, clock_offset_ms: i64, token_is_renewable: bool) -> Self {
        Self {
            resume_token,
            connection_id: Bytes::new(),
            clock_offset_ms,
            failures: 0,
            tokens_refused: 0,
            token_is_renewable,
            clock_was_adopted: false,
            connect_time_ms: 0,
        }
    }

    pub(super) fn server_time_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.clock_offset_ms)
    }
}

// === impl Session ===

impl Session {
    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// As [`Online::heard_ms`].
    pub(super) fn heard_ms(&self) -> u64 {
        match &self.phase {
            Phase::Online(online) => online.heard_ms(),
            _ => 0,
        }
    }

    /// True when a connection is to be made now; then call [`Session::connecting`].
    pub(crate) fn connect_due(&self, now_ms: u64) -> bool {
        matches!(self.phase, Phase::Offline { connect_at_ms: Some(at), .. } if at <= now_ms)
    }

    /// A connection is being made. Says whether a login token will be needed.
    pub(crate) fn connecting(&mut self) -> bool {
        self.phase = Phase::Connecting;
        self.login.resume_token.is_empty()
    }

    /// The connection is there: logs in, by the resume token if there is one.
    /// `keeps_itself_alive`: its transport pings, and says when the server is silent.
    pub(crate) fn handle_connected(
        &mut self,
        now_ms: u64,
        token: Option<String>,
        keeps_itself_alive: bool,
    ) {
        if !matches!(self.phase, Phase::Connecting) {
            return;
        }
        let resuming = token.is_none();
        let mut nonce = [0; NONCE_BYTES];
        self.rng.fill(&mut nonce);
        let server_time_ms = self.login.server_time_ms(now_ms);
        let connect_time_ms = server_time_ms.max(self.login.connect_time_ms + 1);
        self.login.connect_time_ms = connect_time_ms;
        let connect = packet::Connect {
            protocol_version: PROTOCOL_VERSION,
            token: token.unwrap_or_default(),
            device_id: self.device.to_string(),
            platform: self.config.platform.into(),
            nonce: Bytes::copy_from_slice(&nonce),
            time_ms: connect_time_ms,
            resume_token: if resuming {
                self.login.resume_token.clone()
            } else {
                Bytes::new()
            },
            user_id: self.user.to_string(),
            agent: self.config.agent.clone(),
            former_connection_id: self.login.connection_id.clone(),
        };
        let id = self.packet_id();
        self.transmit.clear();
        self.transmit.push_back(Packet {
            id,
            body: Some(Body::Connect(connect)),
        });
        self.phase = Phase::LoggingIn {
            deadline_ms: now_ms.saturating_add(self.config.login_timeout_ms),
            resuming,
            keeps_itself_alive,
        };
    }

    pub(super) fn handle_login_packet(&mut self, now_ms: u64, body: Body) {
        match body {
            Body::ConnectAck(ack) => self.handle_connect_ack(now_ms, ack),
            Body::Error(error) => self.handle_login_error(now_ms, &error),
            Body::Busy(busy) => {
                let at = now_ms.saturating_add(busy.retry_after_ms.into());
                self.lose(now_ms, DisconnectReason::Closed(None), Some(at));
            }
            Body::Kick(kick) => self.handle_kick(now_ms, kick),
            Body::GoAway(go_away) => {
                let at = self.leave_at_ms(now_ms, &go_away);
                let reason = DisconnectReason::Closed(CloseReason::try_from(go_away.reason).ok());
                self.lose(now_ms, reason, at);
            }
            // Over UDP they may overtake the answer.
            push @ (Body::Push(_) | Body::GroupNotice(_)) if self.early.len() < EARLY_MAX => {
                self.early.push(push);
            }
            // Told again by the sync after it.
            _ => {}
        }
    }

    fn handle_connect_ack(&mut self, now_ms: u64, ack: packet::ConnectAck) {
        let Phase::LoggingIn {
            resuming,
            keeps_itself_alive,
            ..
        } = self.phase
        else {
            return;
        };
        let pace = Pace::granted(&ack, now_ms);
        self.login.tokens_refused = 0;
        self.login.clock_was_adopted = false;
        self.adopt_server_time(now_ms, ack.server_time_ms);
        self.keep_resume_token(ack.resume_token);
        // Copied, as the frame that it came in is larger.
        self.login.connection_id = Bytes::copy_from_slice(&ack.connection_id);
        let window = if ack.send_window == 0 {
            SEND_WINDOW
        } else {
            ack.send_window
        };
        let heartbeat_ms =
            u64::from(ack.heartbeat_interval_ms).clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        self.outputs.push_back(Output::Heartbeat(heartbeat_ms));
        self.phase = Phase::Online(Online {
            since_ms: now_ms,
            keeps_itself_alive,
            heartbeat_ms,
            last_received_ms: now_ms,
            last_sent_ms: now_ms,
            last_ping_ms: now_ms,
            window: usize::try_from(window).unwrap_or(usize::MAX),
            leave_at_ms: None,
            going_away: None,
            refresh_at_ms: refresh_at_ms(ack.server_time_ms, ack.token_expires_ms, now_ms),
            refresh_id: None,
        });
        tracing::debug!(user = %self.user, device = %self.device, resuming, "connected");
        self.tell(Event::Connected { resumed: resuming });
        self.acks.connected(now_ms);
        self.pace = pace;
        self.sync_after_connect(now_ms, ack.inbox_seq, ack.carried_pushes > 0);
        self.repeat_calls();
        for push in std::mem::take(&mut self.early) {
            self.handle_online_packet(now_ms, 0, push);
        }
    }

    fn handle_login_error(&mut self, now_ms: u64, error: &packet::Error) {
        let Phase::LoggingIn { resuming, .. } = self.phase else {
            return;
        };
        let refusal = refusal(error);
        let reason = DisconnectReason::LoginRefused(refusal.clone());
        match error.code() {
            // Resuming is a convenience; whatever is wrong with it, a login may work.
            ErrorCode::BadResumeToken
            | ErrorCode::BadToken
            | ErrorCode::TokenExpired
            | ErrorCode::TokenRevoked
                if resuming =>
            {
                self.keep_resume_token(Bytes::new());
                self.lose(now_ms, reason, Some(now_ms));
            }
            ErrorCode::ClockSkew | ErrorCode::Replayed if !self.login.clock_was_adopted => {
                self.login.clock_was_adopted = true;
                self.adopt_server_time(now_ms, error.server_time_ms);
                // What was said by the wrong clock says nothing any more.
                self.login.connect_time_ms = 0;
                self.lose(now_ms, reason, Some(now_ms));
            }
            ErrorCode::BadToken | ErrorCode::TokenExpired | ErrorCode::TokenRevoked
                if self.login.token_is_renewable
                    && self.login.tokens_refused < TOKENS_REFUSED_MAX =>
            {
                self.login.tokens_refused += 1;
                self.lose(now_ms, reason, None);
            }
            ErrorCode::BadToken
            | ErrorCode::TokenExpired
            | ErrorCode::TokenRevoked
            | ErrorCode::Banned
            | ErrorCode::UnknownUser
            | ErrorCode::TooManyDevices
            | ErrorCode::UnsupportedVersion
            | ErrorCode::EncryptionRequired
            | ErrorCode::BadRequest => {
                self.events.push_back(Event::LoginRefused {
                    refusal: refusal.clone(),
                });
                self.end(now_ms, Ended::LoginRefused(refusal));
            }
            ErrorCode::RateLimited => {
                let at = now_ms.saturating_add(LOGINS_LIMITED_PAUSE_MS);
                self.lose(now_ms, reason, Some(at));
            }
            _ => self.lose(now_ms, reason, None),
        }
    }

    pub(super) fn keep_resume_token(&mut self, token: Bytes) {
        // Copied, as the frame that it came in is larger.
        let token = Bytes::copy_from_slice(&token);
        self.login.resume_token = token.clone();
        self.save(Change::ResumeToken(token));
    }

    pub(super) fn adopt_server_time(&mut self, now_ms: u64, server_time_ms: u64) {
        let offset = i128::from(server_time_ms) - i128::from(now_ms);
        let Ok(offset) = i64::try_from(offset) else {
            return;
        };
        // The way here takes time too; only a change that matters is written.
        let is_news = offset.abs_diff(self.login.clock_offset_ms) > 1_000;
        self.login.clock_offset_ms = offset;
        if is_news {
            self.save(Change::ClockOffset(offset));
        }
    }

    /// Ends what is silent, leaves what goes away, pings.
    pub(super) fn check_connection(&mut self, now_ms: u64) {
        match &mut self.phase {
            Phase::LoggingIn { deadline_ms, .. } if *deadline_ms <= now_ms => {
                self.lose(now_ms, DisconnectReason::LoginTimeout, None);
            }
            Phase::Online(online) => {
                if online.dead_at_ms().is_some_and(|at| at <= now_ms) {
                    return self.lose(now_ms, DisconnectReason::Silent, None);
                }
                if online.leave_at_ms.is_some_and(|at| at <= now_ms) {
                    let reason = DisconnectReason::Closed(Some(CloseReason::GoingAway));
                    return self.lose(now_ms, reason, Some(now_ms));
                }
                if online.ping_at_ms().is_some_and(|at| at <= now_ms) {
                    online.last_ping_ms = now_ms;
                    self.transmit.push_back(Packet {
                        id: 0,
                        body: Some(Body::Ping(packet::Ping {})),
                    });
                }
                if online.refresh_at_ms.is_some_and(|at| at <= now_ms) {
                    online.refresh_at_ms = None;
                    self.outputs.push_back(Output::RefreshToken);
                }
            }
            _ => {}
        }
    }

    pub(super) fn connection_deadline_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Offline { connect_at_ms, .. } => *connect_at_ms,
            Phase::LoggingIn { deadline_ms, .. } => Some(*deadline_ms),
            Phase::Online(online) => {
                let deadlines = [
                    online.dead_at_ms(),
                    online.ping_at_ms(),
                    online.leave_at_ms,
                    online.refresh_at_ms,
                ];
                deadlines.into_iter().flatten().min()
            }
            Phase::Connecting | Phase::Ended(_) => None,
        }
    }

    /// How many sends may be under way now.
    pub(super) fn send_window(&self) -> usize {
        match &self.phase {
            Phase::Online(online) if online.going_away.is_none() => online.window,
            _ => 0,
        }
    }
}
