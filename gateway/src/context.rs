//! What a handler may see and do.

use bytes::Bytes;
use sluice_protocol::{
    ConnectionId, DeviceId, OriginFields, Refusal, UserId, encode_up_packet, packet::packet::Body,
};

use crate::{
    channel::{Channel, Phase},
    clock::Now,
    workbench::Workbench,
};

/// The channel that a packet came in by (or goes out by), and its loop's tools.
pub struct ChannelContext<'a> {
    pub(crate) channel: &'a mut Channel,
    pub(crate) bench: &'a mut Workbench,
    /// The packet as it came, to be passed on without encoding it again.
    pub(crate) raw: &'a [u8],
}

// === impl ChannelContext ===

impl ChannelContext<'_> {
    /// Where the channel stands.
    pub fn phase(&self) -> Phase {
        self.channel.phase
    }

    /// Who is logged in (or about to be).
    pub fn user(&self) -> Option<&UserId> {
        self.channel
            .identity
            .as_ref()
            .map(|identity| &identity.user)
    }

    /// With which device.
    pub fn device(&self) -> Option<&DeviceId> {
        self.channel
            .identity
            .as_ref()
            .map(|identity| &identity.device)
    }

    /// The connection's name in the directory.
    pub fn connection_id(&self) -> ConnectionId {
        self.bench.connection_id(self.channel.key)
    }

    /// The moment that this turn of the event loop began.
    pub fn now(&self) -> Now {
        self.bench.now
    }

    /// The packet as it came, encoded.
    pub fn raw(&self) -> &[u8] {
        self.raw
    }

    /// Sends a packet; `id` repeats the client's, 0 for what it did not ask for.
    pub fn send(&mut self, id: u64, body: Body) {
        self.channel.send(self.bench, id, body);
    }

    /// Answers with an error; the channel stays open.
    pub fn refuse(&mut self, id: u64, refusal: &Refusal, client_msg_id: Bytes) {
        self.channel.refuse(self.bench, id, refusal, client_msg_id);
    }

    /// Answers "not now, try again later".
    pub fn busy(&mut self, id: u64, client_msg_id: Bytes) {
        self.channel.busy(self.bench, id, client_msg_id);
    }

    /// The current packet as a bus entry, with who sent it.
    pub(crate) fn up_entry(&self, request_id: u64) -> Bytes {
        let connection = self.connection_id().to_bytes();
        let origin = OriginFields {
            user_id: self.user().map_or("", UserId::as_str),
            device_id: self.device().map_or("", DeviceId::as_str),
            connection_id: &connection,
            request_id,
            reply_to: &self.bench.shared.reply_to,
        };
        encode_up_packet(origin, self.bench.now.unix_ms, self.raw)
    }

    /// True while the client may hand in another packet that will be answered.
    /// An answer that was lost on the way must not shut the client out for
    /// ever, so after a quiet time the count begins anew.
    pub(crate) fn has_send_room(&mut self) -> bool {
        let now_ms = self.bench.now.mono_ms;
        let quiet_ms = now_ms.saturating_sub(self.channel.last_handed_up_ms);
        if quiet_ms > UNANSWERED_FORGIVEN_MS {
            self.channel.unanswered = 0;
        }
        match self.bench.shared.config.limits.unanswered_max {
            0 => true,
            max => self.channel.unanswered < max,
        }
    }

    /// True while the client may hand in another pull. Pulls cost the services
    /// more than sends, and stand before those of others in a stream.
    pub(crate) fn has_pull_room(&mut self) -> bool {
        let now_ms = self.bench.now.mono_ms;
        let requests = self.channel.requests.as_mut();
        let pending = requests.map_or(0, |requests| requests.pulls(now_ms));
        match self.bench.shared.config.limits.pulls_pending_max {
            0 => true,
            max => pending < max,
        }
    }

    /// A pull was handed in.
    pub(crate) fn count_pull(&mut self, id: u64) {
        if self.bench.shared.config.limits.pulls_pending_max > 0 {
            let requests = self.channel.requests.get_or_insert_default();
            requests.insert_pull(id, self.bench.now.mono_ms);
        }
    }

    /// A packet was handed in that will be answered.
    pub(crate) fn count_unanswered(&mut self) {
        self.channel.unanswered += 1;
        self.channel.last_handed_up_ms = self.bench.now.mono_ms;
    }
}

/// After so long an answer is not waited for any more.
pub(crate) const UNANSWERED_FORGIVEN_MS: u64 = 10_000;
