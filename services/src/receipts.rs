//! Receipts: delivered cursors from gateways, read marks from clients, pushes
//! that were given up. Cursors of a batch are merged and raised in one call;
//! whoever's rose is told to those who care.

use async_trait::async_trait;
use hashbrown::HashMap;
use prost::Message as _;
use sluice_bus::BusEntry;
use sluice_protocol::{
    ConnectionId, ConversationId, ConversationKind, Refusal, Seq, UserId,
    envelope::{self, delivery::Body as DeliveryBody},
    packet::{self, Packet, packet::Body},
};
use sluice_store::{Cursor, CursorAdvance, CursorKind};

use crate::{
    clock,
    consumer::{Work, count_poison},
    error::WorkError,
    node::Node,
    origin::{Unreadable, Uplink, decode_packet},
    outbox::Outbox,
};

/// The consumer of `up:ack`.
pub(crate) struct Receipts;

/// The highest wish for each cursor, and which connection it came from.
type Wishes = HashMap<Cursor, (Seq, Option<ConnectionId>)>;

// === impl Receipts ===

#[async_trait]
impl Work for Receipts {
    const ROLE: &'static str = "ack";

    async fn work(&self, node: &Node, entries: Vec<BusEntry>) -> Result<(), WorkError> {
        let mut wishes = Wishes::new();
        let mut outbox = Outbox::default();
        for entry in entries {
            if let Err(error) = collect(entry, &mut wishes, &mut outbox) {
                count_poison(Self::ROLE, &error);
            }
        }
        let rose = raise(node, wishes).await?;
        notify(node, rose, &mut outbox).await?;
        node.downlink.emit(outbox).await;
        Ok(())
    }
}

fn collect(entry: BusEntry, wishes: &mut Wishes, outbox: &mut Outbox) -> Result<(), Unreadable> {
    let uplink = Uplink::decode(entry.payload)?;
    match uplink.body {
        envelope::up::Body::Acks(acks) => {
            metrics::counter!("sluice_push_failed_total").increment(acks.push_failed.len() as u64);
            for delivered in acks.delivered {
                // One bad cursor must not cost the others of its batch.
                match parse_delivered(&delivered) {
                    Ok(cursor) => wish(wishes, cursor, Seq(delivered.seq), None),
                    Err(refusal) => {
                        count_poison(Receipts::ROLE, &Unreadable(refusal.to_string()));
                    }
                }
            }
            Ok(())
        }
        envelope::up::Body::Packet(bytes) => {
            let origin = uplink
                .origin
                .ok_or_else(|| Unreadable("no origin".into()))?;
            let Body::Read(read) = decode_packet(bytes)? else {
                return Err(Unreadable("a packet of another service".into()));
            };
            match parse_cursor(&origin.user, &read.conversation_id, CursorKind::Read) {
                Ok(cursor) => wish(wishes, cursor, Seq(read.seq), origin.connection),
                Err(refusal) => {
                    outbox.refuse(&origin, &refusal, Default::default(), clock::now_ms());
                }
            }
            Ok(())
        }
        _ => Err(Unreadable("an entry of another service".into())),
    }
}

fn parse_delivered(delivered: &envelope::DeliveredCursor) -> Result<Cursor, Refusal> {
    let user = UserId::parse(&delivered.user_id)?;
    parse_cursor(&user, &delivered.conversation_id, CursorKind::Delivered)
}

fn parse_cursor(user: &UserId, conversation: &str, kind: CursorKind) -> Result<Cursor, Refusal> {
    let conversation = ConversationId::parse(conversation)?;
    conversation.check_party(user)?;
    Ok(Cursor {
        user: user.clone(),
        conversation,
        kind,
    })
}

fn wish(wishes: &mut Wishes, cursor: Cursor, seq: Seq, connection: Option<ConnectionId>) {
    let highest = wishes.entry(cursor).or_insert((seq, connection));
    if seq > highest.0 {
        *highest = (seq, connection);
    }
}

/// Raises the cursors; returns those that rose, with their new values.
async fn raise(
    node: &Node,
    wishes: Wishes,
) -> Result<Vec<(Cursor, Seq, Option<ConnectionId>)>, WorkError> {
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let wishes: Vec<_> = wishes.into_iter().collect();
    let advances = wishes
        .iter()
        .map(|(cursor, (seq, _))| CursorAdvance {
            cursor: cursor.clone(),
            seq: *seq,
        })
        .collect();
    let risen = node.store.advance_cursors(advances).await?;
    Ok(wishes
        .into_iter()
        .zip(risen)
        .filter_map(|((cursor, (_, connection)), seq)| Some((cursor, seq?, connection)))
        .collect())
}

/// Tells the peer of a private conversation; a reader's other devices too.
async fn notify(
    node: &Node,
    rose: Vec<(Cursor, Seq, Option<ConnectionId>)>,
    outbox: &mut Outbox,
) -> Result<(), WorkError> {
    let mut notices = Vec::new();
    for (cursor, seq, connection) in rose {
        let peer = match cursor.conversation.kind() {
            ConversationKind::Private(first, second) => {
                Some(if first == cursor.user { second } else { first })
            }
            ConversationKind::Group(_) => None,
        };
        let reader = (cursor.kind == CursorKind::Read).then(|| cursor.user.clone());
        for receiver in [peer, reader].into_iter().flatten() {
            notices.push((receiver, notice(&cursor, seq), connection));
        }
    }
    if notices.is_empty() {
        return Ok(());
    }
    let users: Vec<_> = notices.iter().map(|(user, ..)| user.clone()).collect();
    let routes = node.directory.lookup(&users).await?;
    for ((user, body, except), routes) in notices.iter().zip(&routes) {
        let targets = routes
            .iter()
            .filter(|route| Some(route.connection) != *except)
            .map(|route| (user, route, 0));
        outbox.spread(targets, body);
    }
    Ok(())
}

fn notice(cursor: &Cursor, seq: Seq) -> DeliveryBody {
    let conversation_id = cursor.conversation.as_str().to_owned();
    let user_id = cursor.user.as_str().to_owned();
    let body = match cursor.kind {
        CursorKind::Delivered => Body::DeliveredNotice(packet::DeliveredNotice {
            conversation_id,
            user_id,
            seq: seq.0,
        }),
        CursorKind::Read => Body::ReadNotice(packet::ReadNotice {
            conversation_id,
            user_id,
            seq: seq.0,
        }),
    };
    let packet = Packet {
        id: 0,
        body: Some(body),
    };
    DeliveryBody::Event(packet.encode_to_vec().into())
}
