//! The application's side: the handle, the events, and a send under way.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, Seq, UserId,
    packet::{self, ContentType, packet::Body},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::unconstrained,
};

use crate::{
    Builder, CallError, ConversationList, Ended, Event, HistoryPage, Response, SendError,
    SendReceipt, Target, Transport, command::Command, packets,
};

/// Questions wait this long for an answer, unless told otherwise.
const CALL_TIMEOUT_MS: u64 = 30_000;

/// The driver hears of this many taken events at the latest.
const WAKE_EVENTS: u64 = 16;

/// What the handle, the events and the driver share.
pub(crate) struct Shared {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    /// Set once, when the client has ended.
    pub(crate) ended: OnceLock<Ended>,
    /// Number of the last event that the application is done with.
    pub(crate) committed: AtomicU64,
    /// Woken when `committed` has grown.
    pub(crate) wake: Notify,
}

/// A running client. Clones are handles to the same session; when they and the
/// [`EventStream`] are all dropped, the client leaves.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The events of one client, in order.
///
/// Which events a restarted client tells again is decided by what was
/// committed; see the crate's page. When nobody takes events, entries stay on
/// the server and sends go on.
pub struct EventStream {
    events: mpsc::Receiver<(u64, Event)>,
    taken: u64,
    /// `taken` when the driver was last told.
    woken: u64,
    persisted: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

/// A send that is kept and on its way. Dropping it doesn't stop the send.
#[derive(Debug)]
pub struct PendingSend {
    client_msg_id: ClientMsgId,
    outcome: oneshot::Receiver<Result<SendReceipt, SendError>>,
    shared: Arc<Shared>,
}

// === impl Shared ===

impl Shared {
    fn ended(&self) -> Ended {
        self.ended.get().cloned().unwrap_or(Ended::Disconnected)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.user, self.device)
    }
}

// === impl Client ===

impl Client {
    /// Sets up a client of this user on this device.
    pub fn builder(user: UserId, device: DeviceId) -> Builder {
        Builder::new(user, device)
    }

    pub(crate) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Whose client this is.
    pub fn user(&self) -> &UserId {
        &self.shared.user
    }

    /// Of which device.
    pub fn device(&self) -> &DeviceId {
        &self.shared.device
    }

    /// Why the client has ended for good, if it has: a kick is final.
    pub fn ended(&self) -> Option<Ended> {
        self.shared.ended.get().cloned()
    }

    /// Takes a message to be stored, and returns once it is kept in the local
    /// state. Sends of one conversation are stored in the order of these calls.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooLarge`], [`SendError::ToOneself`],
    /// [`SendError::Ended`], [`SendError::State`]: it wasn't taken.
    pub async fn send(
        &self,
        target: impl Into<Target>,
        content_type: ContentType,
        body: impl Into<Bytes>,
    ) -> Result<PendingSend, SendError> {
        let conversation = target.into().conversation(&self.shared.user)?;
        let body = packets::checked_body(body.into())?;
        let (kept, is_kept) = oneshot::channel();
        let (outcome, pending) = oneshot::channel();
        self.command(Command::Send {
            conversation,
            content_type,
            body,
            kept,
            outcome,
        })
        .await?;
        let client_msg_id = is_kept.await.map_err(|_| self.shared.ended())??;
        Ok(PendingSend {
            client_msg_id,
            outcome: pending,
            shared: self.shared.clone(),
        })
    }

    /// Tells whoever is online now; no ack, no order, lost when not connected.
    ///
    /// # Errors
    /// As [`Client::send`], but for `Full` and `State`; [`SendError::Stalled`].
    pub async fn send_ephemeral(
        &self,
        target: impl Into<Target>,
        content_type: ContentType,
        body: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let conversation = target.into().conversation(&self.shared.user)?;
        let body = packets::checked_body(body.into())?;
        self.notify(packets::ephemeral(&conversation, content_type, body))
            .await
    }

