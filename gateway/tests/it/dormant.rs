//! Sessions that sleep while nothing is under way, and whatever wakes them.

use std::time::{Duration, Instant};

use sluice_bus::Directory;
use sluice_codec::datagram::End;
use sluice_protocol::packet::{CloseReason, ErrorCode, Kick, Ping, packet::Body};
use tokio::net::UdpSocket;

use crate::{
    admin::connections,
    client::{Client, connect, text},
    rig::{Rig, config, eventually},
};

async fn login(rig: &Rig, user: &str) -> Client {
    let mut client = Client::connect_udp(rig.udp).await;
    client.login(user, "phone").await;
    client
}

/// What the gateway tells of this user's connection.
async fn row(rig: &Rig, user: &str) -> serde_json::Value {
    let all = connections(rig.admin, "?sort=memory").await;
    let rows = all["connections"].as_array().unwrap();
    let row = rows.iter().find(|row| row["user"] == user);
    row.cloned().unwrap_or_default()
}

async fn is_asleep(rig: &Rig, user: &str) -> bool {
    row(rig, user).await["asleep"] == true
}

/// Lets the client acknowledge what it must, until its session sleeps.
async fn fall_asleep(rig: &Rig, client: &mut Client, user: &str) {
    let began = Instant::now();
    while !is_asleep(rig, user).await {
        assert!(began.elapsed() < Duration::from_secs(10), "it stays awake");
        client.expect_silence(Duration::from_millis(50)).await;
    }
}

async fn sleeper(rig: &Rig, user: &str) -> Client {
    let mut client = login(rig, user).await;
    fall_asleep(rig, &mut client, user).await;
    client
}

