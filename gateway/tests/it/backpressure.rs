//! Too much of everything: lanes that are full, clients that do not read or do
//! not ack. Memory stays bounded, and the client learns what to do.

use std::{net::SocketAddr, time::Duration};

use sluice_bus::MemoryBusConfig;
use sluice_protocol::packet::{Ping, SyncHeads, packet::Body};

use crate::{
    admin::connections,
    client::{Client, text},
    rig::{Rig, config, eventually},
};

#[tokio::test]
async fn a_full_lane_answers_busy_and_control_goes_on() {
    let mut config = config();
    config.lanes.entries_max = 8;
    config.limits.unanswered_max = 0;
    let small = MemoryBusConfig {
        stream_max_entries: 100,
        ..MemoryBusConfig::default()
    };
    let rig = Rig::start_on(config, small).await;
    let mut alice = rig.login("alice").await;
    rig.services.pause(true);
    let sends: Vec<_> = (0..400).map(|n| text("bob", &n.to_string())).collect();
    for (id, send) in (100..).zip(&sends) {
        alice.send(id, Body::Send(send.clone())).await;
    }
    // Pings and logins have their own way.
    alice.send(5, Body::Ping(Ping {})).await;
    let mut busy = Vec::new();
    loop {
        let packet = alice.recv().await.unwrap();
        match packet.body.unwrap() {
            Body::Busy(answer) => {
                assert!(answer.retry_after_ms > 0);
                let index = usize::try_from(packet.id - 100).unwrap();
                assert_eq!(answer.client_msg_id, sends[index].client_msg_id);
                busy.push(packet.id);
            }
            Body::Pong(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(busy.len() > 200, "{} of 400 were busy", busy.len());
    rig.login("carol").await;

    rig.services.pause(false);
    for _ in 0..sends.len() - busy.len() {
        let body = alice.recv().await.unwrap().body.unwrap();
        assert!(matches!(body, Body::SendAck(_)), "{body:?}");
    }
    alice.send(900, Body::Send(text("bob", "again"))).await;
    assert!(matches!(alice.answer(900).await, Body::SendAck(_)));
}

#[tokio::test]
async fn more_unanswered_sends_than_the_window_are_put_off() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    rig.services.pause(true);
    for id in 0..129 {
        alice.send(100 + id, Body::Send(text("bob", "x"))).await;
    }
    let packet = alice.recv().await.unwrap();
    assert!(matches!(packet.body, Some(Body::Busy(_))));
    assert_eq!(packet.id, 228);
    rig.services.pause(false);
    for _ in 0..128 {
        let body = alice.recv().await.unwrap().body;
        assert!(matches!(body, Some(Body::SendAck(_))));
    }
    alice.send(300, Body::Send(text("bob", "x"))).await;
    assert!(matches!(alice.answer(300).await, Body::SendAck(_)));
}

#[tokio::test]
async fn more_unanswered_pulls_than_may_be_are_put_off() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let pull = || Body::SyncHeads(SyncHeads::default());
    rig.services.pause(true);
    for id in 0..33 {
        alice.send(100 + id, pull()).await;
    }
    let packet = alice.recv().await.unwrap();
    assert!(matches!(&packet.body, Some(Body::Busy(busy)) if busy.retry_after_ms > 0));
    assert_eq!(packet.id, 132);
    // A send has room of its own; another connection, too.
    alice.send(500, Body::Send(text("bob", "x"))).await;
    let mut carol = rig.login("carol").await;
    carol.send(100, pull()).await;
    alice.send(600, Body::Ping(Ping {})).await;
    let body = alice.recv().await.unwrap().body;
    assert!(matches!(body, Some(Body::Pong(_))), "{body:?}");

    rig.services.pause(false);
    let mut answered = Vec::new();
    for _ in 0..33 {
        let packet = alice.recv().await.unwrap();
        match packet.body.unwrap() {
            Body::HeadsPage(_) => assert!(packet.id < 132),
            Body::SendAck(_) => assert_eq!(packet.id, 500),
            other => panic!("unexpected {other:?}"),
        }
        answered.push(packet.id);
    }
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 33);
    for id in 700..764 {
        alice.send(id, pull()).await;
        assert!(matches!(alice.answer(id).await, Body::HeadsPage(_)));
    }
    assert!(matches!(carol.answer(100).await, Body::HeadsPage(_)));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_bounded_and_told_to_pull() {
    is_bounded_and_told_to_pull(Client::connect_narrow).await;
}

#[tokio::test]
async fn so_is_one_that_encrypts() {
    is_bounded_and_told_to_pull(Client::connect_sealed_narrow).await;
}

async fn is_bounded_and_told_to_pull(by: impl AsyncFn(SocketAddr) -> Client) {
    let mut config = config();
    config.push.window_max_bytes = 16 * 1024 * 1024;
    config.push.rto_initial_ms = 60_000;
    let high_bytes = config.push.output_high_bytes;
    let rig = Rig::start_with(config).await;
    let mut bob = by(rig.tcp).await;
    bob.login("bob", "phone").await;
    let body = vec![1; 50_000];
    for _ in 0..300 {
        rig.services.push("bob", &body).await;
    }
    eventually("pushes dropped", async || {
        let rows = connections(rig.admin, "").await;
        rows["connections"][0]["dropped_pushes"].as_u64() > Some(50)
    })
    .await;
    let row = connections(rig.admin, "").await["connections"][0].clone();
    let queued = row["output_bytes"].as_u64().unwrap() as usize;
    assert!(queued <= high_bytes + 60_000, "{queued} bytes are queued");

    let (mut pushes, mut dropped) = (0, 0);
    while dropped == 0 {
        match bob.recv().await.unwrap().body.unwrap() {
            Body::Push(push) => {
                pushes += 1;
                assert_eq!(push.number, pushes);
                bob.ack_pushes(pushes).await;
            }
            Body::Overflow(overflow) => dropped = overflow.dropped,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(pushes + dropped, 300);
    rig.services.push("bob", b"live again").await;
    assert_eq!(bob.push().await.number, pushes + 1);
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_in_the_end() {
    let mut config = config();
    config.timeouts.slow_reader_ms = 300;
    config.push.window_max_bytes = 16 * 1024 * 1024;
    let rig = Rig::start_with(config).await;
    let mut bob = Client::connect_narrow(rig.tcp).await;
    bob.login("bob", "phone").await;
    let body = vec![1; 50_000];
    for _ in 0..200 {
        rig.services.push("bob", &body).await;
    }
    eventually("closed", async || {
        rig.services.routes("bob").await.is_empty()
    })
    .await;
    eventually("let go", async || {
        connections(rig.admin, "").await["total"] == 0
    })
    .await;
    drop(bob);
}

#[tokio::test]
async fn a_full_window_overflows_once() {
    let mut config = config();
    config.push.window_max = 8;
    config.push.rto_initial_ms = 60_000;
    let rig = Rig::start_with(config).await;
    let mut bob = rig.login("bob").await;
    for _ in 0..20 {
        rig.services.push("bob", b"x").await;
    }
    for number in 1..=8 {
        assert_eq!(bob.push().await.number, number);
    }
    bob.expect_silence(Duration::from_millis(100)).await;
    // One ack makes room, but not enough to begin again.
    bob.ack_pushes(1).await;
    bob.expect_silence(Duration::from_millis(100)).await;
    bob.ack_pushes(8).await;
    let Some(Body::Overflow(overflow)) = bob.recv().await.unwrap().body else {
        panic!("no overflow");
    };
    assert_eq!(overflow.dropped, 12);
    rig.services.push("bob", b"y").await;
    assert_eq!(bob.push().await.number, 9);
}

#[tokio::test]
async fn a_client_that_only_asks_and_never_reads_is_not_read_from_for_ever() {
    let mut config = config();
    config.timeouts.slow_reader_ms = 500;
    config.limits.packets_per_s = 0;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    let asking = async {
        let mut id = 10;
        while alice.try_send(id, Body::Ping(Ping {})).await.is_ok() {
            id += 1;
        }
    };
    // Its own answers fill its output, it is read no more, and then closed.
    let closed = tokio::time::timeout(Duration::from_secs(20), asking).await;
    closed.expect("it was read from for twenty seconds");
}