    /// Says that this user is writing. Lost when not connected.
    ///
    /// # Errors
    /// [`SendError::ToOneself`], [`SendError::Stalled`], [`SendError::Ended`].
    pub async fn typing(&self, target: impl Into<Target>) -> Result<(), SendError> {
        let conversation = target.into().conversation(&self.shared.user)?;
        self.notify(packets::typing(&conversation)).await
    }

    /// Says that this user has read all up to `seq`. Sent when connected.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn read(&self, conversation: &ConversationId, seq: Seq) -> Result<(), Ended> {
        self.command(Command::Read(conversation.clone(), seq.0))
            .await
    }

    /// Takes a message back. The recall is an entry of the conversation too.
    ///
    /// # Errors
    /// See [`CallError`]; refused with `too_late`, `forbidden`, `unknown_message`.
    pub async fn recall(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<SendReceipt, CallError> {
        let body = Body::Recall(packet::Recall {
            conversation_id: conversation.to_string(),
            seq: seq.0,
            // The session stamps it.
            client_msg_id: Bytes::new(),
        });
        match self.call(body, CALL_TIMEOUT_MS).await? {
            Body::SendAck(ack) => SendReceipt::parse(&ack).ok_or(CallError::BadAnswer),
            _ => Err(CallError::BadAnswer),
        }
    }

    /// Checks inbox and heads now, not at the next slow round.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn sync_now(&self) -> Result<(), Ended> {
        self.command(Command::Sync).await
    }

    /// The `limit` entries below `before` (`None`: the newest), ascending. Does
    /// not move the timelines.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn history(
        &self,
        conversation: &ConversationId,
        before: Option<Seq>,
        limit: u32,
    ) -> Result<HistoryPage, CallError> {
        let body = Body::SyncConversation(packet::SyncConversation {
            conversation_id: conversation.to_string(),
            range: Some(packet::sync_conversation::Range::Before(
                before.map_or(0, |seq| seq.0),
            )),
            limit,
        });
        match self.call(body, CALL_TIMEOUT_MS).await? {
            Body::ConversationPage(page) => {
                HistoryPage::parse(page).map_err(|_| CallError::BadAnswer)
            }
            _ => Err(CallError::BadAnswer),
        }
    }

    /// A page of this user's conversations, newest first; `cursor` is the last
    /// page's `next`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn conversations(
        &self,
        cursor: Option<Bytes>,
        limit: u32,
    ) -> Result<ConversationList, CallError> {
        let body = Body::ListConversations(packet::ListConversations {
            cursor: cursor.unwrap_or_default(),
            limit,
        });
        match self.call(body, CALL_TIMEOUT_MS).await? {
            Body::ConversationList(list) => {
                ConversationList::parse(list).map_err(|_| CallError::BadAnswer)
            }
            _ => Err(CallError::BadAnswer),
        }
    }

    /// Asks any backend service. Requests of one key are handled in order. Not
    /// repeated after a lost connection, as it might not be harmless. The gateway
    /// ends the wait after `timeout`, with `ErrorCode::Timeout`; 2 s later this
    /// side does.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn request(
        &self,
        service: &str,
        key: impl Into<Bytes>,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let body = Body::Request(packet::Request {
            service: service.to_owned(),
            key: key.into(),
            payload: payload.into(),
            timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        });
        // The gateway's word, which says more, comes first.
        let patience_ms = timeout_ms.saturating_add(packets::REQUEST_GRACE_MS);
        match self.call(body, patience_ms).await? {
            Body::Response(response) => Ok(Response {
                status: response.status,
                payload: response.payload,
            }),
            _ => Err(CallError::BadAnswer),
        }
    }

    /// Drops the socket without a word, as a dying network does; the client
    /// reconnects. For tests.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn cut(&self) -> Result<(), Ended> {
        self.command(Command::Cut).await
    }

    /// The platform says that another network carries the packets from now on
    /// (Wi-Fi to LTE). Over UDP the session goes on from the new address; over a
    /// stream, which can't, the client reconnects at once, without a new login.
    /// What was learnt of the old network is forgotten.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn network_changed(&self) -> Result<(), Ended> {
        self.command(Command::NetworkChanged).await
    }

    /// Goes over to another transport than the builder was told, now if the
    /// connection has another one, without a new login. One without an address is
    /// tried in vain.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn go_by(&self, transport: Transport) -> Result<(), Ended> {
        self.command(Command::GoBy(transport)).await
    }

    /// Leaves for good: says so to the server, closes, ends. `logout` also
    /// forgets the resume token. Unacked sends stay in the local state.
    ///
    /// When the [`EventStream`] was dropped before (or all its events taken and
    /// committed), the local state's file is free again on return.
    pub async fn disconnect(&self, logout: bool) {
        let (done, is_done) = oneshot::channel();
        if self
            .command(Command::Disconnect { logout, done })
            .await
            .is_ok()
        {
            // An error means that the driver has ended, which is what is waited for.
            let _ = is_done.await;
        }
    }

    async fn notify(&self, body: Body) -> Result<(), SendError> {
        let (taken, is_taken) = oneshot::channel();
        self.command(Command::Notify { body, taken }).await?;
        is_taken.await.map_err(|_| self.shared.ended())?
    }

    async fn call(&self, body: Body, timeout_ms: u64) -> Result<Body, CallError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Call {
            body,
            timeout_ms,
            reply,
        })
        .await?;
        answer.await.map_err(|_| self.shared.ended())?
    }

    async fn command(&self, command: Command) -> Result<(), Ended> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| self.shared.ended())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.shared)
    }
}

