//! A fresh token before the one in use ends.

use sluice_protocol::packet::{self, Packet, packet::Body};

use super::{Session, login::Phase};

/// A token is refreshed when this much of its life is left, but not earlier than
/// half of its life.
const REFRESH_AHEAD_MS: u64 = 10 * 60 * 1000;

impl Session {
    /// A fresh token, as asked for by [`Output::RefreshToken`].
    pub(crate) fn refresh(&mut self, token: String) {
        let id = self.packet_id();
        if let Phase::Online(online) = &mut self.phase {
            online.refresh_id = Some(id);
            self.transmit.push_back(Packet {
                id,
                body: Some(Body::RefreshToken(packet::RefreshToken { token })),
            });
        }
    }

    pub(super) fn handle_refreshed(&mut self, now_ms: u64, refreshed: packet::TokenRefreshed) {
        let server_now_ms = self.login.server_time_ms(now_ms);
        if let Phase::Online(online) = &mut self.phase {
            online.refresh_id = None;
            online.refresh_at_ms = refresh_at_ms(server_now_ms, refreshed.token_expires_ms, now_ms);
        }
        if !refreshed.resume_token.is_empty() {
            self.keep_resume_token(refreshed.resume_token);
        }
    }

    /// True if that was the refresh, which is asked for again then.
    pub(super) fn retry_refresh(&mut self, id: u64, retry_at_ms: u64) -> bool {
        match &mut self.phase {
            Phase::Online(online) if online.refresh_id == Some(id) => {
                online.refresh_id = None;
                online.refresh_at_ms = Some(retry_at_ms);
                true
            }
            _ => false,
        }
    }
}

/// Some time before the token ends, by the local clock.
pub(super) fn refresh_at_ms(server_now_ms: u64, expires_ms: u64, now_ms: u64) -> Option<u64> {
    let left = expires_ms.checked_sub(server_now_ms)?;
    let wait = left.saturating_sub(REFRESH_AHEAD_MS).max(left / 2);
    Some(now_ms.saturating_add(wait))
}
