//! What the application asks for.

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId, Seq,
    limits::BODY_MAX_BYTES,
    packet::{self, ContentType, packet::Body},
};

use super::DatagramClient;
use crate::{CallError, SendError, Target, packets};

// === impl DatagramClient ===

impl DatagramClient {
    /// Takes a message to be stored. Sends of one conversation are stored in the order of
    /// these calls. [`super::DatagramEvent::Sent`] tells what became of it.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooLarge`], [`SendError::ToOneself`],
    /// [`SendError::Ended`]: it wasn't taken.
    pub fn send(
        &mut self,
        now_us: u64,
        target: Target,
        content_type: ContentType,
        body: Bytes,
    ) -> Result<ClientMsgId, SendError> {
        self.advance(now_us);
        let conversation = target.conversation(&self.user)?;
        let body = packets::checked_body(body)?;
        let now_ms = self.now_ms();
        let id = self
            .session
            .send(now_ms, conversation, content_type, body)?;
        self.turn(now_us);
        Ok(id)
    }

    /// Tells whoever is online now; no ack, no order, lost when not connected.
    ///
    /// # Errors
    /// As [`DatagramClient::send`], but for `Full`; [`SendError::Stalled`].
    pub fn send_ephemeral(
        &mut self,
        now_us: u64,
        target: Target,
        content_type: ContentType,
        body: Bytes,
    ) -> Result<(), SendError> {
        let conversation = target.conversation(&self.user)?;
        let body = packets::checked_body(body)?;
        self.notify(
            now_us,
            packets::ephemeral(&conversation, content_type, body),
        )
    }

    /// Says that this user is writing. Lost when not connected.
    ///
    /// # Errors
    /// [`SendError::ToOneself`], [`SendError::Stalled`], [`SendError::Ended`].
    pub fn typing(&mut self, now_us: u64, target: Target) -> Result<(), SendError> {
        let conversation = target.conversation(&self.user)?;
        self.notify(now_us, packets::typing(&conversation))
    }

    fn notify(&mut self, now_us: u64, body: Body) -> Result<(), SendError> {
        self.advance(now_us);
        if let Some(ended) = self.session.ended() {
            return Err(SendError::Ended(ended.clone()));
        }
        self.session.notify(body)?;
        self.turn(now_us);
        Ok(())
    }

    /// Says that this user has read all up to `seq`. Sent when connected.
    pub fn read(&mut self, now_us: u64, conversation: ConversationId, seq: Seq) {
        self.advance(now_us);
        let now_ms = self.now_ms();
        self.session.read(now_ms, conversation, seq.0);
        self.turn(now_us);
    }

    /// Asks any backend service; [`super::DatagramEvent::Answered`] carries the number
    /// returned. Not repeated after a lost connection, as it might not be harmless.
    ///
    /// # Errors
    /// [`CallError::TooMany`], [`CallError::TooLarge`], [`CallError::ConnectionLost`],
    /// [`CallError::Ended`].
    pub fn request(
        &mut self,
        now_us: u64,
        service: &str,
        key: Bytes,
        payload: Bytes,
        timeout_ms: u32,
    ) -> Result<u64, CallError> {
        self.advance(now_us);
        let bytes = service.len().saturating_add(key.len());
        let bytes = bytes.saturating_add(payload.len());
        if bytes > BODY_MAX_BYTES {
            return Err(CallError::TooLarge(bytes));
        }
        let body = Body::Request(packet::Request {
            service: service.to_owned(),
            key,
            payload,
            timeout_ms,
        });
        let now_ms = self.now_ms();
        let patience_ms = u64::from(timeout_ms).saturating_add(packets::REQUEST_GRACE_MS);
        let id = self.session.ask(now_ms, body, patience_ms)?;
        self.turn(now_us);
        Ok(id)
    }

    /// A fresh login token, for this connection and later logins.
    pub fn renew_token(&mut self, now_us: u64, token: String) {
        self.advance(now_us);
        self.token.clone_from(&token);
        self.session.refresh(token);
        self.turn(now_us);
    }

    /// Leaves for good, and tells the server; what was sent and isn't acked stays in the
    /// state. `logout` also forgets the resume token.
    pub fn close(&mut self, now_us: u64, logout: bool) {
        self.advance(now_us);
        let now_ms = self.now_ms();
        self.session.disconnect(now_ms, logout);
        self.turn(now_us);
    }
}
