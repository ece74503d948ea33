//! Private messages: sent, acked, pushed, pulled; repeated, refused, ordered.

use std::collections::BTreeMap;

use sluice_protocol::packet::{self, ErrorCode, packet::Body};
use sluice_store::{Store as _, UserStatus};

use crate::world::{World, ack, fresh_id, id_bytes, is_push, pair, refusal, text, text_to, user};

#[tokio::test]
async fn a_message_is_acked_and_pushed_to_every_other_device_of_both() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let tablet = world.device_online("alice", "tablet").await;
    let bob = world.user_online("bob").await;

    let id = fresh_id();
    let acked = ack(world.send(&alice, text_to("bob", id, "hello")).await);
    assert_eq!(acked.client_msg_id, id_bytes(id));
    assert_eq!((acked.seq, acked.user_seq), (1, 1));
    assert_eq!(acked.conversation_id, "p:5:alice:bob");
    assert!(acked.message_id > 0);

    for device in [&tablet, &bob] {
        let entry = world.gateway.entry(device).await;
        assert_eq!(text(&entry), "hello");
        assert_eq!((entry.seq, entry.sender.as_str()), (1, "alice"));
        assert_eq!(entry.message_id, acked.message_id);
        assert_eq!(entry.server_time_ms, acked.server_time_ms);
    }
    let acked = ack(world.send(&bob, text_to("alice", fresh_id(), "hi")).await);
    assert_eq!((acked.seq, acked.user_seq), (2, 2));
    let (user_seq, push) = world.gateway.push(&alice).await;
    assert_eq!((user_seq, push.seq), (2, 2));
    let rest = world.gateway.rest(&bob).await;
    assert!(
        !rest.iter().any(is_push),
        "the sender gets no push: {rest:?}"
    );

    // Entries of this producer are numbered without a gap.
    let mut last = BTreeMap::new();
    for (producer, counter) in &world.gateway.counters {
        assert_eq!(*counter, last.get(producer).unwrap_or(&0) + 1);
        last.insert(*producer, *counter);
    }
    world.stop().await;
}

#[tokio::test]
async fn who_was_away_pulls_the_inbox_and_the_list() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    for n in 1..=5 {
        ack(world
            .send(&alice, text_to("bob", fresh_id(), &n.to_string()))
            .await);
    }
    let bob = world.device_online("bob", "phone").await;
    let sync = |after, limit| Body::SyncInbox(packet::SyncInbox { after, limit });
    let Body::InboxPage(page) = world.query(&bob, sync(1, 3)).await else {
        panic!()
    };
    let texts: Vec<_> = page
        .entries
        .iter()
        .map(|entry| (entry.user_seq, text(entry.entry.as_ref().unwrap())))
        .collect();
    assert_eq!(texts, [(2, "2"), (3, "3"), (4, "4")]);
    assert!(page.more);
    assert_eq!(page.inbox_seq, 5);

    let question = Body::SyncConversation(packet::SyncConversation {
        conversation_id: pair("alice", "bob").to_string(),
        range: Some(packet::sync_conversation::Range::Before(0)),
        limit: 2,
    });
    let Body::ConversationPage(page) = world.query(&bob, question.clone()).await else {
        panic!()
    };
    assert_eq!((page.entries.len(), page.last_seq), (2, 5));
    let carol = world.user_online("carol").await;
    let refused = world.query(&carol, question).await;
    assert_eq!(refusal(refused), ErrorCode::NotAMember);

    let list = Body::ListConversations(packet::ListConversations::default());
    let Body::ConversationList(list) = world.query(&bob, list).await else {
        panic!()
    };
    assert_eq!(list.conversations.len(), 1);
    let line = &list.conversations[0];
    assert_eq!((line.title.as_str(), line.unread), ("alice", 5));
    assert_eq!(text(line.last_entry.as_ref().unwrap()), "5");
    assert!(list.next.is_empty());
    let Body::HeadsPage(heads) = world
        .query(&bob, Body::SyncHeads(packet::SyncHeads::default()))
        .await
    else {
        panic!()
    };
    assert_eq!(heads.inbox_seq, 5);
    world.stop().await;
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_is_pushed_again() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let send = text_to("bob", fresh_id(), "once");
    let first = ack(world.send(&alice, send.clone()).await);
    let again = ack(world.send(&alice, send.clone()).await);
    assert_eq!(first, again);
    assert_eq!(
        world.gateway.push(&bob).await,
        world.gateway.push(&bob).await
    );

    let other = packet::Send {
        body: "twice".into(),
        ..send.clone()
    };
    assert_eq!(
        refusal(world.send(&alice, other).await),
        ErrorCode::ClientMsgIdReused
    );

    // Even when today it would not pass.
    world
        .store
        .set_status(&user("alice"), UserStatus::Muted)
        .await
        .unwrap();
    assert_eq!(ack(world.send(&alice, send).await), first);
    assert_eq!(
        refusal(world.send(&alice, text_to("bob", fresh_id(), "new")).await),
        ErrorCode::Muted
    );
    world.stop().await;
}

