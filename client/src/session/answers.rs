//! What questions ask for and what they are answered with.

use bytes::Bytes;
use sluice_protocol::{ConversationId, MessageId, Seq, UserId, UserSeq, packet};
#[cfg(feature = "runtime")]
use sluice_protocol::{ConversationKind, IdError};

use crate::{Entry, SendReceipt};

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the private conversation with this user.
    User(UserId),
    /// To a group, or a private conversation by its id.
    Conversation(ConversationId),
}

/// Part of a conversation's log. Who left a group and came back has a window of
/// it for each membership; a page lies within one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Ascending by seq.
    pub entries: Vec<Entry>,
    /// The first entry of the page's window.
    pub first_seq: Seq,
    /// The last one.
    pub last_seq: Seq,
    /// There are more in the direction that was asked for, in this window or in another.
    pub more: bool,
}

/// A page of the list of conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationList {
    /// Newest first.
    pub conversations: Vec<ConversationSummary>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Bytes>,
}

/// How one conversation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Which one.
    pub conversation: ConversationId,
    /// The other party, or the group's name.
    pub title: String,
    /// The first entry that this user may see.
    pub first_seq: Seq,
    /// The last one.
    pub last_seq: Seq,
    /// This user has read up to here.
    pub read_seq: Seq,
    /// Messages of others that this user hasn't read.
    pub unread: u64,
    /// The other party has up to here; private conversations only.
    pub peer_delivered_seq: Seq,
    /// The other party has read up to here; private conversations only.
    pub peer_read_seq: Seq,
    /// The newest entry.
    pub last_entry: Option<Entry>,
}

/// A backend's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 0 is success; other values are the backend's own.
    pub status: u32,
    /// What it says.
    pub payload: Bytes,
}

// === impl Target ===

impl From<UserId> for Target {
    fn from(user: UserId) -> Self {
        Self::User(user)
    }
}

impl From<ConversationId> for Target {
    fn from(conversation: ConversationId) -> Self {
        Self::Conversation(conversation)
    }
}

// === impl HistoryPage ===

#[cfg(feature = "runtime")]
impl HistoryPage {
    pub(crate) fn parse(page: packet::ConversationPage) -> Result<Self, IdError> {
        Ok(Self {
            entries: page
                .entries
                .into_iter()
                .map(|entry| Entry::parse(entry, 0))
                .collect::<Result<_, _>>()?,
            first_seq: Seq(page.first_seq),
            last_seq: Seq(page.last_seq),
            more: page.more,
        })
    }
}

// === impl ConversationList ===

#[cfg(feature = "runtime")]
impl ConversationList {
    pub(crate) fn parse(list: packet::ConversationList) -> Result<Self, IdError> {
        Ok(Self {
            conversations: list
                .conversations
                .into_iter()
                .map(ConversationSummary::parse)
                .collect::<Result<_, _>>()?,
            next: (!list.next.is_empty()).then_some(list.next),
        })
    }
}

// === impl ConversationSummary ===

#[cfg(feature = "runtime")]
impl ConversationSummary {
    fn parse(summary: packet::ConversationSummary) -> Result<Self, IdError> {
        Ok(Self {
            conversation: ConversationId::parse(&summary.conversation_id)?,
            title: summary.title,
            first_seq: Seq(summary.first_seq),
            last_seq: Seq(summary.last_seq),
            read_seq: Seq(summary.read_seq),
            unread: summary.unread,
            peer_delivered_seq: Seq(summary.peer_delivered_seq),
            peer_read_seq: Seq(summary.peer_read_seq),
            last_entry: summary
                .last_entry
                .map(|entry| Entry::parse(entry, 0))
                .transpose()?,
        })
    }

    /// Private or group.
    pub fn kind(&self) -> ConversationKind {
        self.conversation.kind()
    }
}

// === impl SendReceipt ===

impl SendReceipt {
    pub(crate) fn parse(ack: &packet::SendAck) -> Option<Self> {
        Some(Self {
            message_id: MessageId(ack.message_id),
            conversation: ConversationId::parse(&ack.conversation_id).ok()?,
            seq: Seq(ack.seq),
            user_seq: UserSeq(ack.user_seq),
            server_time_ms: ack.server_time_ms,
        })
    }
}
