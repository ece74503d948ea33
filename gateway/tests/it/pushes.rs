//! Messages there and back: sends, acks, pushes and their retransmission.

use std::time::Duration;

use prost::Message as _;
use sluice_protocol::{
    ConnectionId,
    envelope::{PushEntry, delivery},
    packet::{
        Cursor, ErrorCode, PushAck, Read, SyncHeads, Typing, TypingNotice, entry, packet::Body,
        typing::Target,
    },
};

use crate::{
    client::{packet, text},
    rig::{Rig, config, eventually},
    services::conversation_of,
};

#[tokio::test]
async fn a_message_goes_over_and_its_ack_comes_back() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    let sent = text("bob", "hello");
    alice.send(10, Body::Send(sent.clone())).await;
    let Body::SendAck(ack) = alice.answer(10).await else {
        panic!("no ack");
    };
    assert_eq!(ack.client_msg_id, sent.client_msg_id);
    let push = bob.push().await;
    assert_eq!((push.number, push.user_seq), (1, ack.seq));
    let entry = push.entry.unwrap();
    assert_eq!((entry.sender.as_str(), entry.seq), ("alice", ack.seq));

    bob.ack_pushes(1).await;
    eventually("a delivered cursor", async || {
        let seen = rig.services.seen().await;
        seen.delivered.iter().any(|cursor| {
            cursor.user_id == "bob"
                && cursor.seq == ack.seq
                && cursor.conversation_id == conversation_of("alice", "bob")
        })
    })
    .await;
    let origin = rig.services.seen().await.origins.remove(0);
    assert_eq!(origin.user_id, "alice");
    assert_eq!(
        (origin.device_id.as_str(), origin.request_id),
        ("phone", 10)
    );
}

#[tokio::test]
async fn many_messages_keep_their_order() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    let mut next = 0;
    for _ in 0..10 {
        let numbers: Vec<u64> = (next..next + 50).collect();
        next += 50;
        for n in &numbers {
            let send = Body::Send(text("bob", &n.to_string()));
            alice.send(100 + n, send).await;
        }
        for n in &numbers {
            assert!(matches!(alice.answer(100 + n).await, Body::SendAck(_)));
        }
        for n in &numbers {
            let push = bob.push().await;
            assert_eq!(push.number, n + 1);
            let Some(entry::Content::Message(message)) = push.entry.unwrap().content else {
                panic!("not a message");
            };
            assert_eq!(message.body, n.to_string());
        }
        bob.ack_pushes(next).await;
    }
}

#[tokio::test]
async fn other_packets_find_their_services() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    alice.send(2, Body::SyncHeads(SyncHeads::default())).await;
    assert!(matches!(alice.answer(2).await, Body::HeadsPage(_)));
    let read = Read {
        conversation_id: conversation_of("alice", "bob"),
        seq: 3,
    };
    alice.send(0, Body::Read(read)).await;
    let typing = Typing {
        target: Some(Target::ToUser("bob".into())),
    };
    alice.send(0, Body::Typing(typing)).await;
    let cursors = PushAck {
        cursors: vec![Cursor {
            conversation_id: conversation_of("alice", "carol"),
            seq: 9,
        }],
        ..PushAck::default()
    };
    alice.send(0, Body::PushAck(cursors)).await;
    eventually("read, typing and cursor", async || {
        let seen = rig.services.seen().await;
        seen.reads == 1 && seen.origins.len() == 3 && seen.delivered.len() == 1
    })
    .await;
}