#[tokio::test]
async fn pushes_answers_and_kicks_wake_a_sleeper() {
    let rig = Rig::start().await;
    let mut alice = sleeper(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    for n in 1..=3 {
        bob.send(n + 10, Body::Send(text("alice", "wake up"))).await;
        assert_eq!(alice.push().await.number, n);
        alice.ack_pushes(n).await;
        fall_asleep(&rig, &mut alice, "alice").await;
        alice.send(n + 20, Body::Send(text("bob", "I am up"))).await;
        assert!(matches!(alice.answer(n + 20).await, Body::SendAck(_)));
        assert_eq!(bob.push().await.number, n);
        bob.ack_pushes(n).await;
        fall_asleep(&rig, &mut alice, "alice").await;
    }
    let kick = Kick {
        reason: CloseReason::LoggedOut.into(),
        message: "out".into(),
    };
    rig.services.kick("alice", kick.clone()).await;
    assert_eq!(alice.recv().await.unwrap().body, Some(Body::Kick(kick)));
    alice.expect_end().await;
    let gone = async || rig.services.routes("alice").await.is_empty();
    eventually("unbound", gone).await;
}

#[tokio::test]
async fn what_is_told_of_a_sleeper_is_right_and_does_not_wake_it() {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    config.directory.reassert_interval_ms = 200;
    config.directory.session_check_interval_ms = 100;
    let rig = Rig::start_with(config).await;
    let mut alice = login(&rig, "alice").await;
    let awake = row(&rig, "alice").await;
    fall_asleep(&rig, &mut alice, "alice").await;
    let asleep = row(&rig, "alice").await;
    for name in ["connection", "user", "device", "peer", "transport", "phase"] {
        assert_eq!(awake[name], asleep[name], "{name}");
    }
    assert_eq!(asleep["transport"], "udp");
    assert!(asleep["read_bytes"].as_u64() >= awake["read_bytes"].as_u64());
    assert!(asleep["age_ms"].as_u64() >= awake["age_ms"].as_u64());
    assert_eq!(asleep["output_bytes"], 0);
    let memory = |row: &serde_json::Value| row["memory_bytes"].as_u64().unwrap();
    assert!(memory(&asleep) < 320, "{asleep}");
    assert!(memory(&asleep) * 2 < memory(&awake), "{awake} {asleep}");
    for sort in ["traffic", "unacked", "age"] {
        let all = connections(rig.admin, &format!("?sort={sort}")).await;
        assert_eq!(all["connections"][0]["user"], "alice");
    }
    // The sweeps find it in its sleep.
    rig.directory.release(rig.incarnation).await.unwrap();
    eventually("bound again", async || {
        rig.services.routes("alice").await.len() == 1
    })
    .await;
    let checks = async || rig.services.seen().await.checked.len();
    let before = checks().await;
    eventually("checked", async || checks().await > before).await;
    assert!(rig.services.seen().await.checked[before].user_id == "alice");
    // After the lapse it was told to check, which woke it; it sleeps again.
    fall_asleep_over(&rig, &mut alice, "alice").await;
}

/// The same where packets come in between.
async fn fall_asleep_over(rig: &Rig, client: &mut Client, user: &str) {
    let began = Instant::now();
    while !is_asleep(rig, user).await {
        assert!(began.elapsed() < Duration::from_secs(10), "it stays awake");
        let _ = tokio::time::timeout(Duration::from_millis(50), client.recv()).await;
    }
}

#[tokio::test]
async fn a_session_ends_with_its_token_while_it_sleeps() {
    let rig = Rig::start().await;
    // The services let this user in for four seconds.
    let mut sleepy = sleeper(&rig, "sleepy").await;
    let slept = Instant::now();
    sleepy.expect_go_away(CloseReason::TokenExpired).await;
    assert!(slept.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn who_stays_silent_is_missed_in_its_sleep() {
    let mut config = config();
    config.timeouts.heartbeat_interval_ms = 1_500;
    let rig = Rig::start_with(config).await;
    let mut alice = sleeper(&rig, "alice").await;
    let mut bob = sleeper(&rig, "bob").await;
    // Bob goes on to say something now and then, and sleeps in between.
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        bob.send(n + 2, Body::Ping(Ping {})).await;
        assert!(matches!(bob.answer(n + 2).await, Body::Pong(_)));
    }
    let gone = async || rig.services.routes("alice").await.is_empty();
    eventually("unbound", gone).await;
    assert_eq!(rig.services.routes("bob").await.len(), 1);
    alice.expect_go_away(CloseReason::Idle).await;
}

#[tokio::test]
async fn a_sleeper_may_have_moved() {
    let rig = Rig::start().await;
    let mut alice = sleeper(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    for n in 1..=3 {
        let before = row(&rig, "alice").await["connection"].clone();
        alice.udp().move_away().await;
        alice.send(n + 10, Body::Ping(Ping {})).await;
        assert!(matches!(alice.answer(n + 10).await, Body::Pong(_)));
        fall_asleep(&rig, &mut alice, "alice").await;
        bob.send(n + 10, Body::Send(text("alice", "found you")))
            .await;
        assert_eq!(alice.push().await.number, n);
        alice.ack_pushes(n).await;
        fall_asleep(&rig, &mut alice, "alice").await;
        assert_eq!(row(&rig, "alice").await["connection"], before);
    }
}

#[tokio::test]
async fn forged_and_repeated_packets_leave_a_sleeper_as_it_was() {
    let rig = Rig::start().await;
    let mut alice = sleeper(&rig, "alice").await;
    let packet = alice.udp().last_sent.clone();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for place in 0..packet.len() {
        let mut forged = packet.clone();
        forged[place] ^= 0x55;
        for datagram in [&packet, &forged] {
            stranger.send_to(datagram, rig.udp).await.unwrap();
            alice.udp().socket.send(datagram).await.unwrap();
        }
    }
    fall_asleep(&rig, &mut alice, "alice").await;
    alice.send(9, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(9).await, Body::Pong(_)));
    assert_eq!(alice.udp().end(), None);
    let mut heard = [0; 2_000];
    while let Ok((bytes, _)) = stranger.try_recv_from(&mut heard) {
        assert!(bytes < 30, "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_sleeper_breaks_the_rules_like_anybody() {
    let rig = Rig::start().await;
    let mut alice = sleeper(&rig, "alice").await;
    alice
        .send(2, Body::Connect(connect("alice", "phone")))
        .await;
    alice.expect_error(ErrorCode::UnexpectedPacket).await;
    alice.expect_end().await;
    assert!(matches!(alice.udp().end(), Some(End::ClosedByPeer(_))));
    let gone = async || connections(rig.admin, "").await["total"] == 0;
    eventually("gone", gone).await;
}

#[tokio::test]
async fn sleepers_are_told_when_the_gateway_drains() {
    let mut config = config();
    config.drain.grace_ms = 3_000;
    let rig = Rig::start_with(config).await;
    let mut sleepers = Vec::new();
    for user in ["alice", "bob", "carol"] {
        sleepers.push(sleeper(&rig, user).await);
    }
    let (gateway, services) = (rig.gateway, rig.services);
    let drained = tokio::spawn(gateway.drain());
    for sleeper in &mut sleepers {
        let Some(Body::GoAway(go_away)) = sleeper.recv().await.unwrap().body else {
            panic!("no GoAway");
        };
        assert_eq!(go_away.reason(), CloseReason::GoingAway);
    }
    drop(sleepers);
    let done = tokio::time::timeout(Duration::from_secs(10), drained).await;
    done.expect("the drain did not end").unwrap();
    assert!(services.routes("alice").await.is_empty());
}
