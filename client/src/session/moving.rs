//! From one connection to another, at the wish of this side.

use super::{Session, login::Phase};
use crate::DisconnectReason;

impl Session {
    /// The connection, made or under way, is given up for another one at this time:
    /// at once, or when the server has asked for it.
    pub(crate) fn reconnect_at(&mut self, now_ms: u64, reason: DisconnectReason, at_ms: u64) {
        if !matches!(self.phase, Phase::Offline { .. } | Phase::Ended(_)) {
            self.lose(now_ms, reason, Some(at_ms));
        }
    }

    /// There may be a network again: the wait for the next try ends, unless the
    /// server has asked for it.
    pub(crate) fn hurry(&mut self, now_ms: u64) {
        if let Phase::Offline {
            connect_at_ms: Some(at_ms),
            is_asked: false,
        } = &mut self.phase
        {
            *at_ms = now_ms.min(*at_ms);
        }
    }

    /// The server owes the answer to something.
    pub(crate) fn awaits_answer(&self) -> bool {
        match &self.phase {
            Phase::LoggingIn { .. } => true,
            Phase::Online(_) => self.outbox.len() > 0 || !self.calls.is_empty(),
            Phase::Offline { .. } | Phase::Connecting | Phase::Ended(_) => false,
        }
    }

    /// Nothing is under way that a change of the connection would hold up.
    #[cfg(feature = "runtime")]
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.phase {
            Phase::Online(online) => {
                online.going_away.is_none()
                    && self.outbox.len() == 0
                    && self.calls.is_empty()
                    && self.transmit.is_empty()
            }
            _ => false,
        }
    }
}
