//! Sessions that sleep while nothing is under way, and whatever wakes them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prost::Message as _;
use sluice_bus::Directory;
use sluice_codec::{datagram::End, encode_packet};
use sluice_protocol::packet::{CloseReason, ErrorCode, Kick, Ping, packet::Body};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{
    admin::connections,
    client::{Client, connect, packet, text},
    rig::{Rig, config, eventually},
};

/// By what a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    SealedTcp,
    WebSocket,
    Udp,
}

const WAYS: [Way; 4] = [Way::Tcp, Way::SealedTcp, Way::WebSocket, Way::Udp];
const STREAMS: [Way; 3] = [Way::Tcp, Way::SealedTcp, Way::WebSocket];

// === impl Way ===

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::SealedTcp => "tcp+noise",
            Self::WebSocket => "ws",
            Self::Udp => "udp",
        }
    }

    async fn login(self, rig: &Rig, user: &str) -> Client {
        let mut client = match self {
            Self::Tcp => Client::connect(rig.tcp).await,
            Self::SealedTcp => Client::connect_sealed(rig.tcp).await,
            Self::WebSocket => Client::connect_ws(rig.ws).await,
            Self::Udp => Client::connect_udp(rig.udp).await,
        };
        client.login(user, "phone").await;
        client
    }
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

async fn sleeper(way: Way, rig: &Rig, user: &str) -> Client {
    let mut client = way.login(rig, user).await;
    fall_asleep(rig, &mut client, user).await;
    client
}

#[tokio::test]
async fn pushes_answers_and_kicks_wake_a_sleeper() {
    join_all(WAYS.map(wake_by_pushes_answers_and_a_kick)).await;
}

async fn wake_by_pushes_answers_and_a_kick(way: Way) {
    let rig = Rig::start().await;
    let mut alice = sleeper(way, &rig, "alice").await;
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
    join_all(WAYS.map(look_at_a_sleeper)).await;
}

async fn look_at_a_sleeper(way: Way) {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    config.directory.reassert_interval_ms = 200;
    config.directory.session_check_interval_ms = 100;
    let rig = Rig::start_with(config).await;
    let mut alice = way.login(&rig, "alice").await;
    // A push that isn't acknowledged keeps it awake.
    rig.services.push("alice", b"are you there?").await;
    let number = alice.push().await.number;
    let awake = row(&rig, "alice").await;
    assert_eq!(awake["asleep"], false);
    alice.ack_pushes(number).await;
    fall_asleep(&rig, &mut alice, "alice").await;
    let asleep = row(&rig, "alice").await;
    for name in ["connection", "user", "device", "peer", "transport", "phase"] {
        assert_eq!(awake[name], asleep[name], "{name}");
    }
    assert_eq!(asleep["transport"], way.name());
    assert!(asleep["read_bytes"].as_u64() >= awake["read_bytes"].as_u64());
    assert!(asleep["age_ms"].as_u64() >= awake["age_ms"].as_u64());
    assert_eq!(asleep["output_bytes"], 0);
    let memory = |row: &serde_json::Value| row["memory_bytes"].as_u64().unwrap();
    let packed_max_bytes = match way {
        Way::Tcp | Way::WebSocket => 192,
        Way::SealedTcp => 256,
        Way::Udp => 304,
    };
    assert!(memory(&asleep) <= packed_max_bytes, "{asleep}");
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
    join_all(WAYS.map(end_with_the_token)).await;
}

