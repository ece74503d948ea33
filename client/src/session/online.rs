//! A connection that is logged in.

use sluice_protocol::packet::CloseReason;

#[derive(Debug)]
pub(super) struct Online {
    pub(super) since_ms: u64,
    /// The transport pings, and tells when the server is silent.
    pub(super) keeps_itself_alive: bool,
    pub(super) heartbeat_ms: u64,
    pub(super) last_received_ms: u64,
    pub(super) last_sent_ms: u64,
    pub(super) last_ping_ms: u64,
    pub(super) window: usize,
    /// The server is going: no new sends, and at this time over to a new connection.
    pub(super) leave_at_ms: Option<u64>,
    /// Why the server is going.
    pub(super) going_away: Option<CloseReason>,
    pub(super) refresh_at_ms: Option<u64>,
    /// The packet that asks for a refresh, until it is answered.
    pub(super) refresh_id: Option<u64>,
}

// === impl Online ===

impl Online {
    /// Dead after 2.5 intervals without anything.
    pub(super) fn dead_at_ms(&self) -> Option<u64> {
        let silence = self.heartbeat_ms.saturating_mul(5) / 2;
        self.unless_kept_alive(self.last_received_ms.saturating_add(silence))
    }

    /// A ping when nothing was sent for an interval; also when nothing was
    /// received, since only a ping makes the server answer.
    pub(super) fn ping_at_ms(&self) -> Option<u64> {
        let unheard = self.last_received_ms.max(self.last_ping_ms);
        let last_ms = self.last_sent_ms.min(unheard);
        self.unless_kept_alive(last_ms.saturating_add(self.heartbeat_ms))
    }

    /// When something was last received, where answers may be long on their way
    /// behind it; else 0.
    pub(super) fn heard_ms(&self) -> u64 {
        if self.keeps_itself_alive {
            self.last_received_ms
        } else {
            0
        }
    }

    fn unless_kept_alive(&self, at_ms: u64) -> Option<u64> {
        (!self.keeps_itself_alive).then_some(at_ms)
    }
}
