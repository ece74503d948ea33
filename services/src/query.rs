//! Pulls: inbox, one conversation, heads and the conversation list. Answered
//! from the store, side by side, within the page bounds of the protocol. Of one
//! user only so many of a batch are worked on, and the others put off at once:
//! who stands behind them in the same stream waits, batch for batch, for few of
//! theirs. How many of a connection can stand there the gateway bounds. Of lists,
//! the dearest, only a few of a user are read at once in the whole process.

use async_trait::async_trait;
use futures_util::future::join_all;
use hashbrown::HashMap;
use sluice_bus::BusEntry;
use sluice_protocol::{
    ConversationId, Refusal, Seq, UserId, UserSeq, envelope,
    limits::{PAGE_MAX_BYTES, PAGE_MAX_ENTRIES},
    packet::{self, ErrorCode, packet::Body},
};
use sluice_store::{PageLimit, Range, Store, StoreError};

use crate::{
    clock,
    consumer::{Work, count_poison},
    error::WorkError,
    node::Node,
    origin::{Origin, Unreadable, Uplink, decode_packet},
    outbox::Outbox,
    seats::{NoSeat, Seat},
    wire,
};

/// A client asks again after this span when the store is short of breath.
const RETRY_AFTER_MS: u32 = 500;
/// Conversations in one page of the list: each may bring its last message.
const LIST_MAX_ROWS: u32 = 50;

/// The consumer of `up:query`.
pub(crate) struct Queries;

/// Why there is no page.
enum NoPage {
    Refused(Refusal),
    /// The user has asked for more than one may at once.
    TooMany,
    Store(StoreError),
}

// === impl Queries ===

#[async_trait]
impl Work for Queries {
    const ROLE: &'static str = "query";

    async fn work(&self, node: &Node, entries: Vec<BusEntry>) -> Result<(), WorkError> {
        let mut asked = Vec::with_capacity(entries.len());
        for entry in entries {
            match parse(entry) {
                Ok(question) => asked.push(question),
                Err(error) => count_poison(Self::ROLE, &error),
            }
        }
        let mut turns: HashMap<&UserId, usize> = HashMap::new();
        let answers = asked.iter().map(|(origin, body)| {
            let turn = turns.entry(&origin.user).or_insert(0);
            *turn += 1;
            // Before any is answered: whoever comes first in the batch has the seats.
            let turn = match *turn <= node.config.pulls_per_user_max {
                true => seat(node, &origin.user, body),
                false => Err(NoPage::TooMany),
            };
            async move {
                let _seat = turn?;
                answer(node, &origin.user, body).await
            }
        });
        let answers = join_all(answers).await;
        let mut outbox = Outbox::default();
        for ((origin, _), answer) in asked.iter().zip(answers) {
            match answer {
                Ok(page) => outbox.answer(origin, page),
                Err(NoPage::Refused(refusal)) => {
                    outbox.refuse(origin, &refusal, Default::default(), clock::now_ms());
                }
                Err(put_off) => {
                    put_off.note();
                    let busy = packet::Busy {
                        retry_after_ms: RETRY_AFTER_MS,
                        client_msg_id: Default::default(),
                    };
                    outbox.answer(origin, Body::Busy(busy));
                }
            }
        }
        node.downlink.emit(outbox).await;
        Ok(())
    }
}

fn parse(entry: BusEntry) -> Result<(Origin, Body), Unreadable> {
    let uplink = Uplink::decode(entry.payload)?;
    let origin = uplink
        .origin
        .ok_or_else(|| Unreadable("no origin".into()))?;
    match uplink.body {
        envelope::up::Body::Packet(bytes) => Ok((origin, decode_packet(bytes)?)),
        _ => Err(Unreadable("an entry of another service".into())),
    }
}

/// Lists have few of them; other pulls need none.
fn seat(node: &Node, user: &UserId, question: &Body) -> Result<Option<Seat>, NoPage> {
    match question {
        Body::ListConversations(_) => Ok(Some(node.lists.take(user)?)),
        _ => Ok(None),
    }
}

