//! What can go wrong, and whose fault it is.

#[cfg(feature = "runtime")]
use sluice_codec::datagram::{ConnectError, End};
use sluice_protocol::Refusal;
#[cfg(feature = "runtime")]
use sluice_protocol::packet::CloseReason;

use crate::Ended;

/// A send that wasn't taken, or won't be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many sends as the outbox holds are unacked; wait for one of them.
    #[error("{0} sends are waiting for their ack; the outbox is full")]
    Full(usize),
    /// The body is over the server's limit.
    #[error("the body has {bytes} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        max_bytes: usize,
    },
    /// A conversation with oneself.
    #[error("one cannot write to oneself")]
    ToOneself,
    /// The connection has stalled, and as many packets without an answer wait for
    /// it as may; this one was not sent.
    #[error("the connection has stalled; {0} notices wait for it")]
    Stalled(usize),
    /// The server won't store it, now or later.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The client has ended. A durable state keeps the send for the next start.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// Nothing was sent, as it could not be kept.
    #[error("the local state has failed: {0}")]
    State(String),
}

/// A question that got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server's answer is no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// As many questions as allowed are waiting.
    #[error("too many questions are waiting for an answer")]
    TooMany,
    /// The question is over what a packet holds, with this many bytes.
    #[error("the question has {0} bytes, too many for a packet")]
    TooLarge(usize),
    /// The connection was lost (or there was none) and asking again might not be harmless.
    #[error("the connection was lost before an answer came")]
    ConnectionLost,
    /// The answer was not one to this question.
    #[error("the server's answer does not fit the question")]
    BadAnswer,
    /// The client has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// The local state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file.
    #[cfg(feature = "runtime")]
    #[error("the state file: {0}")]
    File(#[from] Box<redb::Error>),
    /// Another process, or another client of this one, has it open.
    #[error("the state is in use")]
    InUse,
    /// It belongs to another user or device.
    #[error("the state belongs to {user} on {device}")]
    Foreign {
        /// Whose it is.
        user: String,
        /// On which device.
        device: String,
    },
    /// What is written there is none of this crate's.
    #[error("the state is damaged: {0}")]
    Damaged(&'static str),
}

/// The client wasn't started.
#[cfg(feature = "runtime")]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nowhere to connect to for the transport that was asked for.
    #[error("no server address for the transport")]
    NoAddress,
    /// Neither token nor token source.
    #[error("no token")]
    NoToken,
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// Not called within a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime,
}

/// A connection that failed.
#[cfg(feature = "runtime")]
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The WebSocket.
    #[error("{0}")]
    WebSocket(Box<tokio_tungstenite::tungstenite::Error>),
    /// What came is no packet.
    #[error("{0}")]
    BadFrame(String),
    /// There is no address for the transport that is wanted.
    #[error("no address")]
    NoAddress,
    /// Not connected in time.
    #[error("no connection in time: a wrong address, or a network that lets nothing through there")]
    Timeout,
    /// The peer closed it.
    #[error("closed by the server")]
    Closed,
    /// The peer closed it, and said why.
    #[error("closed by the server: {}", .0.as_str_name())]
    ClosedFor(CloseReason),
    /// Over a datagram session: nothing comes any more.
    #[error("the server does not answer any more")]
    Silent,
    /// Over a datagram session: the server no longer has it.
    #[error("the server no longer knows the session")]
    Forgotten,
    /// Over a datagram session or encrypted TCP: none of the server's keys is pinned.
    #[error(
        "the server has another key than those that were pinned; `sluice keygen` prints its pins"
    )]
    WrongKey,
    /// Over encrypted TCP: the server takes plain connections only.
    #[error("the server does not take encrypted TCP connections (its tcp_encryption is off)")]
    NotEncrypted,
    /// Over a datagram session: the server speaks other versions.
    #[error("the server speaks another version of the datagram session")]
    Version,
    /// The server has no room for more datagram sessions.
    #[error("the server is busy, try again after {retry_after_ms} ms")]
    Busy {
        /// When to try again.
        retry_after_ms: u32,
    },
}

// === impl LinkError ===

#[cfg(feature = "runtime")]
impl From<ConnectError> for LinkError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::TimedOut => Self::Timeout,
            ConnectError::NotPinned => Self::WrongKey,
            ConnectError::Version => Self::Version,
            ConnectError::Busy { retry_after_ms } => Self::Busy { retry_after_ms },
        }
    }
}

#[cfg(feature = "runtime")]
impl From<End> for LinkError {
    fn from(end: End) -> Self {
        match end {
            End::ClosedByPeer(code) => match CloseReason::try_from(i32::from(code)) {
                Ok(CloseReason::Unspecified) | Err(_) => Self::Closed,
                Ok(reason) => Self::ClosedFor(reason),
            },
            End::Closed(_) => Self::Closed,
            End::Silent => Self::Silent,
            End::Forgotten => Self::Forgotten,
            End::Violated(violation) => Self::BadFrame(violation.to_string()),
            // The next session has other keys.
            End::Exhausted | End::Forged => Self::Closed,
        }
    }
}
