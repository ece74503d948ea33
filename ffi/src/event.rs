//! Events in the form that goes over the boundary, owning what they name.

use sluice_client::{
    CallError, Content, DatagramEvent, DisconnectReason, Entry, ErrorCode, Event, Refusal,
    SendError,
};

use crate::types::{SLUICE_NEVER, sluice_event, sluice_event_kind as Kind, sluice_id};

/// An event; its texts are copies.
#[derive(Debug, Default)]
pub(crate) struct Told {
    kind: Kind,
    code: i32,
    flag: bool,
    content_type: u32,
    id: sluice_id,
    number: u64,
    seq: u64,
    user_seq: u64,
    message_id: u64,
    server_time_ms: u64,
    retry_in_ms: Option<u64>,
    conversation: String,
    user: String,
    body: Vec<u8>,
    text: String,
}

// === impl Told ===

impl Told {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// What C sees; it points into `self`.
    pub(crate) fn view(&self) -> sluice_event {
        sluice_event {
            kind: self.kind as u32,
            code: self.code,
            flag: self.flag.into(),
            content_type: self.content_type,
            id: self.id,
            number: self.number,
            seq: self.seq,
            user_seq: self.user_seq,
            message_id: self.message_id,
            server_time_ms: self.server_time_ms,
            retry_in_ms: self.retry_in_ms.unwrap_or(SLUICE_NEVER),
            conversation: self.conversation.as_bytes().into(),
            user: self.user.as_bytes().into(),
            body: self.body.as_slice().into(),
            text: self.text.as_bytes().into(),
        }
    }

    fn refusal(kind: Kind, refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.into(),
            text: refusal.reason.to_string(),
            ..Self::new(kind)
        }
    }

    fn entry(entry: Entry, own: bool) -> Self {
        let told = Self {
            flag: own,
            seq: entry.seq.0,
            user_seq: entry.user_seq.0,
            message_id: entry.message_id.0,
            server_time_ms: entry.server_time_ms,
            conversation: entry.conversation.to_string(),
            user: entry.sender.to_string(),
            ..Self::default()
        };
        match entry.content {
            Content::Message {
                content_type, body, ..
            } => Self {
                kind: Kind::MESSAGE,
                content_type: content_type.map_or(u32::MAX, |it| it as u32),
                body: body.into(),
                ..told
            },
            Content::Recall { seq } => Self {
                kind: Kind::RECALLED,
                number: seq.0,
                ..told
            },
            Content::MemberChange { .. } | Content::GroupChange { .. } | Content::Unknown => Self {
                kind: Kind::GROUP_CHANGED,
                ..told
            },
        }
    }

    fn cursor(kind: Kind, conversation: String, user: String, seq: u64) -> Self {
        Self {
            conversation,
            user,
            seq,
            ..Self::new(kind)
        }
    }

    fn text(kind: Kind, text: String) -> Self {
        Self {
            text,
            ..Self::new(kind)
        }
    }
}

impl From<DatagramEvent> for Told {
    fn from(event: DatagramEvent) -> Self {
        match event {
            DatagramEvent::Session(event) => event.into(),
            DatagramEvent::Sent(id, outcome) => Self {
                id: sluice_id {
                    bytes: *id.as_bytes(),
                },
                ..match outcome {
                    Ok(receipt) => Self {
                        conversation: receipt.conversation.to_string(),
                        seq: receipt.seq.0,
                        user_seq: receipt.user_seq.0,
                        message_id: receipt.message_id.0,
                        server_time_ms: receipt.server_time_ms,
                        ..Self::new(Kind::SENT)
                    },
                    Err(SendError::Refused(refusal)) => Self::refusal(Kind::REFUSED, &refusal),
                    Err(error) => Self::text(Kind::REFUSED, error.to_string()),
                }
            },
            DatagramEvent::Answered(number, outcome) => Self {
                number,
                ..match outcome {
                    Ok(response) => Self {
                        code: i32::try_from(response.status).unwrap_or(i32::MAX),
                        body: response.payload.into(),
                        ..Self::new(Kind::ANSWERED)
                    },
                    Err(CallError::Refused(refusal)) => Self::refusal(Kind::UNANSWERED, &refusal),
                    Err(error) => Self {
                        code: match error {
                            CallError::Timeout => ErrorCode::Timeout.into(),
                            _ => 0,
                        },
                        ..Self::text(Kind::UNANSWERED, error.to_string())
                    },
                }
            },
            DatagramEvent::TokenWanted => Self::new(Kind::TOKEN_WANTED),
        }
    }
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        match event {
            Event::Connected { resumed } => Self {
                flag: resumed,
                ..Self::new(Kind::CONNECTED)
            },
            Event::Disconnected {
                reason,
                retry_in_ms,
            } => Self {
                retry_in_ms,
                ..disconnected(reason)
            },
            Event::Entry { entry, own } => Self::entry(entry, own),
            Event::Ephemeral {
                conversation,
                sender,
                server_time_ms,
                content_type,
                body,
            } => Self {
                server_time_ms,
                content_type: content_type.map_or(u32::MAX, |it| it as u32),
                body: body.into(),
                ..Self::cursor(
                    Kind::EPHEMERAL,
                    conversation.to_string(),
                    sender.to_string(),
                    0,
                )
            },
            Event::Typing { conversation, user } => {
                Self::cursor(Kind::TYPING, conversation.to_string(), user.to_string(), 0)
            }
            Event::Delivered {
                conversation,
                user,
                seq,
            } => Self::cursor(
                Kind::DELIVERED,
                conversation.to_string(),
                user.to_string(),
                seq.0,
            ),
            Event::Read {
                conversation,
                user,
                seq,
            } => Self::cursor(
                Kind::READ,
                conversation.to_string(),
                user.to_string(),
                seq.0,
            ),
            // Its id says which; told as `Sent` before it comes here.
            Event::SendRefused { refusal, .. } => Self::refusal(Kind::REFUSED, &refusal),
            Event::CaughtUp => Self::new(Kind::CAUGHT_UP),
            Event::Kicked { reason } => Self {
                code: reason.into(),
                ..Self::text(Kind::ENDED, reason.as_str_name().to_owned())
            },
            Event::LoginRefused { refusal } => Self::refusal(Kind::ENDED, &refusal),
            other @ (Event::TooManyGroups { .. }
            | Event::ServerBehind { .. }
            | Event::Archived { .. }) => Self::text(Kind::GAP, format!("{other:?}")),
        }
    }
}

fn disconnected(reason: DisconnectReason) -> Told {
    let kind = Kind::DISCONNECTED;
    match reason {
        DisconnectReason::Closed(Some(reason)) => Told {
            code: reason.into(),
            ..Told::text(kind, reason.as_str_name().to_owned())
        },
        DisconnectReason::Closed(None) => Told::text(kind, "closed by the server".to_owned()),
        DisconnectReason::LoginRefused(refusal) => Told::text(kind, refusal.to_string()),
        DisconnectReason::ConnectFailed(why)
        | DisconnectReason::Broken(why)
        | DisconnectReason::NoToken(why)
        | DisconnectReason::BadPacket(why) => Told::text(kind, why),
        DisconnectReason::Silent => Told::text(kind, "the server does not answer".to_owned()),
        DisconnectReason::LoginTimeout => Told::text(kind, "the login took too long".to_owned()),
        DisconnectReason::ByApplication => Told::text(kind, "closed by this side".to_owned()),
        other => Told::text(kind, format!("{other:?}")),
    }
}
