//! One entry of a partition's stream, parsed: what is asked, and by whom.

use bytes::Bytes;
use sluice_bus::BusEntry;
use sluice_protocol::{
    ClientMsgId, ConversationId, Refusal, SendClass, SendRequest, Seq, UserId, envelope,
    fresh_client_msg_id,
    packet::{self, ErrorCode, packet::Body},
};
use sluice_store::{Content, StoredEntry};
use sluice_trace::TraceId;

use super::group_command::GroupCommand;
use crate::origin::{Origin, Unreadable, Uplink, decode_packet};

/// What one origin asks of one conversation.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) origin: Origin,
    pub(super) conversation: ConversationId,
    pub(super) ask: Ask,
    /// The message is followed.
    pub(super) trace: Option<TraceId>,
}

/// What can be asked of the owner of a conversation.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Store a message.
    Send {
        client_msg_id: ClientMsgId,
        predecessor: Option<ClientMsgId>,
        content_type: packet::ContentType,
        body: Bytes,
    },
    /// Pass a message on to who is online.
    Ephemeral {
        content_type: packet::ContentType,
        body: Bytes,
    },
    /// Pass on that somebody types.
    Typing,
    /// Take a message back.
    Recall {
        client_msg_id: ClientMsgId,
        seq: Seq,
    },
    /// Change a group.
    Group {
        command_id: ClientMsgId,
        command: GroupCommand,
    },
}

/// An entry that is no job.
pub(super) enum NoJob {
    /// Not even an answer is possible.
    Unreadable(Unreadable),
    /// Refused before any look-up.
    Refused {
        origin: Box<Origin>,
        refusal: Refusal,
        client_msg_id: Bytes,
    },
}

// === impl Job ===

impl Job {
    pub(super) fn parse(entry: &BusEntry, now_ms: u64) -> Result<Self, NoJob> {
        let uplink = Uplink::decode(entry.payload.clone())?;
        let origin = uplink
            .origin
            .ok_or_else(|| Unreadable("no origin".into()))?;
        match uplink.body {
            envelope::up::Body::Packet(bytes) => match decode_packet(bytes)? {
                Body::Send(send) => Self::of_send(origin, send, now_ms),
                Body::Recall(recall) => Self::of_recall(origin, recall, now_ms),
                Body::Typing(typing) => Self::of_typing(origin, typing),
                _ => Err(Unreadable("a packet of another service".into()).into()),
            },
            envelope::up::Body::GroupCommand(command) => Self::of_command(origin, command, now_ms),
            _ => Err(Unreadable("an entry of another service".into()).into()),
        }
    }

    /// The sender's name for what will be stored, if anything will.
    pub(super) fn client_msg_id(&self) -> Option<ClientMsgId> {
        match &self.ask {
            Ask::Send { client_msg_id, .. } | Ask::Recall { client_msg_id, .. } => {
                Some(*client_msg_id)
            }
            Ask::Group { command_id, .. } => Some(*command_id),
            Ask::Ephemeral { .. } | Ask::Typing => None,
        }
    }

    /// What the store knows it by, if it will be stored.
    pub(super) fn key(&self) -> Option<(ConversationId, UserId, ClientMsgId)> {
        let id = self.client_msg_id()?;
        Some((self.conversation.clone(), self.origin.user.clone(), id))
    }

