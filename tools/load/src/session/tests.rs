//! What is written and read field by field, held against the generated types.

use sluice_codec::{decode_packet, encode_packet};
use sluice_protocol::{
    ClientMsgId,
    limits::FRAME_MAX_BYTES,
    packet::{
        self, ConnectAck, ConversationPage, Entry, ErrorCode, GroupNotice, HeadsPage, InboxEntry,
        InboxPage, Packet, Push, SendAck, entry, packet::Body, send::Target,
    },
};

use super::*;
use crate::due_ns_of;

const GROUP: &str = "g:7";

fn session(talk: Talk) -> Session {
    let login = |name: &str| {
        let words = (name.to_owned(), "phone".to_owned(), "token".to_owned());
        Login::try_from(words).unwrap()
    };
    let logins = vec![login("alice"), login("bob")];
    let mut session = Session::new(LoadTransport::Tcp, String::new(), talk, logins, 20);
    let ack = ConnectAck {
        send_window: 64,
        heartbeat_interval_ms: 30_000,
        inbox_seq: 4,
        ..ConnectAck::default()
    };
    let heard = hear(&mut session, 0, Body::ConnectAck(ack), 1);
    let window = 64;
    let heartbeat_interval_ms = 30_000;
    let expected = Heard::Ready {
        window,
        heartbeat_interval_ms,
    };
    assert_eq!(heard.0, [expected]);
    session
}

/// What a packet means to a client, and what it answers at once.
fn hear(session: &mut Session, client: usize, body: Body, id: u64) -> (Vec<Heard>, Vec<Body>) {
    let packet = Packet {
        id,
        body: Some(body),
    };
    let packet = encode_packet(&packet, FRAME_MAX_BYTES).unwrap();
    let mut input = Vec::new();
    LoadTransport::Tcp.frame(&mut input, |out| out.extend_from_slice(&packet));
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let half = session.take(client, &input[..5], &mut out, &mut heard);
    assert_eq!((half.unwrap(), heard.len()), (0, 0));
    let used = session.take(client, &input, &mut out, &mut heard).unwrap();
    assert_eq!(used, input.len());
    (
        heard,
        said(&out).into_iter().map(|(_, body)| body).collect(),
    )
}

fn said(mut out: &[u8]) -> Vec<(u64, Body)> {
    let mut packets = Vec::new();
    while let Some(frame) = LoadTransport::Tcp.first_frame(out).unwrap() {
        let packet = decode_packet(&out[frame.payload.clone()]).unwrap();
        packets.push((packet.id, packet.body.unwrap()));
        out = &out[frame.payload.end..];
    }
    assert!(out.is_empty());
    packets
}

fn message(number: u64, follows_due_ns: Option<u64>) -> Message {
    Message {
        number,
        attempt: 3,
        due_ns: 1_000_000 * number,
        follows_due_ns,
    }
}

fn sent(session: &mut Session, message: Message) -> (u64, Body) {
    let mut out = Vec::new();
    session.send(0, message, &mut out);
    said(&out).remove(0)
}

/// As the server passes on what `send` says.
fn entry(send: packet::Send, seq: u64) -> Entry {
    Entry {
        conversation_id: GROUP.to_owned(),
        seq,
        message_id: 9,
        sender: "alice".to_owned(),
        client_msg_id: send.client_msg_id,
        server_time_ms: 5,
        content: Some(entry::Content::Message(packet::Message {
            body: send.body,
            ..packet::Message::default()
        })),
    }
}

