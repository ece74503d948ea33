//! How a driver gets its link, leaves it, and changes it for another.
//!
//! Whatever the change, the session sees a connection lost and a connection made:
//! it resumes, syncs and sends again what is unacked, so nothing is lost or told
//! twice.

use super::{Connected, Driver, NotConnected};
use crate::{
    DisconnectReason, LinkError, TokenError, Transport,
    link::Link,
    race::{Raced, race},
    state::Change,
};

/// Between two looks for a way out.
const RIVAL_PAUSE_MS: u64 = 5_000;

// === impl Driver ===

impl Driver {
    /// Makes the connection that the session wants.
    pub(super) fn connect(&mut self) {
        let wants_token = self.parts.session.connecting();
        let next_link = self.next_link.take();
        if next_link.is_none() {
            // Whenever a connection fails or ends, the next of the gateways in turn.
            let count = self.parts.endpoints.len().max(1);
            self.endpoint = self.endpoint.wrapping_add(1) % count;
        }
        let parts = &mut self.parts;
        let candidates = match parts.endpoints.get(self.endpoint) {
            Some(endpoint) if next_link.is_none() => {
                parts.choice.candidates(endpoint, &mut parts.ticket)
            }
            _ => Vec::new(),
        };
        let token = parts.token.clone();
        let timeout = parts.connect_timeout;
        self.connecting = Some(Box::pin(async move {
            let token = if wants_token {
                let token = token.token().await;
                Some(token.map_err(|TokenError(why)| NotConnected {
                    reason: DisconnectReason::NoToken(why),
                    retry_after_ms: None,
                })?)
            } else {
                None
            };
            match next_link {
                Some(link) => Ok((link, token)),
                None => Ok((race(candidates, timeout).await?, token)),
            }
        }));
    }

    pub(super) fn take_link(&mut self, connected: Connected) {
        self.connecting = None;
        let now_ms = self.clock.now_ms();
        let session = &mut self.parts.session;
        match connected {
            Ok((Raced { link, udp_lost }, token)) => {
                let by = link.transport();
                self.parts.choice.connected(now_ms, by, udp_lost);
                session.handle_connected(now_ms, token, by == Transport::Udp);
                tracing::debug!(?by, udp_lost, "a link");
                self.link = Some(link);
            }
            Err(NotConnected {
                reason,
                retry_after_ms: Some(after_ms),
            }) => session.reconnect_at(now_ms, reason, now_ms.saturating_add(after_ms.into())),
            Err(NotConnected { reason, .. }) => session.handle_disconnected(now_ms, reason),
        }
    }

    /// The link has failed.
    pub(super) fn lose_link(&mut self, error: LinkError) {
        let now_ms = self.clock.now_ms();
        if matches!(error, LinkError::Silent) {
            self.parts.choice.lost(now_ms, true);
        }
        self.drop_link(now_ms);
        self.connecting = None;
        let session = &mut self.parts.session;
        session.handle_disconnected(now_ms, disconnect_reason(error));
    }

    /// A try for the next one may be under way already.
    pub(super) fn drop_link(&mut self, now_ms: u64) {
        self.rival = None;
        if let Some(link) = self.link.take() {
            self.parts.choice.lost(now_ms, link.is_silent());
        }
    }

    pub(super) fn cut(&mut self, now_ms: u64) {
        if let Some(link) = self.link.take() {
            link.cut();
        }
        self.drop_link(now_ms);
        self.connecting = None;
        let session = &mut self.parts.session;
        session.handle_disconnected(now_ms, DisconnectReason::Cut);
    }

    /// The application says that another network carries the packets.
    pub(super) fn change_network(&mut self, now_ms: u64) {
        self.parts.choice.network_changed();
        self.rival = None;
        self.rival_at_ms = now_ms;
        match &mut self.link {
            Some(Link::Datagram(link)) => link.change_network(),
            _ => {
                self.drop_link(now_ms);
                self.connecting = None;
                let session = &mut self.parts.session;
                session.reconnect_at(now_ms, DisconnectReason::NetworkChanged, now_ms);
                session.hurry(now_ms);
            }
        }
    }