#[tokio::test]
async fn a_message_whose_predecessor_is_missing_is_refused_across_batches() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    let ids = [fresh_id(), fresh_id(), fresh_id()];
    let chained = |n: usize| packet::Send {
        predecessor: match n {
            0 => Default::default(),
            n => id_bytes(ids[n - 1]),
        },
        ..text_to("bob", ids[n], &n.to_string())
    };
    // The first was lost on the way: those behind it must not overtake it.
    let second = world.gateway.send(&alice, chained(1)).await;
    let third = world.gateway.send(&alice, chained(2)).await;
    for (request, n) in [(second, 1), (third, 2)] {
        let Body::Error(error) = world.gateway.answer(&alice, request).await else {
            panic!()
        };
        assert_eq!(error.code(), ErrorCode::OutOfOrder);
        assert_eq!(error.client_msg_id, id_bytes(ids[n]));
    }
    let mut requests = Vec::new();
    for n in 0..3 {
        requests.push(world.gateway.send(&alice, chained(n)).await);
    }
    for (n, request) in (1..).zip(requests) {
        assert_eq!(ack(world.gateway.answer(&alice, request).await).seq, n);
    }
    world.stop().await;
}

#[tokio::test]
async fn bad_sends_get_their_names() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob", "carol"]).await;
    world
        .store
        .set_block(&user("bob"), &user("alice"), true)
        .await
        .unwrap();
    let to = |peer: &str| text_to(peer, fresh_id(), "x");
    let cases = [
        (to("bob"), ErrorCode::Blocked),
        (to("nobody"), ErrorCode::UnknownUser),
        (
            packet::Send {
                target: Some(packet::send::Target::ConversationId("g:42".into())),
                ..to("bob")
            },
            ErrorCode::UnknownConversation,
        ),
        (
            packet::Send {
                target: Some(packet::send::Target::ConversationId(
                    pair("bob", "carol").to_string(),
                )),
                ..to("bob")
            },
            ErrorCode::NotAMember,
        ),
        (
            packet::Send {
                client_msg_id: "short".into(),
                ..to("carol")
            },
            ErrorCode::BadRequest,
        ),
        (
            packet::Send {
                body: vec![0; 60 * 1024 + 1].into(),
                ..to("carol")
            },
            ErrorCode::TooLarge,
        ),
    ];
    for (send, code) in cases {
        assert_eq!(refusal(world.send(&alice, send).await), code);
    }
    ack(world.send(&alice, to("carol")).await);
    world.stop().await;
}

#[tokio::test]
async fn ephemeral_messages_and_typing_reach_who_is_online_only() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let send = packet::Send {
        delivery_class: packet::DeliveryClass::Ephemeral.into(),
        client_msg_id: Default::default(),
        ..text_to("bob", fresh_id(), "psst")
    };
    world.gateway.send(&alice, send).await;
    let Body::EphemeralMessage(message) = world.gateway.event(&bob).await else {
        panic!()
    };
    assert_eq!(
        (message.sender.as_str(), &message.body[..]),
        ("alice", &b"psst"[..])
    );
    let typing = Body::Typing(packet::Typing {
        target: Some(packet::typing::Target::ToUser("bob".into())),
    });
    let partition = pair("alice", "bob").partition(crate::world::PARTITIONS);
    let stream = |_| sluice_bus::Stream::Message(partition);
    world.gateway.packet(stream, &alice, typing).await;
    let to_nobody = packet::Send {
        delivery_class: packet::DeliveryClass::Ephemeral.into(),
        ..text_to("nobody", fresh_id(), "psst")
    };
    let Body::Error(error) = world.send(&alice, to_nobody).await else {
        panic!()
    };
    assert_eq!(error.code(), packet::ErrorCode::UnknownUser);
    let Body::TypingNotice(notice) = world.gateway.event(&bob).await else {
        panic!()
    };
    assert_eq!(notice.user_id, "alice");
    assert!(world.gateway.rest(&alice).await.is_empty());
    world.stop().await;
}