#[tokio::test]
async fn an_unacked_push_comes_again_and_is_given_up_in_the_end() {
    let mut config = config();
    config.push.rto_initial_ms = 60;
    config.push.rto_min_ms = 60;
    config.push.tries_max = 3;
    let rig = Rig::start_with(config).await;
    let mut bob = rig.login("bob").await;
    let seq = rig.services.push("bob", b"again and again").await;
    let mut copies = Vec::new();
    loop {
        match bob.recv().await.unwrap().body.unwrap() {
            Body::Push(push) => copies.push(push),
            Body::Resync(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(copies.len(), 3);
    assert!(copies.iter().all(|copy| *copy == copies[0]));
    eventually("push_failed", async || {
        let failed = rig.services.seen().await.push_failed;
        failed.iter().any(|f| f.user_id == "bob" && f.seq == seq)
    })
    .await;
    // It goes on with the next number, and acks of the old one do no harm.
    rig.services.push("bob", b"next").await;
    assert_eq!(bob.push().await.number, 2);
    bob.ack_pushes(2).await;
    bob.expect_silence(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn ranges_of_acks_must_ascend() {
    let rig = Rig::start().await;
    let mut bob = rig.login("bob").await;
    for cumulative_and_ranges in [
        [0, 5, 4, 9, 9],
        [0, 3, 6, 6, 8],
        [0, 3, 6, 3, 6],
        [3, 3, 6, 8, 9],
    ] {
        let (cumulative, ranges) = (cumulative_and_ranges[0], &cumulative_and_ranges[1..]);
        let ack = PushAck {
            cumulative,
            ranges: ranges.to_vec(),
            ..PushAck::default()
        };
        bob.send(7, Body::PushAck(ack)).await;
        bob.expect_error(ErrorCode::BadRequest).await;
    }
    rig.services.push("bob", b"all the same").await;
    assert_eq!(bob.push().await.number, 1);
}

#[tokio::test]
async fn deliveries_for_another_life_of_a_slot_are_dropped() {
    let rig = Rig::start().await;
    let mut bob = rig.login("bob").await;
    let connection = rig.services.routes("bob").await[0].connection;
    let notice = |text: &str| {
        let notice = TypingNotice {
            conversation_id: text.into(),
            user_id: "zed".into(),
        };
        let packet = packet(77, Body::TypingNotice(notice));
        delivery::Body::Answer(packet.encode_to_vec().into())
    };
    let push = delivery::Body::Push(PushEntry {
        conversation_id: conversation_of("bob", "zed"),
        seq: 1,
        entry: Default::default(),
    });
    let another_life = ConnectionId {
        generation: connection.generation + 1,
        ..connection
    };
    let no_slot = ConnectionId {
        slot: 4_000_000,
        ..connection
    };
    let no_loop = ConnectionId {
        event_loop: 99,
        ..connection
    };
    for other in [another_life, no_slot, no_loop] {
        rig.services.deliver(other, "bob", notice("stale")).await;
        rig.services.deliver(other, "bob", push.clone()).await;
    }
    let services = &rig.services;
    services
        .deliver(connection, "eve", notice("not hers"))
        .await;
    services.deliver(connection, "bob", notice("right")).await;
    let Some(Body::TypingNotice(notice)) = bob.recv().await.unwrap().body else {
        panic!("no notice");
    };
    assert_eq!(notice.conversation_id, "right");
}

#[tokio::test]
async fn a_gap_in_the_down_stream_makes_clients_check() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    rig.services.lose_a_down_entry().await;
    rig.services.push("bob", b"after the gap").await;
    bob.push().await;
    for client in [&mut alice, &mut bob] {
        let body = client.recv().await.unwrap().body.unwrap();
        assert!(matches!(body, Body::Resync(_)), "{body:?}");
    }
}

#[tokio::test]
async fn a_large_entry_goes_to_many_devices() {
    let rig = Rig::start().await;
    let mut devices = Vec::new();
    for n in 0..8 {
        let mut client = rig.connect().await;
        client.login("bob", &format!("device-{n}")).await;
        devices.push(client);
    }
    let body = vec![7; 60_000];
    for round in 1..=5 {
        rig.services.push("bob", &body).await;
        for device in &mut devices {
            let push = device.push().await;
            assert_eq!(push.number, round);
            assert!(push.entry.unwrap().encoded_len() > 60_000);
            device.ack_pushes(round).await;
        }
    }
}