// === impl EventStream ===

impl EventStream {
    pub(crate) fn new(
        events: mpsc::Receiver<(u64, Event)>,
        persisted: watch::Receiver<u64>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            events,
            taken: 0,
            woken: 0,
            persisted,
            shared,
        }
    }

    /// The next event; commits all that were taken before. `None` when the
    /// client has ended and all was taken. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`EventStream::next`], if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        // Not by `try_recv`: it may park the thread, and on the thread of a
        // `block_on` that swallows wake-ups of the task that calls it.
        unconstrained(self.next()).now_or_never().flatten()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.shared.committed.store(self.taken, Ordering::Release);
        let next = self.events.poll_recv(cx);
        // Waking the driver costs; it is enough to do so now and then.
        if next.is_pending() || self.taken - self.woken >= WAKE_EVENTS {
            self.wake_driver();
        }
        next.map(|event| {
            let (number, event) = event?;
            self.taken = number;
            Some(event)
        })
    }

    /// Commits all events that were taken, and returns once that is written: a
    /// client restarted from this state won't tell them again.
    ///
    /// # Errors
    /// The client has ended before it was written.
    pub async fn commit(&mut self) -> Result<(), Ended> {
        let taken = self.taken;
        self.shared.committed.store(taken, Ordering::Release);
        self.wake_driver();
        match self.persisted.wait_for(|number| *number >= taken).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.shared.ended()),
        }
    }

    fn wake_driver(&mut self) {
        if self.woken != self.taken {
            self.woken = self.taken;
            self.shared.wake.notify_one();
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventStream({:?})", self.shared)
    }
}

// === impl PendingSend ===

impl PendingSend {
    /// The send's name, also in the entry that it becomes.
    pub fn client_msg_id(&self) -> ClientMsgId {
        self.client_msg_id
    }

    /// Waits until it is stored.
    ///
    /// # Errors
    /// [`SendError::Refused`]: it will never be. [`SendError::Ended`]: unknown;
    /// a client restarted from a durable state goes on with it.
    pub async fn acked(self) -> Result<SendReceipt, SendError> {
        match self.outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(SendError::Ended(self.shared.ended())),
        }
    }
}