    /// The same as it stands in an answer; empty where there is none.
    pub(super) fn client_msg_id_bytes(&self) -> Bytes {
        self.client_msg_id()
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))
    }

    /// Whether it changes who is in the group or as what.
    pub(super) fn changes_group(&self) -> bool {
        matches!(self.ask, Ask::Group { .. })
    }

    /// Whether this stored entry is what it asks for: a repeat has the same
    /// content. What a recalled message said is gone and can't differ.
    pub(super) fn asks_for(&self, entry: &StoredEntry) -> bool {
        match (&self.ask, &entry.content) {
            (
                Ask::Send {
                    content_type, body, ..
                },
                Content::Message {
                    content_type: stored_type,
                    body: stored_body,
                },
            ) => entry.recalled || (content_type == stored_type && body == stored_body),
            (Ask::Recall { seq, .. }, Content::Recall { seq: stored }) => seq == stored,
            (Ask::Group { command, .. }, content) => command.asks_for(content),
            _ => false,
        }
    }

    fn of_send(origin: Origin, send: packet::Send, now_ms: u64) -> Result<Self, NoJob> {
        let id = send.client_msg_id.clone();
        let request = match SendRequest::parse(send, &origin.user, now_ms) {
            Ok(request) => request,
            Err(refusal) => return Err(NoJob::refused(origin, refusal, id)),
        };
        let (content_type, body) = (request.content_type, request.body);
        let ask = match request.class {
            SendClass::Ephemeral => Ask::Ephemeral { content_type, body },
            SendClass::Durable {
                client_msg_id,
                predecessor,
            } => Ask::Send {
                client_msg_id,
                predecessor,
                content_type,
                body,
            },
        };
        Ok(Self {
            origin,
            conversation: request.conversation,
            ask,
            trace: None,
        })
    }

    fn of_recall(origin: Origin, recall: packet::Recall, now_ms: u64) -> Result<Self, NoJob> {
        let parsed = conversation_of(&origin.user, &recall.conversation_id)
            .and_then(|id| Ok((id, fresh_client_msg_id(&recall.client_msg_id, now_ms)?)));
        match parsed {
            Ok((conversation, client_msg_id)) => Ok(Self {
                origin,
                conversation,
                ask: Ask::Recall {
                    client_msg_id,
                    seq: Seq(recall.seq),
                },
                trace: None,
            }),
            Err(refusal) => Err(NoJob::refused(origin, refusal, recall.client_msg_id)),
        }
    }

    fn of_typing(origin: Origin, typing: packet::Typing) -> Result<Self, NoJob> {
        let conversation = match typing.target {
            Some(packet::typing::Target::ToUser(name)) => UserId::parse(&name)
                .and_then(|peer| ConversationId::private(&origin.user, &peer))
                .map_err(Refusal::from),
            Some(packet::typing::Target::ConversationId(id)) => conversation_of(&origin.user, &id),
            None => Err(Refusal::bad_request("target is missing")),
        };
        match conversation {
            Ok(conversation) => Ok(Self {
                origin,
                conversation,
                ask: Ask::Typing,
                trace: None,
            }),
            Err(refusal) => Err(NoJob::refused(origin, refusal, Bytes::new())),
        }
    }

    fn of_command(
        origin: Origin,
        command: envelope::GroupCommand,
        now_ms: u64,
    ) -> Result<Self, NoJob> {
        let id = command.command_id.clone();
        let parsed = ConversationId::parse(&command.conversation_id)
            .map_err(Refusal::from)
            .and_then(|conversation| {
                if !conversation.is_group() {
                    return Err(Refusal::new(
                        ErrorCode::BadRequest,
                        "a private conversation has no such commands",
                    ));
                }
                let command_id = fresh_client_msg_id(&command.command_id, now_ms)?;
                let command = GroupCommand::parse(command.command, &origin.user)?;
                Ok((conversation, command_id, command))
            });
        match parsed {
            Ok((conversation, command_id, command)) => Ok(Self {
                origin,
                conversation,
                ask: Ask::Group {
                    command_id,
                    command,
                },
                trace: None,
            }),
            Err(refusal) => Err(NoJob::refused(origin, refusal, id)),
        }
    }
}

fn conversation_of(user: &UserId, id: &str) -> Result<ConversationId, Refusal> {
    let conversation = ConversationId::parse(id)?;
    conversation.check_party(user)?;
    Ok(conversation)
}

// === impl NoJob ===

impl NoJob {
    fn refused(origin: Origin, refusal: Refusal, client_msg_id: Bytes) -> Self {
        NoJob::Refused {
            origin: origin.into(),
            refusal,
            client_msg_id,
        }
    }
}

impl From<Unreadable> for NoJob {
    fn from(error: Unreadable) -> Self {
        NoJob::Unreadable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use sluice_bus::EntryId;

    fn entry(payload: Vec<u8>) -> BusEntry {
        BusEntry {
            id: EntryId { major: 0, minor: 1 },
            deliveries: 1,
            payload: payload.into(),
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_job_or_an_answer_or_set_aside(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            packet in prop::collection::vec(any::<u8>(), 0..200),
            user_id in ".{0,70}",
        ) {
            let _ = Job::parse(&entry(noise), 1);
            let up = envelope::Up {
                origin: Some(envelope::Origin {
                    user_id,
                    reply_to: "down:{1}".into(),
                    ..Default::default()
                }),
                body: Some(envelope::up::Body::Packet(packet.into())),
                ..Default::default()
            };
            let _ = Job::parse(&entry(up.encode_to_vec()), 1);
        }
    }
}
