//! The last stage: packets for the chat services, each to its lane. Fields are
//! checked here, at the edge, as far as they can be without a store.

use bytes::Bytes;
use sluice_protocol::{
    ConversationId, Refusal, SendClass, SendRequest, UserId,
    limits::SHARED_PARTITIONS,
    packet::{Packet, Recall, Send, Typing, packet::Body, typing},
    partition_of,
};

use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
};

/// Send, recall, typing → the conversation's lane; reads → the Ack lanes; sync
/// and lists → the Query lanes.
#[derive(Debug)]
pub(crate) struct Dispatch;

/// Which lane a packet takes, and whether a service will answer it.
struct Ticket {
    lane: LaneKind,
    client_msg_id: Bytes,
    answered: bool,
}

enum LaneKind {
    Message(ConversationId),
    Query,
    Ack,
}

// === impl Dispatch ===

impl Handler for Dispatch {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let id = packet.id;
        let Some(user) = context.user().cloned() else {
            return Flow::Next(packet);
        };
        let now_unix_ms = context.now().unix_ms;
        let (ticket, client_msg_id) = match packet.body {
            Some(Body::Send(send)) => {
                let client_msg_id = send.client_msg_id.clone();
                (of_send(send, &user, now_unix_ms), client_msg_id)
            }
            Some(Body::Recall(recall)) => {
                let client_msg_id = recall.client_msg_id.clone();
                (of_recall(recall, &user), client_msg_id)
            }
            Some(Body::Typing(typing)) => (of_typing(typing, &user), Bytes::new()),
            Some(Body::Read(read)) => {
                let ticket = conversation(&read.conversation_id, &user).map(|_| Ticket {
                    lane: LaneKind::Ack,
                    client_msg_id: Bytes::new(),
                    answered: false,
                });
                (ticket, Bytes::new())
            }
            Some(
                Body::SyncInbox(_)
                | Body::SyncConversation(_)
                | Body::SyncHeads(_)
                | Body::ListConversations(_),
            ) => (Ok(query()), Bytes::new()),
            body => return Flow::Next(Packet { id, body }),
        };
        match ticket {
            Ok(ticket) => pass_on(context, id, ticket, &user),
            Err(refusal) => context.refuse(id, &refusal, client_msg_id),
        }
        Flow::Done
    }
}

fn pass_on(context: &mut ChannelContext<'_>, id: u64, ticket: Ticket, user: &UserId) {
    let counted = ticket.answered;
    let is_pull = matches!(ticket.lane, LaneKind::Query);
    if counted && !context.has_send_room() || is_pull && !context.has_pull_room() {
        return context.busy(id, ticket.client_msg_id);
    }
    let entry = context.up_entry(id);
    let of_user = partition_of(user.as_str().as_bytes(), SHARED_PARTITIONS);
    let lanes = &context.bench.shared.lanes;
    let lane = match &ticket.lane {
        LaneKind::Message(conversation) => {
            lanes.message(conversation.partition(lanes.partitions()))
        }
        LaneKind::Query => lanes.query(of_user),
        LaneKind::Ack => lanes.ack(of_user.0),
    };
    let trace = context.bench.traces.enter_lane();
    match lane.offer_message(entry, context.now().mono_ms, trace) {
        Ok(()) if counted => {
            context.count_unanswered();
            if is_pull {
                context.count_pull(id);
            }
        }
        Ok(()) => {}
        // Typing and ephemeral messages are simply lost under load.
        Err(_) if id == 0 && !counted => {}
        Err(_) => context.busy(id, ticket.client_msg_id),
    }
}

fn of_send(send: Send, user: &UserId, now_unix_ms: u64) -> Result<Ticket, Refusal> {
    let client_msg_id = send.client_msg_id.clone();
    let request = SendRequest::parse(send, user, now_unix_ms)?;
    Ok(Ticket {
        lane: LaneKind::Message(request.conversation),
        client_msg_id,
        answered: request.class != SendClass::Ephemeral,
    })
}

fn of_recall(recall: Recall, user: &UserId) -> Result<Ticket, Refusal> {
    Ok(Ticket {
        lane: LaneKind::Message(conversation(&recall.conversation_id, user)?),
        client_msg_id: recall.client_msg_id,
        answered: true,
    })
}

fn of_typing(typing: Typing, user: &UserId) -> Result<Ticket, Refusal> {
    let conversation = match typing.target {
        Some(typing::Target::ToUser(name)) => {
            ConversationId::private(user, &UserId::parse(&name)?)?
        }
        Some(typing::Target::ConversationId(id)) => conversation(&id, user)?,
        None => return Err(Refusal::bad_request("target is missing")),
    };
    Ok(Ticket {
        lane: LaneKind::Message(conversation),
        client_msg_id: Bytes::new(),
        answered: false,
    })
}

fn query() -> Ticket {
    Ticket {
        lane: LaneKind::Query,
        client_msg_id: Bytes::new(),
        answered: true,
    }
}

fn conversation(id: &str, user: &UserId) -> Result<ConversationId, Refusal> {
    let conversation = ConversationId::parse(id)?;
    conversation.check_party(user)?;
    Ok(conversation)
}
