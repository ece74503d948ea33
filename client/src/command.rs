//! What the handle asks of the driver.

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId,
    packet::{ContentType, packet::Body},
};
use tokio::sync::oneshot;

use crate::{CallError, SendError, SendReceipt, Transport};

/// Where a send's outcome goes.
pub(crate) type SendReply = oneshot::Sender<Result<SendReceipt, SendError>>;

/// What the handle asks of the driver.
pub(crate) enum Command {
    /// A durable send: first the id, once it is kept, then the outcome.
    Send {
        conversation: ConversationId,
        content_type: ContentType,
        body: Bytes,
        kept: oneshot::Sender<Result<ClientMsgId, SendError>>,
        outcome: SendReply,
    },
    /// A packet without an answer, dropped when not connected.
    Notify {
        body: Body,
        taken: oneshot::Sender<Result<(), SendError>>,
    },
    /// A read cursor; kept until it could be sent.
    Read(ConversationId, u64),
    /// A question with an answer.
    Call {
        body: Body,
        timeout_ms: u64,
        reply: oneshot::Sender<Result<Body, CallError>>,
    },
    /// Check inbox and heads now.
    Sync,
    /// Drop the socket.
    Cut,
    /// Another network carries the packets from now on.
    NetworkChanged,
    /// Go by this transport.
    GoBy(Transport),
    /// Leave for good; answered once the socket is closed.
    Disconnect {
        logout: bool,
        done: oneshot::Sender<()>,
    },
}