#[test]
fn a_message_goes_to_the_neighbour_and_its_ack_is_known() {
    let mut session = session(Talk::Pairs);
    let (id, first) = sent(&mut session, message(300, None));
    let (_, second) = sent(&mut session, message(301, Some(300_000_000)));
    assert_eq!(id, 301 << 8 | 3);
    let (Body::Send(first), Body::Send(second)) = (first, second) else {
        panic!("these are sends");
    };
    assert_eq!(first.target, Some(Target::ToUser("bob".to_owned())));
    assert_eq!(first.body.len(), 20);
    assert!(first.predecessor.is_empty());
    assert_eq!(second.predecessor, first.client_msg_id);
    assert!(ClientMsgId::parse(&first.client_msg_id).is_ok());
    let ack = SendAck {
        client_msg_id: first.client_msg_id.clone(),
        user_seq: 5,
        ..SendAck::default()
    };
    let (heard, _) = hear(&mut session, 0, Body::SendAck(ack), id);
    assert_eq!(heard, [Heard::Acked { number: 300 }]);

    let push = Push {
        number: 1,
        user_seq: 6,
        entry: Some(entry(second, 2)),
    };
    let (heard, said_at_once) = hear(&mut session, 0, Body::Push(push), 0);
    let (number, due_ns) = (301, 301_000_000);
    assert_eq!(heard, [Heard::Received { number, due_ns }]);
    assert_eq!(said_at_once, []);
    let mut out = Vec::new();
    session.settle(0, &mut out);
    let ack = packet::PushAck {
        cumulative: 1,
        ..packet::PushAck::default()
    };
    assert_eq!(said(&out), [(0, Body::PushAck(ack))]);
    // It knows how far its inbox goes without a hole.
    let (heard, pulls) = hear(
        &mut session,
        0,
        Body::Overflow(packet::Overflow::default()),
        0,
    );
    assert_eq!(heard, [Heard::Overflowed]);
    let pull = packet::SyncInbox { after: 6, limit: 0 };
    assert_eq!(pulls, [Body::SyncInbox(pull)]);
    let page = InboxPage {
        entries: vec![InboxEntry {
            user_seq: 7,
            entry: Some(entry(first, 3)),
        }],
        inbox_seq: 7,
        ..InboxPage::default()
    };
    let (heard, _) = hear(&mut session, 0, Body::InboxPage(page), 1);
    let (number, due_ns) = (300, 300_000_000);
    assert_eq!(heard, [Heard::Received { number, due_ns }, Heard::Synced]);
}

#[test]
fn pushes_behind_a_gap_are_acked_in_ranges() {
    let mut session = session(Talk::Pairs);
    let numbers = (1..=40).filter(|number| ![3, 10].contains(number));
    let mut told = Vec::new();
    for number in numbers {
        let push = Push {
            number,
            ..Push::default()
        };
        told.extend(hear(&mut session, 0, Body::Push(push), 0).1);
    }
    let ack = packet::PushAck {
        cumulative: 2,
        ranges: vec![4, 9, 11, 34],
        ..packet::PushAck::default()
    };
    assert_eq!(told, [Body::PushAck(ack)]);
}

#[test]
fn a_group_is_heard_and_pulled() {
    let mut session = session(Talk::Group(GROUP.to_owned()));
    let (_, body) = sent(&mut session, message(2, None));
    let Body::Send(send) = body else {
        panic!("this is a send");
    };
    let target = Target::ConversationId(GROUP.to_owned());
    assert_eq!(send.target, Some(target));
    let notice = GroupNotice {
        number: 1,
        conversation_id: GROUP.to_owned(),
        seq: 2,
        entry: Some(entry(send.clone(), 2)),
    };
    let (heard, _) = hear(&mut session, 0, Body::GroupNotice(notice), 0);
    let (number, due_ns) = (2, 2_000_000);
    assert_eq!(heard, [Heard::Received { number, due_ns }]);
    let (_, pulls) = hear(&mut session, 0, Body::Resync(packet::Resync::default()), 0);
    let pull = packet::SyncConversation {
        conversation_id: GROUP.to_owned(),
        limit: 0,
        range: Some(packet::sync_conversation::Range::After(2)),
    };
    assert_eq!(pulls, [Body::SyncConversation(pull)]);
    let page = ConversationPage {
        conversation_id: GROUP.to_owned(),
        entries: vec![entry(send, 3)],
        more: true,
        ..ConversationPage::default()
    };
    let (heard, pulls) = hear(&mut session, 0, Body::ConversationPage(page), 1);
    assert_eq!(heard, [Heard::Received { number, due_ns }]);
    assert_eq!(pulls.len(), 1, "more follows");
}

