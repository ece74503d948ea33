//! Rate limits and bounds on connections.

use sluice_protocol::packet::{
    CloseReason, Connect, Cursor, ErrorCode, Ping, PushAck, packet::Body,
};

use crate::{
    client::{connect, text},
    rig::{Rig, config, eventually},
};

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let mut config = config();
    config.limits.connections_per_address = 3;
    let rig = Rig::start_with(config).await;
    let mut first = rig.login("a").await;
    let _others = (rig.login("b").await, rig.login("c").await);
    let mut fourth = rig.connect().await;
    fourth.expect_go_away(CloseReason::RateLimited).await;
    first.send(0, Body::Disconnect(Default::default())).await;
    first.expect_end().await;
    drop(first);
    // The place is free as soon as the gateway has seen the end.
    for _ in 0..100 {
        let mut again = rig.connect().await;
        let sent = again
            .try_send(1, Body::Connect(connect("d", "phone")))
            .await;
        if sent.is_ok()
            && let Some(packet) = again.recv().await
            && matches!(packet.body, Some(Body::ConnectAck(_)))
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the place was not given back");
}

#[tokio::test]
async fn failed_logins_shut_the_door_for_a_while() {
    let mut config = config();
    config.limits.failed_logins_per_address_per_min = 3;
    let rig = Rig::start_with(config).await;
    let bad = || Connect {
        token: "x".into(),
        ..connect("alice", "phone")
    };
    for _ in 0..3 {
        let mut client = rig.connect().await;
        client.send(1, Body::Connect(bad())).await;
        client.expect_error(ErrorCode::BadToken).await;
    }
    let mut client = rig.connect().await;
    client
        .send(1, Body::Connect(connect("alice", "phone")))
        .await;
    client.expect_error(ErrorCode::RateLimited).await;
    client.expect_end().await;
}

#[tokio::test]
async fn too_many_packets_are_refused_and_then_closed() {
    let mut config = config();
    config.limits.packets_per_s = 10;
    config.limits.packets_burst = 20;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    for id in 10..40 {
        alice.send(id, Body::Ping(Ping {})).await;
    }
    let send = text("bob", "hi");
    alice.send(40, Body::Send(send.clone())).await;
    let (mut pongs, mut errors) = (0, 0);
    loop {
        let packet = alice.recv().await.unwrap();
        match packet.body.unwrap() {
            Body::Pong(_) => pongs += 1,
            Body::Error(error) => {
                assert_eq!(error.code(), ErrorCode::RateLimited);
                errors += 1;
            }
            Body::Busy(busy) => {
                assert_eq!(busy.client_msg_id, send.client_msg_id);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(pongs + errors, 30);
    assert!((19..25).contains(&pongs), "{pongs} pongs");
    for id in 50..100 {
        // It may be closed already.
        let _ = alice.try_send(id, Body::Ping(Ping {})).await;
    }
    loop {
        match alice.recv().await.unwrap().body.unwrap() {
            Body::GoAway(go_away) => {
                assert_eq!(go_away.reason(), CloseReason::RateLimited);
                break;
            }
            Body::Pong(_) | Body::Error(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn push_acks_are_counted_like_other_packets() {
    let mut config = config();
    config.limits.packets_per_s = 10;
    config.limits.packets_burst = 20;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    rig.services.push("alice", b"never acked").await;
    assert_eq!(alice.push().await.number, 1);
    for _ in 0..60 {
        // It may be closed already.
        let ack = PushAck::default();
        let _ = alice.try_send(0, Body::PushAck(ack)).await;
    }
    alice.expect_go_away(CloseReason::RateLimited).await;
}

/// A PushAck with this many cursors.
fn cursors(count: u32) -> Body {
    let cursors = (1..=count).map(|group| Cursor {
        conversation_id: format!("g:{group}"),
        seq: 1,
    });
    Body::PushAck(PushAck {
        cursors: cursors.collect(),
        ..PushAck::default()
    })
}

#[tokio::test]
async fn a_push_ack_costs_what_it_carries_and_may_go_into_debt() {
    let mut config = config();
    config.limits.packets_per_s = 10;
    config.limits.packets_burst = 20;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    // Admitted, although little is left; what it costs beyond that is owed.
    alice.send(0, cursors(24)).await;
    alice.send(9, Body::Ping(Ping {})).await;
    match alice.answer(9).await {
        Body::Error(error) => assert_eq!(error.code(), ErrorCode::RateLimited),
        other => panic!("unexpected {other:?}"),
    }
    eventually("the cursors are passed on", async || {
        rig.services.seen().await.delivered.len() == 24
    })
    .await;
    // Some 5 units at 10 a second are paid back soon.
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    alice.send(10, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(10).await, Body::Pong(_)));
}

#[tokio::test]
async fn one_who_reports_five_thousand_groups_at_once_is_not_closed() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    // A client that does not pace itself: what is refused is lost, no more.
    for _ in 0..5_000_u32.div_ceil(64) {
        alice.send(0, cursors(64)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    alice.send(9, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(9).await, Body::Pong(_)));
}

#[tokio::test]
async fn a_flood_is_closed_although_some_of_it_is_taken() {
    let mut config = config();
    config.limits.packets_per_s = 1_000;
    config.limits.packets_burst = 20;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    for _ in 0..2_000 {
        // It may be closed already.
        let _ = alice.try_send(0, cursors(4)).await;
    }
    alice.expect_go_away(CloseReason::RateLimited).await;
}

#[tokio::test]
async fn a_full_gateway_says_so() {
    let mut config = config();
    config.event_loops = 1;
    config.connections_per_loop_max = 2;
    let rig = Rig::start_with(config).await;
    let mut first = rig.login("a").await;
    let _second = rig.login("b").await;
    let mut third = rig.connect().await;
    third.expect_go_away(CloseReason::Overloaded).await;
    first.send(9, Body::Ping(Ping {})).await;
    assert!(matches!(first.answer(9).await, Body::Pong(_)));
}