async fn end_with_the_token(way: Way) {
    let rig = Rig::start().await;
    // The services let this user in for four seconds.
    let mut sleepy = sleeper(way, &rig, "sleepy").await;
    let slept = Instant::now();
    sleepy.expect_go_away(CloseReason::TokenExpired).await;
    assert!(slept.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn who_stays_silent_is_missed_in_its_sleep() {
    join_all(WAYS.map(miss_who_is_silent)).await;
}

async fn miss_who_is_silent(way: Way) {
    let mut config = config();
    config.timeouts.heartbeat_interval_ms = 1_500;
    let rig = Rig::start_with(config).await;
    let mut alice = sleeper(way, &rig, "alice").await;
    let mut bob = sleeper(way, &rig, "bob").await;
    // Bob goes on to say something now and then, and sleeps in between.
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
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
    let mut alice = sleeper(Way::Udp, &rig, "alice").await;
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
    let mut alice = sleeper(Way::Udp, &rig, "alice").await;
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
    join_all(WAYS.map(break_the_rules)).await;
}

async fn break_the_rules(way: Way) {
    let rig = Rig::start().await;
    let mut alice = sleeper(way, &rig, "alice").await;
    alice
        .send(2, Body::Connect(connect("alice", "phone")))
        .await;
    alice.expect_error(ErrorCode::UnexpectedPacket).await;
    alice.expect_end().await;
    if way == Way::Udp {
        assert!(matches!(alice.udp().end(), Some(End::ClosedByPeer(_))));
    }
    drop(alice);
    let gone = async || connections(rig.admin, "").await["total"] == 0;
    eventually("gone", gone).await;
}

#[tokio::test]
async fn sleepers_are_told_when_the_gateway_drains() {
    let mut config = config();
    config.drain.grace_ms = 3_000;
    let rig = Rig::start_with(config).await;
    let mut sleepers = Vec::new();
    for (way, user) in WAYS.into_iter().zip(["alice", "bob", "carol", "dave"]) {
        sleepers.push(sleeper(way, &rig, user).await);
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

#[tokio::test]
async fn a_sleeper_whose_client_goes_is_gone() {
    join_all(STREAMS.map(go)).await;
}

async fn go(way: Way) {
    let rig = Rig::start().await;
    let alice = sleeper(way, &rig, "alice").await;
    let mut bob = sleeper(way, &rig, "bob").await;
    drop(alice);
    let gone = async || connections(rig.admin, "").await["total"] == 1;
    eventually("gone", gone).await;
    eventually("unbound", async || {
        rig.services.routes("alice").await.is_empty()
    })
    .await;
    // Who takes the place that became free is another.
    let mut carol = sleeper(way, &rig, "carol").await;
    for (client, id) in [(&mut bob, 2), (&mut carol, 3)] {
        client.send(id, Body::Ping(Ping {})).await;
        assert!(matches!(client.answer(id).await, Body::Pong(_)));
    }
}

#[tokio::test]
async fn who_is_heard_often_stays_awake_and_sleeps_later_by_itself() {
    join_all(STREAMS.map(talk)).await;
}

async fn talk(way: Way) {
    let rig = Rig::start().await;
    let mut alice = sleeper(way, &rig, "alice").await;
    for n in 2..10 {
        alice.send(n, Body::Ping(Ping {})).await;
        assert!(matches!(alice.answer(n).await, Body::Pong(_)));
        if n > 4 {
            assert!(!is_asleep(&rig, "alice").await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nothing but its timer touches it.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(is_asleep(&rig, "alice").await);
    // After a pause one packet doesn't keep it awake.
    alice.send(10, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(10).await, Body::Pong(_)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_asleep(&rig, "alice").await);
}

#[tokio::test]
async fn half_a_frame_keeps_awake_until_the_rest_has_come() {
    let rig = Rig::start().await;
    let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
    let frame = |id, body| {
        let payload = encode_packet(&packet(id, body), 1 << 20).unwrap();
        [&(payload.len() as u32).to_be_bytes()[..], &payload].concat()
    };
    let login = frame(1, Body::Connect(connect("alice", "phone")));
    socket.write_all(&login).await.unwrap();
    eventually("asleep", async || is_asleep(&rig, "alice").await).await;
    let mut heard = [0; 4096];
    assert!(socket.read(&mut heard).await.unwrap() > 0);
    let ping = frame(2, Body::Ping(Ping {}));
    for cut in 1..ping.len() {
        let (first, rest) = ping.split_at(cut);
        socket.write_all(first).await.unwrap();
        let awake = async || !is_asleep(&rig, "alice").await;
        eventually("awake", awake).await;
        socket.write_all(rest).await.unwrap();
        assert!(socket.read(&mut heard).await.unwrap() > 4);
    }
    eventually("asleep", async || is_asleep(&rig, "alice").await).await;
}

#[tokio::test]
async fn large_packets_wake_and_find_their_way_to_a_sleeper() {
    join_all(STREAMS.map(send_large_packets)).await;
}

async fn send_large_packets(way: Way) {
    let rig = Rig::start().await;
    let mut alice = sleeper(way, &rig, "alice").await;
    let mut bob = sleeper(way, &rig, "bob").await;
    let body = "x".repeat(60_000);
    for n in 1..=2 {
        bob.send(n + 1, Body::Send(text("alice", &body))).await;
        let push = alice.push().await;
        assert!(push.entry.unwrap().encoded_len() > body.len());
        alice.ack_pushes(n).await;
        assert!(matches!(bob.answer(n + 1).await, Body::SendAck(_)));
        fall_asleep(&rig, &mut alice, "alice").await;
        fall_asleep(&rig, &mut bob, "bob").await;
    }
}
