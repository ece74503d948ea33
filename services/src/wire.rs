//! Stored things as packets: the one place where they are converted.

use bytes::Bytes;
use prost::Message as _;
use sluice_protocol::{
    ConversationId, ConversationKind, UserId,
    limits::PAGE_MAX_BYTES,
    packet::{self, MemberChangeKind, entry::Content as WireContent},
};
use sluice_store::{
    Content, ConversationPage, ConversationRow, Heads, InboxPage, ListCursor, NewEntry, Stored,
    StoredEntry,
};

/// A log entry as clients see it.
pub(crate) fn entry(stored: &StoredEntry) -> packet::Entry {
    packet::Entry {
        conversation_id: stored.conversation.as_str().to_owned(),
        seq: stored.seq.0,
        message_id: stored.message_id.0,
        sender: stored.sender.as_str().to_owned(),
        client_msg_id: Bytes::copy_from_slice(stored.client_msg_id.as_bytes()),
        server_time_ms: stored.server_time_ms,
        content: Some(content(&stored.content, stored.recalled)),
    }
}

/// The same, encoded.
pub(crate) fn entry_bytes(stored: &StoredEntry) -> Bytes {
    entry(stored).encode_to_vec().into()
}

/// What an entry that was just committed looks like.
pub(crate) fn committed(entry: NewEntry, stored: &Stored) -> StoredEntry {
    StoredEntry {
        conversation: entry.conversation,
        seq: stored.seq,
        message_id: stored.message_id,
        sender: entry.sender,
        client_msg_id: entry.client_msg_id,
        server_time_ms: stored.server_time_ms,
        content: entry.content,
        recalled: false,
    }
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(|user| user.as_str().to_owned()).collect()
}

fn content(content: &Content, recalled: bool) -> WireContent {
    let member_change = |kind: MemberChangeKind, users: Vec<String>| {
        WireContent::MemberChange(packet::MemberChange {
            kind: kind.into(),
            users,
            role: packet::MemberRole::Member.into(),
        })
    };
    match content {
        Content::Message { content_type, body } => WireContent::Message(packet::Message {
            content_type: (*content_type).into(),
            body: body.clone(),
            recalled,
        }),
        Content::Recall { seq } => WireContent::Recall(packet::RecallEntry { seq: seq.0 }),
        Content::GroupCreated { name, members } => WireContent::GroupChange(packet::GroupChange {
            name: name.clone(),
            created: true,
            members: names(members),
        }),
        Content::GroupRenamed { name } => WireContent::GroupChange(packet::GroupChange {
            name: name.clone(),
            created: false,
            members: Vec::new(),
        }),
        Content::Joined { users } => member_change(MemberChangeKind::Joined, names(users)),
        Content::Left => member_change(MemberChangeKind::Left, Vec::new()),
        Content::Removed { user } => {
            member_change(MemberChangeKind::Removed, vec![user.as_str().to_owned()])
        }
        Content::RoleChanged { user, role } => WireContent::MemberChange(packet::MemberChange {
            kind: MemberChangeKind::Role.into(),
            users: vec![user.as_str().to_owned()],
            role: (*role).into(),
        }),
    }
}

pub(crate) fn inbox_page(page: &InboxPage) -> packet::InboxPage {
    packet::InboxPage {
        entries: page
            .entries
            .iter()
            .map(|(user_seq, stored)| packet::InboxEntry {
                user_seq: user_seq.0,
                entry: Some(entry(stored)),
            })
            .collect(),
        inbox_seq: page.inbox_seq.0,
        more: page.more,
        first_seq: page.first_seq.0,
    }
}

pub(crate) fn conversation_page(
    conversation: &ConversationId,
    page: &ConversationPage,
) -> packet::ConversationPage {
    packet::ConversationPage {
        conversation_id: conversation.as_str().to_owned(),
        entries: page.entries.iter().map(entry).collect(),
        first_seq: page.first_seq.0,
        last_seq: page.last_seq.0,
        more: page.more,
    }
}

pub(crate) fn heads_page(heads: &Heads) -> packet::HeadsPage {
    packet::HeadsPage {
        inbox_seq: heads.inbox_seq.0,
        groups: heads
            .groups
            .iter()
            .map(|(conversation, first, last)| packet::Head {
                conversation_id: conversation.as_str().to_owned(),
                first_seq: first.0,
                last_seq: last.0,
            })
            .collect(),
        more: heads.more,
    }
}

/// What `user` calls a conversation: the other party, or the group's name.
pub(crate) fn title(user: &UserId, row: &ConversationRow) -> String {
    match row.conversation.kind() {
        ConversationKind::Private(first, second) if first == *user => second.to_string(),
        ConversationKind::Private(first, _) => first.to_string(),
        ConversationKind::Group(_) => row.name.clone(),
    }
}

/// A line of `user`'s conversation list.
fn summary(user: &UserId, row: &ConversationRow) -> packet::ConversationSummary {
    let kind = match row.conversation.is_group() {
        true => packet::ConversationKind::Group,
        false => packet::ConversationKind::Private,
    };
    packet::ConversationSummary {
        conversation_id: row.conversation.as_str().to_owned(),
        kind: kind.into(),
        title: title(user, row),
        first_seq: row.first_seq.0,
        last_seq: row.last_seq.0,
        read_seq: row.read_seq.0,
        unread: row.unread,
        peer_delivered_seq: row.peer_delivered_seq.0,
        peer_read_seq: row.peer_read_seq.0,
        last_entry: row.last_entry.as_ref().map(entry),
    }
}

/// A page of `user`'s conversation list. It stops growing where the next line
/// would take it over the bound of a page; one line always fits.
pub(crate) fn conversation_list(
    user: &UserId,
    rows: &[ConversationRow],
    limit: u32,
) -> packet::ConversationList {
    let mut conversations = Vec::with_capacity(rows.len());
    let (mut bytes, mut next) = (0, Bytes::new());
    for row in rows {
        let line = summary(user, row);
        bytes += line.encoded_len();
        if bytes > PAGE_MAX_BYTES && !conversations.is_empty() {
            break;
        }
        conversations.push(line);
        next = list_cursor_bytes(row.cursor);
    }
    let whole = conversations.len() == rows.len();
    if whole && rows.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        next = Bytes::new();
    }
    packet::ConversationList {
        conversations,
        next,
    }
}

/// A place in the conversation list as its opaque 16 bytes.
pub(crate) fn list_cursor_bytes(cursor: ListCursor) -> Bytes {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&cursor.last_ms.to_be_bytes());
    bytes[8..].copy_from_slice(&cursor.key.to_be_bytes());
    Bytes::copy_from_slice(&bytes)
}

/// The inverse; `None` for bytes that are no cursor.
pub(crate) fn parse_list_cursor(bytes: &[u8]) -> Option<ListCursor> {
    let bytes: u128 = u128::from_be_bytes(bytes.try_into().ok()?);
    Some(ListCursor {
        // Halves of the sixteen bytes.
        last_ms: (bytes >> 64) as u64,
        key: bytes as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_cursor_round_trips() {
        let cursor = ListCursor {
            last_ms: 1_790_000_000_123,
            key: u64::MAX - 5,
        };
        assert_eq!(parse_list_cursor(&list_cursor_bytes(cursor)), Some(cursor));
        assert_eq!(parse_list_cursor(b"short"), None);
    }
}
