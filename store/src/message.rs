//! Log entries: on their way in, and as they are kept.

use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Partition, PartitionEpoch, Seq, UserId, UserSeq,
};

use crate::Content;

/// A partition's batch.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose conversations these are.
    pub partition: Partition,
    /// From [`take_partition`](crate::Store::take_partition).
    pub epoch: PartitionEpoch,
    /// In order of their seqs to be.
    pub entries: Vec<NewEntry>,
}

/// An entry that has passed the service's checks.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Whose log it goes to. A private one comes into being with its first entry.
    pub conversation: ConversationId,
    /// Who caused it. Must exist.
    pub sender: UserId,
    /// The sender's name for it: (conversation, sender, this) is unique for ever.
    pub client_msg_id: ClientMsgId,
    /// Must be stored already (in this conversation, by this sender) or come
    /// earlier in the batch.
    pub predecessor: Option<ClientMsgId>,
    /// The id it gets if it is new.
    pub message_id: MessageId,
    /// The time it gets if it is new.
    pub server_time_ms: u64,
    /// What it says.
    pub content: Content,
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable now.
    Stored(Stored),
    /// It was durable before: the first answer.
    Duplicate(Stored),
    /// It was not stored; the rest of the batch is unharmed.
    Refused(CommitRefusal),
}

/// The answer to an entry that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub message_id: MessageId,
    /// Its place in the conversation.
    pub seq: Seq,
    /// When it was stored, by the server's clock.
    pub server_time_ms: u64,
    /// Its place in the inboxes of a private conversation's parties; empty for groups.
    pub inbox: Vec<(UserId, UserSeq)>,
}

/// Why an entry was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitRefusal {
    /// The id was used for other content.
    ClientMsgIdReused,
    /// The predecessor isn't stored.
    OutOfOrder,
    /// A party or member-to-be doesn't exist.
    UnknownUser(UserId),
    /// The group doesn't exist (or, founding it, exists already).
    UnknownConversation,
    /// The recall's target doesn't exist or is no message.
    UnknownMessage,
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Whose log.
    pub conversation: ConversationId,
    /// Where in it.
    pub seq: Seq,
    /// Its snowflake.
    pub message_id: MessageId,
    /// Who caused it.
    pub sender: UserId,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// When it was stored.
    pub server_time_ms: u64,
    /// What it says; the body is empty when recalled.
    pub content: Content,
    /// Its body was wiped by a recall.
    pub recalled: bool,
}

/// Which cursor of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CursorKind {
    /// Has arrived at one of the member's devices.
    Delivered,
    /// Was read.
    Read,
}

/// A member's position in a conversation; only rises.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Whose.
    pub user: UserId,
    /// Where.
    pub conversation: ConversationId,
    /// Which.
    pub kind: CursorKind,
}

/// A wish to raise a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorAdvance {
    /// Which cursor.
    pub cursor: Cursor,
    /// To here.
    pub seq: Seq,
}
