//! How a connection ends, and what comes then: the next one after a pause, or nothing
//! any more.

use bytes::Bytes;
use rand::RngExt;
use sluice_protocol::packet::{self, CloseReason, Packet, packet::Body};

use super::{Output, Session, login::Phase};
use crate::{DisconnectReason, Ended, Event};

/// A connection that lasted this long was a good one: backing off starts anew.
const GOOD_CONNECTION_MS: u64 = 5_000;
/// Shorter ones count as failures, up to so many: waits stay below a second when
/// a network keeps breaking, and a server that keeps closing isn't hammered.
const SHORT_CONNECTIONS_MAX: u32 = 2;

// === impl Session ===

impl Session {
    pub(super) fn handle_kick(&mut self, now_ms: u64, kick: packet::Kick) {
        let reason = kick.reason();
        self.keep_resume_token(Bytes::new());
        self.events.push_back(Event::Kicked { reason });
        self.end(now_ms, Ended::Kicked(reason));
    }

    pub(super) fn handle_go_away(&mut self, now_ms: u64, go_away: packet::GoAway) {
        let leave_at_ms = self.leave_at_ms(now_ms, &go_away);
        self.acks.hurry();
        if go_away.reason() == CloseReason::TokenExpired {
            // The resume token has ended with it.
            self.keep_resume_token(Bytes::new());
        }
        if let Phase::Online(online) = &mut self.phase {
            online.leave_at_ms = leave_at_ms;
            online.going_away = Some(go_away.reason());
        }
    }

    /// When to be back; `None`: by backing off, when the server closes.
    pub(super) fn leave_at_ms(&mut self, now_ms: u64, go_away: &packet::GoAway) -> Option<u64> {
        let min = go_away.reconnect_delay_min_ms;
        let max = go_away.reconnect_delay_max_ms.max(min);
        (max > 0).then(|| now_ms.saturating_add(self.rng.random_range(min..=max).into()))
    }

    /// The connection is gone, or could not be made.
    pub(crate) fn handle_disconnected(&mut self, now_ms: u64, reason: DisconnectReason) {
        let (connect_at_ms, going_away) = match &self.phase {
            Phase::Offline { .. } | Phase::Ended(_) => return,
            Phase::Online(online) => (
                online.leave_at_ms.map(|at| at.max(now_ms)),
                online.going_away,
            ),
            Phase::Connecting | Phase::LoggingIn { .. } => (None, None),
        };
        let reason = match going_away {
            Some(said) => DisconnectReason::Closed(Some(said)),
            None => reason,
        };
        self.lose(now_ms, reason, connect_at_ms);
    }

    /// Gives the connection up; the next try is at the time given, or by backing off.
    pub(super) fn lose(
        &mut self,
        now_ms: u64,
        reason: DisconnectReason,
        connect_at_ms: Option<u64>,
    ) {
        if let Phase::Online(online) = &self.phase {
            let lasted_ms = now_ms.saturating_sub(online.since_ms);
            self.login.failures = if lasted_ms >= GOOD_CONNECTION_MS {
                0
            } else {
                self.login.failures.min(SHORT_CONNECTIONS_MAX)
            };
        }
        let at = match connect_at_ms {
            Some(at) => at,
            None => now_ms.saturating_add(self.back_off()),
        };
        self.login.failures = self.login.failures.saturating_add(1);
        let (user, device) = (&self.user, &self.device);
        let retry_in_ms = at.saturating_sub(now_ms);
        tracing::debug!(%user, %device, ?reason, retry_in_ms, "disconnected");
        self.phase = Phase::Offline {
            connect_at_ms: Some(at),
            is_asked: connect_at_ms.is_some(),
        };
        self.drop_connection(now_ms);
        self.tell(Event::Disconnected {
            reason,
            retry_in_ms: Some(retry_in_ms),
        });
    }

    fn drop_connection(&mut self, now_ms: u64) {
        self.transmit.clear();
        self.early = Vec::new();
        self.notices.clear();
        self.outbox.connection_lost();
        self.acks.connection_lost(now_ms);
        self.reads_lost_connection(now_ms);
        self.sync.connection_lost();
        self.calls_lost_connection();
        self.outputs.push_back(Output::Close);
    }

    /// Exponential, with full jitter.
    fn back_off(&mut self) -> u64 {
        let span = self
            .config
            .backoff_min_ms
            .checked_shl(self.login.failures.min(32))
            .unwrap_or(u64::MAX)
            .min(self.config.backoff_max_ms);
        self.jitter(span)
    }

    pub(super) fn end(&mut self, now_ms: u64, ended: Ended) {
        self.drop_connection(now_ms);
        self.phase = Phase::Ended(ended);
    }

    /// The application leaves; what is to be said to the server is transmitted.
    pub(crate) fn disconnect(&mut self, now_ms: u64, logout: bool) {
        if self.ended().is_some() {
            return;
        }
        let was_online = self.is_online();
        if was_online {
            self.acks.hurry();
            // Cursors that are too many for the pace are left untold.
            while let Some(ack) = self.next_ack(now_ms) {
                self.pace.went(&ack, now_ms);
                self.transmit.push_back(ack);
            }
        }
        let farewell = std::mem::take(&mut self.transmit);
        self.tell(Event::Disconnected {
            reason: DisconnectReason::ByApplication,
            retry_in_ms: None,
        });
        self.end(now_ms, Ended::Disconnected);
        if logout {
            self.keep_resume_token(Bytes::new());
        }
        if was_online {
            self.transmit = farewell;
            self.transmit.push_back(Packet {
                id: 0,
                body: Some(Body::Disconnect(packet::Disconnect { logout })),
            });
        }
    }

    /// The local state can't be written any more.
    #[cfg(feature = "runtime")]
    pub(crate) fn fail(&mut self, now_ms: u64, error: String) {
        if self.ended().is_none() {
            self.end(now_ms, Ended::State(error));
        }
    }
}