async fn answer(node: &Node, user: &UserId, question: &Body) -> Result<Body, NoPage> {
    let store = &*node.store;
    metrics::counter!("sluice_pulls_total", "kind" => kind(question)).increment(1);
    match question {
        Body::SyncInbox(sync) => {
            let page = store
                .inbox(user, UserSeq(sync.after), page_limit(sync.limit))
                .await?;
            Ok(Body::InboxPage(wire::inbox_page(&page)))
        }
        Body::SyncConversation(sync) => sync_conversation(node, user, sync).await,
        Body::SyncHeads(sync) => {
            let after = match sync.after.as_str() {
                "" => None,
                id => Some(ConversationId::parse(id).map_err(Refusal::from)?),
            };
            let limit = page_limit(sync.limit).entries;
            let heads = store.heads(user, after.as_ref(), limit).await?;
            Ok(Body::HeadsPage(wire::heads_page(&heads)))
        }
        Body::ListConversations(list) => list_conversations(store, user, list).await,
        _ => Err(Refusal::new(
            ErrorCode::UnexpectedPacket,
            "this packet asks for nothing that is kept",
        )
        .into()),
    }
}

/// A metric label.
fn kind(question: &Body) -> &'static str {
    match question {
        Body::SyncInbox(_) => "inbox",
        Body::SyncConversation(_) => "conversation",
        Body::SyncHeads(_) => "heads",
        Body::ListConversations(_) => "list",
        _ => "unknown",
    }
}

async fn sync_conversation(
    node: &Node,
    user: &UserId,
    sync: &packet::SyncConversation,
) -> Result<Body, NoPage> {
    let conversation = ConversationId::parse(&sync.conversation_id).map_err(Refusal::from)?;
    conversation.check_party(user)?;
    let range = match sync.range {
        Some(packet::sync_conversation::Range::After(seq)) => Range::After(Seq(seq)),
        Some(packet::sync_conversation::Range::Before(seq)) => Range::Before(Seq(seq)),
        None => return Err(Refusal::bad_request("range is missing").into()),
    };
    let limit = page_limit(sync.limit);
    let page = node
        .recent
        .log(&*node.store, user, &conversation, range, limit)
        .await?
        .ok_or_else(|| Refusal::new(ErrorCode::NotAMember, "you are not in this conversation"))?;
    Ok(Body::ConversationPage(wire::conversation_page(
        &conversation,
        &page,
    )))
}

async fn list_conversations(
    store: &dyn Store,
    user: &UserId,
    list: &packet::ListConversations,
) -> Result<Body, NoPage> {
    let cursor = match list.cursor.as_ref() {
        [] => None,
        bytes => Some(
            wire::parse_list_cursor(bytes)
                .ok_or_else(|| Refusal::bad_request("cursor is malformed"))?,
        ),
    };
    let limit = match list.limit {
        0 => LIST_MAX_ROWS,
        limit => limit.min(LIST_MAX_ROWS),
    };
    let rows = store.conversations(user, cursor, limit).await?;
    Ok(Body::ConversationList(wire::conversation_list(
        user, &rows, limit,
    )))
}

/// What a client asked for, within the protocol's bounds; 0 asks for the most.
pub(crate) fn page_limit(limit: u32) -> PageLimit {
    PageLimit {
        entries: match limit {
            0 => PAGE_MAX_ENTRIES,
            limit => limit.min(PAGE_MAX_ENTRIES),
        },
        bytes: PAGE_MAX_BYTES,
    }
}

// === impl NoPage ===

impl NoPage {
    /// Leaves word of a pull that is put off.
    fn note(&self) {
        metrics::counter!("sluice_pulls_put_off_total", "why" => match self {
            NoPage::Refused(_) => "refused",
            NoPage::TooMany => "too_many",
            NoPage::Store(_) => "store",
        })
        .increment(1);
        if let NoPage::Store(error) = self {
            tracing::warn!(%error, "a pull is put off");
        }
    }
}

impl From<Refusal> for NoPage {
    fn from(refusal: Refusal) -> Self {
        NoPage::Refused(refusal)
    }
}

impl From<NoSeat> for NoPage {
    fn from(_: NoSeat) -> Self {
        NoPage::TooMany
    }
}

impl From<StoreError> for NoPage {
    fn from(error: StoreError) -> Self {
        NoPage::Store(error)
    }
}
