//! Delivered and read marks.

use bytes::Bytes;
use prost::Message as _;
use sluice_bus::Stream;
use sluice_protocol::{
    Partition,
    envelope::{Acks, DeliveredCursor, Up, up},
    packet::{self, packet::Body},
};

use crate::world::{Device, World, ack, fresh_id, is_push, pair, text_in, text_to};

async fn delivered(world: &World, cursors: &[(&str, &str, u64)]) {
    let delivered = cursors
        .iter()
        .map(|(user, conversation, seq)| DeliveredCursor {
            user_id: (*user).into(),
            conversation_id: (*conversation).into(),
            seq: *seq,
        });
    let up = Up {
        body: Some(up::Body::Acks(Acks {
            delivered: delivered.collect(),
            push_failed: Vec::new(),
        })),
        ..Up::default()
    };
    let bytes: Bytes = up.encode_to_vec().into();
    world
        .gateway
        .append_bytes(&Stream::Ack(Partition(1)), bytes)
        .await;
}

async fn read(world: &World, device: &Device, conversation: &str, seq: u64) {
    let read = Body::Read(packet::Read {
        conversation_id: conversation.into(),
        seq,
    });
    world.gateway.packet(Stream::Ack, device, read).await;
}

#[tokio::test]
async fn marks_rise_and_are_told_to_those_who_care() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let tablet = world.device_online("bob", "tablet").await;
    for n in 1..=3 {
        ack(world
            .send(&alice, text_to("bob", fresh_id(), &n.to_string()))
            .await);
    }
    let id = pair("alice", "bob").to_string();
    // Coalesced, beside nonsense, and beyond the log's end.
    delivered(
        &world,
        &[
            ("bob", &id, 1),
            ("bob", "nonsense", 1),
            ("carol", &id, 1),
            ("bob", &id, 99),
        ],
    )
    .await;
    let Body::DeliveredNotice(notice) = world.gateway.event(&alice).await else {
        panic!()
    };
    assert_eq!((notice.user_id.as_str(), notice.seq), ("bob", 3));

    read(&world, &bob, &id, 2).await;
    for device in [&alice, &tablet] {
        let Body::ReadNotice(notice) = world.gateway.event(device).await else {
            panic!()
        };
        assert_eq!((notice.user_id.as_str(), notice.seq), ("bob", 2));
    }
    // What doesn't rise isn't told; nor is the reading device.
    read(&world, &bob, &id, 1).await;
    delivered(&world, &[("bob", &id, 2)]).await;
    for device in [&alice, &bob, &tablet] {
        let rest = world.gateway.rest(device).await;
        assert!(
            rest.iter().all(|got| is_push(got)
                || !matches!(
                    got.body,
                    sluice_protocol::envelope::delivery::Body::Event(_)
                )),
            "{rest:?}"
        );
    }
    let list = Body::ListConversations(packet::ListConversations::default());
    let Body::ConversationList(list) = world.query(&alice, list).await else {
        panic!()
    };
    let line = &list.conversations[0];
    assert_eq!((line.peer_delivered_seq, line.peer_read_seq), (3, 2));
    world.stop().await;
}

#[tokio::test]
async fn in_a_group_only_ones_own_devices_hear_of_a_read_mark() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let tablet = world.device_online("bob", "tablet").await;
    let group = world.group(&alice, &["bob"]).await;
    ack(world.send(&alice, text_in(&group, fresh_id(), "hi")).await);
    read(&world, &bob, group.as_str(), 2).await;
    let Body::ReadNotice(notice) = world.gateway.event(&tablet).await else {
        panic!()
    };
    assert_eq!(notice.seq, 2);
    world.gateway.rest(&alice).await;
    world.stop().await;
}
