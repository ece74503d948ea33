//! What a session answers to callers, and what a peer did wrong.

use sluice_protocol::packet::CloseReason;

/// A peer that breaks the rules of the session. It has the keys, so nobody else
/// can have sent it: the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A frame of no known type.
    #[error("the frame's type is unknown")]
    UnknownFrame,
    /// A frame that ends before it should.
    #[error("the packet ends within a frame")]
    Truncated,
    /// A packet without a frame.
    #[error("the packet holds no frame")]
    Empty,
    /// Ranges that overlap, or go below packet 0.
    #[error("an ACK frame's ranges are not ranges")]
    BadAck,
    /// Over [`ACK_RANGES_MAX`](super::config::ACK_RANGES_MAX).
    #[error("an ACK frame has too many ranges")]
    TooManyRanges,
    /// Acknowledged is what was never sent.
    #[error("a packet is acknowledged that was never sent")]
    AckOfUnsent,
    /// A fragment whose place, count and length don't fit.
    #[error("a fragment's place and length contradict its message")]
    BadFragment,
    /// Over 64 KiB, or 16 KiB in an unreliable mode.
    #[error("a message is longer than allowed")]
    MessageTooLarge,
    /// More than the credit that was given.
    #[error("more was sent than the credit allows")]
    OverCredit,
    /// Too far ahead of the oldest message that is awaited.
    #[error("a message is too far ahead of the oldest that is awaited")]
    OverWindow,
}

/// A message that was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// The send buffer is full: the peer doesn't take what is sent.
    #[error("the send buffer of the session is full")]
    Full,
    /// Over the limit of the channel's mode.
    #[error("the message has {bytes} bytes, the channel takes at most {max_bytes}")]
    TooLarge {
        /// Of the message.
        bytes: usize,
        /// Of the channel's mode.
        max_bytes: usize,
    },
    /// No message has no bytes.
    #[error("the message is empty")]
    Empty,
    /// The session has ended.
    #[error("the session is closed")]
    Closed,
}

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// By us, with this code.
    Closed(u16),
    /// By the peer, with this code.
    ClosedByPeer(u16),
    /// The peer broke the rules.
    Violated(Violation),
    /// Nothing came for too long.
    Silent,
    /// The peer no longer knows the session.
    Forgotten,
    /// More packets were forged than the keys bear.
    Forged,
    /// The packet numbers are used up.
    Exhausted,
}

// === impl Violation ===

impl Violation {
    /// The code of the CLOSE frame that tells the peer.
    pub fn close_code(self) -> u16 {
        CloseReason::BadFrame as u16
    }

    /// For metrics; one of a fixed dozen.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownFrame => "unknown_frame",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::BadAck => "bad_ack",
            Self::TooManyRanges => "too_many_ranges",
            Self::AckOfUnsent => "ack_of_unsent",
            Self::BadFragment => "bad_fragment",
            Self::MessageTooLarge => "message_too_large",
            Self::OverCredit => "over_credit",
            Self::OverWindow => "over_window",
        }
    }
}
