//! What pulls return.

use sluice_protocol::{ConversationId, Seq, UserId, UserSeq, packet::MemberRole};

use crate::StoredEntry;

/// How much a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Entries.
    pub entries: u32,
    /// Bytes of bodies and names, roughly as encoded; one entry always fits.
    pub bytes: usize,
}

/// A stretch of a user's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// Ascending, without gaps.
    pub entries: Vec<(UserSeq, StoredEntry)>,
    /// Where the inbox begins: what was before is archived. 1 in most cases; one
    /// beyond the end when all is archived.
    pub first_seq: UserSeq,
    /// The inbox's end.
    pub inbox_seq: UserSeq,
    /// Whether entries follow.
    pub more: bool,
}

/// Which stretch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Ascending from here, exclusive.
    After(Seq),
    /// The newest below here, exclusive; `Seq(0)`: the newest of all.
    Before(Seq),
}

/// A stretch of a conversation's log, ascending. It lies within one window: who
/// left a group and joined again has a window for each membership, and sees
/// nothing of what lies between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationPage {
    /// Ascending, without gaps.
    pub entries: Vec<StoredEntry>,
    /// The window that the page lies in begins here …
    pub first_seq: Seq,
    /// … and ends here.
    pub last_seq: Seq,
    /// Whether entries follow in the direction asked for, in this window or in another.
    pub more: bool,
}

/// Where a user's inbox and groups stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// The inbox's end.
    pub inbox_seq: UserSeq,
    /// (group, first seq, last seq) by id: the first entry that the user may see
    /// and the last, over all windows.
    pub groups: Vec<(ConversationId, Seq, Seq)>,
    /// Whether groups follow.
    pub more: bool,
}

/// Place in a user's conversation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    /// Time of the conversation's last entry.
    pub last_ms: u64,
    /// Tie-breaker, opaque.
    pub key: u64,
}

/// A line of a user's conversation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRow {
    /// Which.
    pub conversation: ConversationId,
    /// A group's name; empty for private ones.
    pub name: String,
    /// The first entry that the user may see …
    pub first_seq: Seq,
    /// … and the last, over all windows.
    pub last_seq: Seq,
    /// The user's read cursor.
    pub read_seq: Seq,
    /// Messages of others above the read cursor, in all windows.
    pub unread: u64,
    /// The other party's cursors; 0 for groups.
    pub peer_delivered_seq: Seq,
    /// Likewise.
    pub peer_read_seq: Seq,
    /// The newest entry the user may see.
    pub last_entry: Option<StoredEntry>,
    /// Where the next page goes on.
    pub cursor: ListCursor,
}

/// A conversation and who is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Which.
    pub id: ConversationId,
    /// A group's name; empty for private ones.
    pub name: String,
    /// The log's end.
    pub max_seq: Seq,
    /// Those who are in it now.
    pub members: Vec<Member>,
}

/// Somebody in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: MemberRole,
    /// From which entry on; the latest window, when there are several.
    pub first_seq: Seq,
}
