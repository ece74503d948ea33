//! Calls over the bus: what changes a conversation is asked of the owner of its
//! partition, as a gateway would, and the answer comes to this process's own
//! `down` stream. A bounded table pairs the two; a call has a deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use prost::Message as _;
use sluice_bus::{Bus, Stream};
use sluice_protocol::{
    ConversationId, Incarnation, UserId,
    envelope::{GroupCommand, Origin, Up, up},
    limits::SHARED_PARTITIONS,
    packet::{self, ErrorCode, Packet, packet::Body},
    partition_of,
};
use tokio::sync::oneshot;

use super::error::ApiError;
use crate::{clock, node::Node};

/// Calls under way.
pub(crate) struct Calls {
    bus: Arc<dyn Bus>,
    partitions: u16,
    incarnation: Incarnation,
    pending: Mutex<HashMap<u64, oneshot::Sender<Body>>>,
    pending_max: usize,
    timeout: Duration,
    next: AtomicU64,
}

/// Takes a call from the table when its caller goes away.
struct Seat<'c> {
    calls: &'c Calls,
    id: u64,
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            bus: node.bus.clone(),
            partitions: node.partitions,
            incarnation: node.incarnation,
            pending: Mutex::default(),
            pending_max: node.config.http_pending_max.max(1),
            timeout: Duration::from_millis(node.config.http_timeout_ms),
            next: AtomicU64::new(1),
        }
    }

    /// Has a packet worked on by the conversation's owner; the ack or the refusal.
    pub(super) async fn packet(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        body: Body,
    ) -> Result<packet::SendAck, ApiError> {
        let packet = Packet {
            id: 0,
            body: Some(body),
        };
        let packet = up::Body::Packet(packet.encode_to_vec().into());
        self.call(user, conversation, packet).await
    }

    /// The same for a change of a group.
    pub(super) async fn command(
        &self,
        user: &UserId,
        group: &ConversationId,
        command: GroupCommand,
    ) -> Result<packet::SendAck, ApiError> {
        self.call(user, group, up::Body::GroupCommand(command))
            .await
    }

    /// Passes a read mark on; it has no answer.
    pub(super) async fn read(&self, user: &UserId, read: packet::Read) -> Result<(), ApiError> {
        let packet = Packet {
            id: 0,
            body: Some(Body::Read(read)),
        };
        let partition = partition_of(user.as_str().as_bytes(), SHARED_PARTITIONS);
        let up = self.up(user, 0, up::Body::Packet(packet.encode_to_vec().into()));
        let stream = Stream::Ack(partition);
        let append = self.bus.append(&stream, vec![up]);
        match tokio::time::timeout(self.timeout, append).await {
            Ok(appended) => Ok(appended?),
            Err(_) => Err(ApiError::unavailable("too much is waiting, try again")),
        }
    }

    async fn call(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        body: up::Body,
    ) -> Result<packet::SendAck, ApiError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let _seat = self.sit(id, answer)?;
        let up = self.up(user, id, body);
        let stream = Stream::Message(conversation.partition(self.partitions));
        let answered = async {
            self.bus.append(&stream, vec![up]).await?;
            answered
                .await
                .map_err(|_| ApiError::unavailable("the server is stopping"))
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(answer) => match answer? {
                Body::SendAck(ack) => Ok(ack),
                Body::Error(error) => Err(ApiError::of_packet(error)),
                _ => Err(ApiError::new(ErrorCode::Internal, "an unexpected answer")),
            },
            // It may still be done: with the same id a repeat is harmless.
            Err(_) => Err(ApiError::new(
                ErrorCode::Timeout,
                "no answer in time; repeat the call with the same id",
            )),
        }
    }

    fn sit(&self, id: u64, answer: oneshot::Sender<Body>) -> Result<Seat<'_>, ApiError> {
        let mut pending = self.pending.lock();
        if pending.len() >= self.pending_max {
            return Err(ApiError::unavailable(
                "too many calls are waiting, try again",
            ));
        }
        pending.insert(id, answer);
        Ok(Seat { calls: self, id })
    }

    fn up(&self, user: &UserId, request_id: u64, body: up::Body) -> Bytes {
        let up = Up {
            origin: Some(Origin {
                user_id: user.as_str().to_owned(),
                device_id: String::new(),
                connection_id: Bytes::new(),
                request_id,
                reply_to: Stream::Down(self.incarnation).to_string(),
            }),
            received_at_ms: clock::now_ms(),
            body: Some(body),
        };
        up.encode_to_vec().into()
    }

    /// Gives an answer to the call that waits for it, if one does.
    pub(crate) fn settle(&self, answer: Bytes) {
        let Ok(Packet {
            id,
            body: Some(body),
        }) = Packet::decode(answer)
        else {
            metrics::counter!("sluice_poison_entries_total", "role" => "http").increment(1);
            return;
        };
        let seat = self.pending.lock().remove(&id);
        if let Some(seat) = seat {
            // The caller may have gone this very moment.
            let _ = seat.send(body);
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.calls.pending.lock().remove(&self.id);
    }
}
