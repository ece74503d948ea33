//! What an entry of a conversation's log holds.

use bytes::Bytes;
use sluice_protocol::{
    Seq, UserId,
    packet::{ContentType, MemberRole},
};

/// Content of a log entry. All but `Message` also change the conversation when
/// they are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Something that people (or devices) say.
    Message {
        /// What the body holds.
        content_type: ContentType,
        /// Empty once recalled.
        body: Bytes,
    },
    /// The message at `seq` is recalled: its body is wiped. One that is recalled
    /// already gets no second entry: whoever asks is told of the first.
    Recall {
        /// Position of the recalled message.
        seq: Seq,
    },
    /// Founds a group: the sender becomes its owner, the others members, all
    /// of them from this entry on. Must be the conversation's first entry.
    GroupCreated {
        /// The group's name.
        name: String,
        /// Founding members besides the sender.
        members: Vec<UserId>,
    },
    /// The group has a new name.
    GroupRenamed {
        /// The new name.
        name: String,
    },
    /// These joined, from this entry on. Somebody who left before joins anew:
    /// what happened in between stays hidden.
    Joined {
        /// Who.
        users: Vec<UserId>,
    },
    /// The sender left; this entry is the last one to be seen.
    Left,
    /// The sender removed this member; likewise.
    Removed {
        /// Who.
        user: UserId,
    },
    /// A member's role changed.
    RoleChanged {
        /// Whose.
        user: UserId,
        /// What it is now.
        role: MemberRole,
    },
}

impl Content {
    /// Whether it counts as unread.
    pub fn counts_as_unread(&self) -> bool {
        matches!(self, Content::Message { .. })
    }
}
