//! What the application is told.

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Refusal, Seq, UserId, UserSeq,
    packet::{CloseReason, ContentType},
};

use crate::Entry;

/// What the application is told, in order, by [`crate::EventStream::next`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Logged in.
    Connected {
        /// By a resume token, without the login token.
        resumed: bool,
    },
    /// The connection is gone.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
        /// When the next try comes; `None`: never.
        retry_in_ms: Option<u64>,
    },
    /// The next entry of its timeline.
    Entry {
        /// The entry.
        entry: Entry,
        /// This user is its sender (from this device or another).
        own: bool,
    },
    /// A message without a promise: not stored, in no order.
    Ephemeral {
        /// Where it was said.
        conversation: ConversationId,
        /// By whom.
        sender: UserId,
        /// When it passed the server.
        server_time_ms: u64,
        /// What the body holds; `None` when newer than this crate.
        content_type: Option<ContentType>,
        /// The body.
        body: Bytes,
    },
    /// Somebody is writing.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
    },
    /// The other party's device has all entries up to `seq`.
    Delivered {
        /// Of this private conversation.
        conversation: ConversationId,
        /// The other party.
        user: UserId,
        /// Up to here.
        seq: Seq,
    },
    /// This user has read all entries up to `seq`.
    Read {
        /// Of this conversation.
        conversation: ConversationId,
        /// The other party, or oneself on another device.
        user: UserId,
        /// Up to here.
        seq: Seq,
    },
    /// A send will never be stored. The later ones go on.
    SendRefused {
        /// Which.
        client_msg_id: ClientMsgId,
        /// Where it was to go.
        conversation: ConversationId,
        /// Why.
        refusal: Refusal,
    },
    /// All that the server had at the time of the last connect has been told.
    CaughtUp,
    /// The server lists more groups than this client follows, this one for
    /// instance: their entries don't come, and [`Event::CaughtUp`] isn't told.
    TooManyGroups {
        /// The first that is not followed.
        conversation: ConversationId,
    },
    /// The server no longer has all that was told before: it was restored from
    /// a backup. Its later entries follow from `server` on.
    ServerBehind {
        /// Whose log; `None`: the inbox.
        group: Option<ConversationId>,
        /// The last place that was told.
        told: u64,
        /// The last place that the server had at the connect.
        server: u64,
    },
    /// The inbox begins at `first` by now: the server has archived what was
    /// before, and what this device did not have of it is not told. The entries
    /// from `first` on follow. (A group's log tells by its pages' `first_seq`.)
    Archived {
        /// The last place that was told.
        told: u64,
        /// The first place that the server has.
        first: u64,
    },
    /// The server has ended the session for good. The last event.
    Kicked {
        /// Why.
        reason: CloseReason,
    },
    /// The server doesn't let this user or device in. The last event.
    LoginRefused {
        /// Why.
        refusal: Refusal,
    },
}

/// Why a connection is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// It could not be made; in the system's words.
    ConnectFailed(String),
    /// It broke; in the system's words.
    Broken(String),
    /// The server closed it, having said why or not.
    Closed(Option<CloseReason>),
    /// Nothing came for 2.5 heartbeat intervals.
    Silent,
    /// The login wasn't answered in time.
    LoginTimeout,
    /// The login was refused, but another try makes sense.
    LoginRefused(Refusal),
    /// The token source gave none; in its words.
    NoToken(String),
    /// The server sent what is no packet, or none that it may send.
    BadPacket(String),
    /// [`crate::Client::cut`].
    Cut,
    /// Another transport takes its place: this one went silent, or a better one
    /// works again, or [`crate::Client::go_by`] wants it.
    Moved,
    /// [`crate::Client::network_changed`].
    NetworkChanged,
    /// [`crate::Client::disconnect`], or the handle and the events were dropped.
    ByApplication,
}

/// Why a client has ended for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// By the server.
    #[error("the server has ended the session: {}", .0.as_str_name())]
    Kicked(CloseReason),
    /// The server doesn't let this user or device in.
    #[error("the login was refused: {0}")]
    LoginRefused(Refusal),
    /// By the application.
    #[error("the client was disconnected")]
    Disconnected,
    /// The local state failed; going on would break its promises.
    #[error("the local state has failed: {0}")]
    State(String),
}

/// A send (or recall) is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReceipt {
    /// The server's name for it.
    pub message_id: MessageId,
    /// Where it is.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Its place in the own inbox; 0 for a group.
    pub user_seq: UserSeq,
    /// When it was stored, by the server's clock.
    pub server_time_ms: u64,
}