#[test]
fn the_bare_server_is_given_what_the_gateway_would_push() {
    let mut session = session(Talk::Group(GROUP.to_owned()));
    session.is_bare = true;
    let (_, body) = sent(&mut session, message(2, None));
    let Body::GroupNotice(notice) = &body else {
        panic!("this is a notice");
    };
    let entry = notice.entry.as_ref().unwrap();
    assert_eq!(
        (notice.seq, entry.seq, entry.sender.as_str()),
        (3, 3, "alice")
    );
    let (heard, _) = hear(&mut session, 0, body.clone(), 0);
    assert_eq!(heard, [Heard::Acked { number: 2 }], "the speaker's own");
    let (heard, _) = hear(&mut session, 1, body, 0);
    let (number, due_ns) = (2, 2_000_000);
    assert_eq!(heard, [Heard::Received { number, due_ns }]);
}

#[test]
fn pings_requests_and_refusals_are_told_by_their_ids() {
    let mut pinging = session(Talk::Ping);
    let (id, body) = sent(&mut pinging, message(0, None));
    assert_eq!((id, body), (1 << 8 | 3, Body::Ping(packet::Ping {})));
    let pong = packet::Pong { server_time_ms: 77 };
    let (heard, _) = hear(&mut pinging, 0, Body::Pong(pong), id);
    assert_eq!(heard, [Heard::Acked { number: 0 }]);

    let mut asking = session(Talk::Request("stock".to_owned()));
    let (id, body) = sent(&mut asking, message(5, None));
    let Body::Request(request) = body else {
        panic!("this is a request");
    };
    assert_eq!((request.service.as_str(), request.key.len()), ("stock", 4));
    assert_eq!(due_ns_of(&request.payload), Some(5_000_000));
    let response = |status| {
        Body::Response(packet::Response {
            status,
            ..packet::Response::default()
        })
    };
    assert_eq!(
        hear(&mut asking, 0, response(0), id).0,
        [Heard::Acked { number: 5 }]
    );
    let (number, code) = (5, 9);
    assert_eq!(
        hear(&mut asking, 0, response(9), id).0,
        [Heard::Failed { number, code }]
    );
    let busy = packet::Busy {
        retry_after_ms: 40,
        ..packet::Busy::default()
    };
    let put_off = |after_ms| Heard::Refused {
        number: 5,
        attempt: 3,
        after_ms,
    };
    assert_eq!(hear(&mut asking, 0, Body::Busy(busy), id).0, [put_off(40)]);
    let error = |code: ErrorCode| {
        Body::Error(packet::Error {
            code: code.into(),
            ..packet::Error::default()
        })
    };
    let (heard, _) = hear(&mut asking, 0, error(ErrorCode::OutOfOrder), id);
    assert_eq!(heard, [put_off(SETBACK_MS)]);
    let (heard, _) = hear(&mut asking, 0, error(ErrorCode::Timeout), id);
    let code = ErrorCode::Timeout as u32;
    assert_eq!(heard, [Heard::Failed { number, code }]);
}

#[test]
fn who_comes_back_syncs_inbox_and_heads() {
    let mut session = session(Talk::Idle);
    let ack = Body::ConnectAck(ConnectAck::default());
    let (_, pulls) = hear(&mut session, 0, ack, 1);
    let expected = [
        Body::SyncInbox(packet::SyncInbox { after: 4, limit: 0 }),
        Body::SyncHeads(packet::SyncHeads::default()),
    ];
    assert_eq!(pulls, expected);
    let heads = Body::HeadsPage(HeadsPage::default());
    assert_eq!(hear(&mut session, 0, heads, 1).0, []);
    let inbox = Body::InboxPage(InboxPage::default());
    assert_eq!(hear(&mut session, 0, inbox, 1).0, [Heard::Synced]);
}
