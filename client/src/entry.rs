//! One entry of a conversation's log, as the application sees it.

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId, IdError, MessageId, Seq, UserId, UserSeq,
    packet::{self, ContentType, MemberChangeKind, MemberRole},
};

/// An entry of a conversation's log: a message, or a change to the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Its place there: 1, 2, 3, … without gaps.
    pub seq: Seq,
    /// Its place in the own inbox; 0 for a group's entry.
    pub user_seq: UserSeq,
    /// Who made it.
    pub sender: UserId,
    /// The sender's name for it; entries that the server makes may have none.
    pub client_msg_id: Option<ClientMsgId>,
    /// The server's name for it.
    pub message_id: MessageId,
    /// When it was stored, in Unix milliseconds by the server's clock.
    pub server_time_ms: u64,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A message.
    Message {
        /// What the body holds; `None` when it is of a type newer than this crate.
        content_type: Option<ContentType>,
        /// Empty when recalled.
        body: Bytes,
        /// Its body was taken away.
        recalled: bool,
    },
    /// The entry's sender took back the message at this place of the conversation.
    Recall {
        /// Of the message that was taken back.
        seq: Seq,
    },
    /// Members came, went or changed.
    MemberChange {
        /// What happened to them.
        kind: MemberChangeKind,
        /// To whom.
        users: Vec<String>,
        /// The new role, with [`MemberChangeKind::Role`].
        role: MemberRole,
    },
    /// The group was founded or renamed.
    GroupChange {
        /// Its name from now on.
        name: String,
        /// This entry founds the group; its sender is the owner.
        created: bool,
        /// The other founding members.
        members: Vec<String>,
    },
    /// Of a kind newer than this crate. It keeps its place in the order.
    Unknown,
}

// === impl Entry ===

impl Entry {
    /// Takes a wire entry; `user_seq` is 0 outside the inbox.
    pub(crate) fn parse(wire: packet::Entry, user_seq: u64) -> Result<Self, IdError> {
        Ok(Self {
            conversation: ConversationId::parse(&wire.conversation_id)?,
            seq: Seq(wire.seq),
            user_seq: UserSeq(user_seq),
            sender: UserId::parse(&wire.sender)?,
            client_msg_id: match wire.client_msg_id.as_ref() {
                [] => None,
                bytes => Some(ClientMsgId::parse_stored(bytes)?),
            },
            message_id: MessageId(wire.message_id),
            server_time_ms: wire.server_time_ms,
            content: Content::from_wire(wire.content),
        })
    }

    /// The text of a text message that wasn't recalled.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Message {
                content_type: Some(ContentType::Text),
                body,
                recalled: false,
            } => std::str::from_utf8(body).ok(),
            _ => None,
        }
    }
}

// === impl Content ===

impl Content {
    fn from_wire(content: Option<packet::entry::Content>) -> Self {
        use packet::entry::Content as Wire;
        match content {
            Some(Wire::Message(message)) => Self::Message {
                content_type: ContentType::try_from(message.content_type).ok(),
                body: message.body,
                recalled: message.recalled,
            },
            Some(Wire::Recall(recall)) => Self::Recall {
                seq: Seq(recall.seq),
            },
            Some(Wire::MemberChange(change)) => Self::MemberChange {
                kind: change.kind(),
                role: change.role(),
                users: change.users,
            },
            Some(Wire::GroupChange(change)) => Self::GroupChange {
                name: change.name,
                created: change.created,
                members: change.members,
            },
            None => Self::Unknown,
        }
    }
}
