//! Messages and logs as JSON. Ids of 64 bits are strings, since JavaScript's
//! numbers are not that wide; text is text, other bodies are base64.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sluice_protocol::{
    ClientMsgId, Refusal, fresh_client_msg_id,
    packet::{self, ContentType},
};
use sluice_store::{Content, StoredEntry};
use utoipa::ToSchema;

use super::error::ApiError;
use crate::clock;

/// What a body holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// UTF-8.
    #[default]
    Text,
    /// A picture.
    Image,
    /// Any file.
    File,
    /// Recorded speech.
    Voice,
    /// A film.
    Video,
    /// A place.
    Location,
    /// From the system.
    System,
    /// The application's own.
    Custom,
}

/// A member's role in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Talks.
    Member,
    /// Also adds, removes and recalls.
    Admin,
    /// Also sets roles.
    Owner,
}

/// The entry is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ack {
    conversation_id: String,
    /// Its place in the conversation.
    seq: u64,
    /// Decimal.
    message_id: String,
    /// UUIDv7.
    client_msg_id: String,
    server_time_ms: u64,
}

/// An entry of a conversation's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Entry {
    seq: u64,
    /// Decimal.
    message_id: String,
    sender: String,
    /// UUIDv7.
    client_msg_id: String,
    server_time_ms: u64,
    content: EntryContent,
}

/// What an entry says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum EntryContent {
    /// Something said.
    Message {
        content_type: Kind,
        /// Of a text.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Of everything else: base64.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// The body was taken back.
        recalled: bool,
    },
    /// The message at `seq` was taken back.
    Recall { seq: u64 },
    /// The group was founded by the sender.
    GroupCreated { name: String, members: Vec<String> },
    /// The group has a new name.
    GroupRenamed { name: String },
    /// These joined.
    Joined { users: Vec<String> },
    /// The sender left.
    Left,
    /// The sender removed this member.
    Removed { user_id: String },
    /// A member's role changed.
    RoleChanged { user_id: String, role: Role },
}

/// `Idempotency-Key`, a UUIDv7, makes the repeat of a call harmless; without it
/// the call gets a fresh one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<ClientMsgId, ApiError> {
    match headers.get("idempotency-key") {
        None => Ok(new_client_msg_id()),
        Some(value) => parse_client_msg_id(value.to_str().unwrap_or_default()),
    }
}

/// A fresh id, of now.
pub(super) fn new_client_msg_id() -> ClientMsgId {
    ClientMsgId::new(clock::now_ms(), rand::random())
}

/// A UUIDv7 as text, held against the clock.
pub(super) fn parse_client_msg_id(text: &str) -> Result<ClientMsgId, ApiError> {
    let bytes = uuid_bytes(text)
        .ok_or_else(|| Refusal::bad_request("the id must be a UUIDv7 in its usual form"))?;
    Ok(fresh_client_msg_id(&bytes, clock::now_ms())?)
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    (digits.next().is_none() && text.len() <= 36).then_some(bytes)
}

/// The inverse, for bytes of any length.
fn uuid_text(bytes: &[u8]) -> String {
    match ClientMsgId::parse_stored(bytes) {
        Ok(id) => id.to_string(),
        Err(_) => bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

// === impl Kind ===

impl From<Kind> for ContentType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => ContentType::Text,
            Kind::Image => ContentType::Image,
            Kind::File => ContentType::File,
            Kind::Voice => ContentType::Voice,
            Kind::Video => ContentType::Video,
            Kind::Location => ContentType::Location,
            Kind::System => ContentType::System,
            Kind::Custom => ContentType::Custom,
        }
    }
}

impl From<ContentType> for Kind {
    fn from(content_type: ContentType) -> Self {
        match content_type {
            ContentType::Text => Kind::Text,
            ContentType::Image => Kind::Image,
            ContentType::File => Kind::File,
            ContentType::Voice => Kind::Voice,
            ContentType::Video => Kind::Video,
            ContentType::Location => Kind::Location,
            ContentType::System => Kind::System,
            ContentType::Custom => Kind::Custom,
        }
    }
}

// === impl Role ===

impl From<Role> for packet::MemberRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => packet::MemberRole::Member,
            Role::Admin => packet::MemberRole::Admin,
            Role::Owner => packet::MemberRole::Owner,
        }
    }
}

impl From<packet::MemberRole> for Role {
    fn from(role: packet::MemberRole) -> Self {
        match role {
            packet::MemberRole::Member => Role::Member,
            packet::MemberRole::Admin => Role::Admin,
            packet::MemberRole::Owner => Role::Owner,
        }
    }
}

// === impl Ack ===

impl From<packet::SendAck> for Ack {
    fn from(ack: packet::SendAck) -> Self {
        Self {
            conversation_id: ack.conversation_id,
            seq: ack.seq,
            message_id: ack.message_id.to_string(),
            client_msg_id: uuid_text(&ack.client_msg_id),
            server_time_ms: ack.server_time_ms,
        }
    }
}

// === impl Entry ===

impl From<StoredEntry> for Entry {
    fn from(stored: StoredEntry) -> Self {
        Self {
            seq: stored.seq.0,
            message_id: stored.message_id.to_string(),
            sender: stored.sender.to_string(),
            client_msg_id: stored.client_msg_id.to_string(),
            server_time_ms: stored.server_time_ms,
            content: EntryContent::of(stored.content, stored.recalled),
        }
    }
}

// === impl EntryContent ===

impl EntryContent {
    fn of(content: Content, recalled: bool) -> Self {
        let names = |users: Vec<sluice_protocol::UserId>| {
            users.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        match content {
            Content::Message { content_type, body } => {
                let text = match content_type {
                    ContentType::Text => std::str::from_utf8(&body).ok().map(str::to_owned),
                    _ => None,
                };
                EntryContent::Message {
                    content_type: content_type.into(),
                    body: text.is_none().then(|| STANDARD.encode(&body)),
                    text,
                    recalled,
                }
            }
            Content::Recall { seq } => EntryContent::Recall { seq: seq.0 },
            Content::GroupCreated { name, members } => EntryContent::GroupCreated {
                name,
                members: names(members),
            },
            Content::GroupRenamed { name } => EntryContent::GroupRenamed { name },
            Content::Joined { users } => EntryContent::Joined {
                users: names(users),
            },
            Content::Left => EntryContent::Left,
            Content::Removed { user } => EntryContent::Removed {
                user_id: user.to_string(),
            },
            Content::RoleChanged { user, role } => EntryContent::RoleChanged {
                user_id: user.to_string(),
                role: role.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_in_text() {
        let id = new_client_msg_id();
        assert_eq!(parse_client_msg_id(&id.to_string()).unwrap(), id);
        assert_eq!(uuid_text(id.as_bytes()), id.to_string());
        for bad in ["", "0190", "zz", &"0".repeat(32), &format!("{id}0")] {
            assert!(parse_client_msg_id(bad).is_err(), "{bad}");
        }
    }
}
