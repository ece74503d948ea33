//! Durable sends: taken, transmitted, acked or refused.

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId,
    packet::{self, ContentType, ErrorCode, Packet, packet::Body},
};

use super::{Output, Session, outbox::Unacked, refusal, timeline::Held};
use crate::{
    Content, Entry, Event, SendError, SendReceipt,
    state::{Change, SavedSend},
};

/// A send that the server fails at more often than this is given up.
const INTERNAL_ERRORS_MAX: u32 = 5;

// === impl Session ===

impl Session {
    /// Takes a send. It is on its way once the [`Change::PutSend`] is written.
    pub(crate) fn send(
        &mut self,
        now_ms: u64,
        conversation: ConversationId,
        content_type: ContentType,
        body: Bytes,
    ) -> Result<ClientMsgId, SendError> {
        if let Some(ended) = self.ended() {
            return Err(SendError::Ended(ended.clone()));
        }
        if self.outbox.len() >= self.config.outbox_max_sends {
            return Err(SendError::Full(self.outbox.len()));
        }
        let client_msg_id = self.stamp(now_ms);
        let send = SavedSend {
            client_msg_id,
            conversation,
            content_type: content_type.into(),
            body,
        };
        let order = self.outbox.push(send.clone());
        self.save(Change::PutSend(order, send));
        Ok(client_msg_id)
    }

    pub(super) fn next_send(&mut self, now_ms: u64) -> Option<Packet> {
        let window = self.send_window();
        if window == 0 {
            return None;
        }
        self.outbox.expire(now_ms);
        let id = self.packet_id();
        let send = self
            .outbox
            .transmit(now_ms, window, id, self.config.ack_timeout_ms)?;
        Some(Packet {
            id,
            body: Some(Body::Send(send)),
        })
    }

    pub(super) fn handle_send_ack(&mut self, now_ms: u64, id: u64, ack: packet::SendAck) {
        if self.calls.contains(id) {
            return self.handle_recall_ack(now_ms, id, ack);
        }
        let Some(receipt) = SendReceipt::parse(&ack) else {
            return;
        };
        let Ok(client_msg_id) = ClientMsgId::parse(&ack.client_msg_id) else {
            return;
        };
        // A second ack (of a repeated send) finds nothing to settle.
        let Some(unacked) = self.settle(&receipt, &client_msg_id) else {
            return;
        };
        let content = Content::Message {
            content_type: ContentType::try_from(unacked.send.content_type).ok(),
            body: unacked.send.body,
            recalled: false,
        };
        self.place_own(now_ms, &receipt, client_msg_id, content);
    }

    /// One's own entry takes its place in the timeline.
    fn place_own(
        &mut self,
        now_ms: u64,
        receipt: &SendReceipt,
        client_msg_id: ClientMsgId,
        content: Content,
    ) {
        let (key, place) = receipt.place();
        let entry = Entry {
            conversation: receipt.conversation.clone(),
            seq: receipt.seq,
            user_seq: receipt.user_seq,
            sender: self.user.clone(),
            client_msg_id: Some(client_msg_id),
            message_id: receipt.message_id,
            server_time_ms: receipt.server_time_ms,
            content,
        };
        self.offer(now_ms, &key, place, Held::new(Some(entry), None));
    }

    /// A send is stored, as an ack or its entry says.
    pub(super) fn settle(
        &mut self,
        receipt: &SendReceipt,
        client_msg_id: &ClientMsgId,
    ) -> Option<Unacked> {
        let unacked = self.outbox.settle(&receipt.conversation, client_msg_id)?;
        self.save(Change::RemoveSend(unacked.order));
        self.outputs
            .push_back(Output::Sent(*client_msg_id, Ok(receipt.clone())));
        Some(unacked)
    }

    pub(super) fn handle_send_error(&mut self, now_ms: u64, id: u64, error: packet::Error) {
        // The answer to an earlier transmission says nothing any more.
        let Some((conversation, client_msg_id)) = self.outbox.find(id) else {
            return;
        };
        tracing::debug!(%conversation, %client_msg_id, code = error.code().as_str_name(), "a send comes back");
        match error.code() {
            ErrorCode::OutOfOrder => self.outbox.go_back(&conversation, now_ms),
            code @ (ErrorCode::RateLimited
            | ErrorCode::Unavailable
            | ErrorCode::Timeout
            | ErrorCode::Internal
            | ErrorCode::Unspecified) => {
                let outbox = &mut self.outbox;
                let troubles = outbox.go_back_to_troubled(&conversation, &client_msg_id, now_ms);
                let is_internal = matches!(code, ErrorCode::Internal | ErrorCode::Unspecified);
                if is_internal && troubles > INTERNAL_ERRORS_MAX {
                    self.refuse_send(conversation, client_msg_id, &error);
                }
            }
            _ => self.refuse_send(conversation, client_msg_id, &error),
        }
    }

    fn refuse_send(
        &mut self,
        conversation: ConversationId,
        client_msg_id: ClientMsgId,
        error: &packet::Error,
    ) {
        let Some(unacked) = self.outbox.settle(&conversation, &client_msg_id) else {
            return;
        };
        let refusal = refusal(error);
        self.save(Change::RemoveSend(unacked.order));
        self.outputs.push_back(Output::Sent(
            client_msg_id,
            Err(SendError::Refused(refusal.clone())),
        ));
        self.tell(Event::SendRefused {
            client_msg_id,
            conversation,
            refusal,
        });
    }

    pub(super) fn handle_send_busy(&mut self, id: u64, resume_at_ms: u64) {
        if let Some((conversation, client_msg_id)) = self.outbox.find(id) {
            tracing::debug!(%conversation, %client_msg_id, "the server is busy");
            self.outbox
                .go_back_to(&conversation, &client_msg_id, resume_at_ms);
        }
    }
}