    /// The application wants another transport.
    pub(super) fn go_by(&mut self, now_ms: u64, transport: Transport) {
        self.parts.choice.ask(transport);
        self.rival = None;
        let fits = |link: &Link| self.parts.choice.allows(link.transport());
        if !self.link.as_ref().is_some_and(fits) {
            self.drop_link(now_ms);
            self.connecting = None;
            let session = &mut self.parts.session;
            session.reconnect_at(now_ms, DisconnectReason::Moved, now_ms);
            session.hurry(now_ms);
        }
    }

    /// Looks for a way out when the server is silent, or back to UDP when it is time.
    pub(super) fn seek_other_ways(&mut self, now_ms: u64) {
        if self.rival.is_some() || now_ms < self.rival_at_ms {
            return;
        }
        let parts = &mut self.parts;
        let (Some(link), Some(endpoint)) = (&self.link, parts.endpoints.get(self.endpoint)) else {
            return;
        };
        let candidates = match link.transport() {
            Transport::Udp if link.is_silent() => parts.choice.ways_out(endpoint),
            Transport::Udp => Vec::new(),
            _ => parts.choice.ways_back(now_ms, endpoint, &mut parts.ticket),
        };
        if !candidates.is_empty() {
            self.rival = Some(Box::pin(race(candidates, parts.connect_timeout)));
        }
    }

    /// When [`Driver::seek_other_ways`] may have something to do.
    pub(super) fn other_ways_at_ms(&self) -> Option<u64> {
        let link = self.link.as_ref().filter(|_| self.rival.is_none())?;
        let at_ms = match link.is_silent() {
            // A pause is to be kept, if there is one.
            true => Some(self.rival_at_ms),
            false => self.parts.choice.return_at_ms(),
        };
        at_ms.filter(|at| *at > self.clock.now_ms())
    }

    pub(super) fn take_rival(&mut self, rival: Result<Raced, LinkError>) {
        self.rival = None;
        let now_ms = self.clock.now_ms();
        self.rival_at_ms = now_ms + RIVAL_PAUSE_MS;
        let Some(link) = &self.link else { return };
        let is_way_back = link.transport() != Transport::Udp;
        let choice = &mut self.parts.choice;
        match rival {
            Ok(_) if is_way_back && !self.parts.session.is_quiet() => choice.postpone(now_ms),
            // It answers again.
            Ok(_) if !is_way_back && !link.is_silent() => {}
            Ok(raced) => {
                self.drop_link(now_ms);
                self.next_link = Some(raced);
                let session = &mut self.parts.session;
                session.reconnect_at(now_ms, DisconnectReason::Moved, now_ms);
            }
            Err(error) if is_way_back => {
                tracing::debug!(%error, "no way back to UDP yet");
                choice.udp_failed(now_ms);
            }
            Err(error) => tracing::debug!(%error, "no way out of the silence yet"),
        }
    }

    /// What the server gave for the next datagram session.
    pub(super) fn keep_ticket(&mut self) {
        let Some(link) = &mut self.link else { return };
        if let Some(round_trip) = link.round_trip() {
            self.parts.choice.measured(round_trip);
        }
        if let Some(ticket) = link.take_ticket() {
            self.parts.ticket = Some(ticket);
            self.unsaved.push(Change::Ticket(ticket));
        }
    }
}

fn disconnect_reason(error: LinkError) -> DisconnectReason {
    match error {
        LinkError::Closed => DisconnectReason::Closed(None),
        LinkError::ClosedFor(reason) => DisconnectReason::Closed(Some(reason)),
        LinkError::Silent => DisconnectReason::Silent,
        LinkError::BadFrame(why) => DisconnectReason::BadPacket(why),
        error => DisconnectReason::Broken(error.to_string()),
    }
}

// === impl NotConnected ===

impl From<LinkError> for NotConnected {
    fn from(error: LinkError) -> Self {
        Self {
            reason: DisconnectReason::ConnectFailed(error.to_string()),
            retry_after_ms: match error {
                LinkError::Busy { retry_after_ms } => Some(retry_after_ms),
                _ => None,
            },
        }
    }
}
