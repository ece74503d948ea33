//! Recalls: by whom, of what, until when, and that the body is gone.

use sluice_protocol::{
    envelope::{self, group_command::Command},
    packet::{self, ErrorCode, MemberRole, entry::Content, packet::Body},
};

use crate::world::{World, ack, config, fresh_id, pair, refusal, text_in, text_to};

#[tokio::test]
async fn the_sender_takes_a_message_back() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let send = text_to("bob", fresh_id(), "oops");
    let sent = ack(world.send(&alice, send.clone()).await);
    world.gateway.push(&bob).await;
    let conversation = pair("alice", "bob");
    for (device, seq, code) in [
        (&bob, sent.seq, ErrorCode::Forbidden),
        (&alice, 9, ErrorCode::UnknownMessage),
    ] {
        assert_eq!(
            refusal(world.recall(device, &conversation, seq).await),
            code
        );
    }
    let recalled = ack(world.recall(&alice, &conversation, sent.seq).await);
    assert_eq!((recalled.seq, recalled.user_seq), (2, 2));
    let entry = world.gateway.entry(&bob).await;
    assert_eq!(
        entry.content,
        Some(Content::Recall(packet::RecallEntry { seq: sent.seq }))
    );
    assert_eq!(
        refusal(world.recall(&alice, &conversation, recalled.seq).await),
        ErrorCode::UnknownMessage,
        "a recall is no message"
    );
    // Once more, under another id: told of the first, and no second entry.
    let again = ack(world.recall(&alice, &conversation, sent.seq).await);
    assert_eq!(
        (again.seq, again.user_seq),
        (recalled.seq, recalled.user_seq)
    );
    let repeated = world.gateway.entry(&bob).await;
    assert_eq!((repeated.seq, repeated.content), (entry.seq, entry.content));
    // The body is gone from pulls, and from the push of a late retry.
    let sync = Body::SyncInbox(packet::SyncInbox { after: 0, limit: 1 });
    let Body::InboxPage(page) = world.query(&bob, sync).await else {
        panic!()
    };
    world.send(&alice, send).await;
    let pushed = world.gateway.entry(&bob).await;
    for entry in [page.entries[0].entry.clone().unwrap(), pushed] {
        let Some(Content::Message(message)) = entry.content else {
            panic!()
        };
        assert!(message.recalled && message.body.is_empty());
    }
    world.stop().await;
}

#[tokio::test]
async fn time_is_over_for_the_sender_but_not_for_admins() {
    let config = sluice_services::Config {
        recall_window_ms: 0,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let mut world = World::with(config, bus).await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let carol = world.user_online("carol").await;
    let group = world.group(&alice, &["bob", "carol"]).await;
    let sent = ack(world.send(&bob, text_in(&group, fresh_id(), "rude")).await);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(
        refusal(world.recall(&bob, &group, sent.seq).await),
        ErrorCode::TooLate
    );
    assert_eq!(
        refusal(world.recall(&carol, &group, sent.seq).await),
        ErrorCode::Forbidden
    );
    let promote = Command::SetRole(envelope::SetRole {
        user_id: "carol".into(),
        role: MemberRole::Admin.into(),
    });
    ack(world.command(&alice, &group, promote).await);
    ack(world.recall(&carol, &group, sent.seq).await);
    world.stop().await;
}
