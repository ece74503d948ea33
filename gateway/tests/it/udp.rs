//! Datagram sessions with a real gateway: the packets of other transports, over
//! UDP, from addresses that change, among datagrams that mean harm.

use std::{net::SocketAddr, time::Duration};

use sluice_codec::datagram::{AddressTicket, ConnectError, End, HELLO_BYTES};
use sluice_protocol::packet::{CloseReason, ErrorCode, Kick, Ping, packet::Body};
use tokio::net::UdpSocket;

use crate::{
    client::{Client, text},
    rig::{Rig, config, eventually},
    udp_client::UdpClient,
};

async fn login(rig: &Rig, user: &str) -> Client {
    let mut client = Client::connect_udp(rig.udp).await;
    client.login(user, "phone").await;
    client
}

#[tokio::test]
async fn messages_cross_between_udp_and_tcp() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    for n in 1..=100 {
        // Up to some fifty fragments.
        let body = "x".repeat(n * 500);
        let id = n as u64 + 10;
        alice.send(id, Body::Send(text("bob", &body))).await;
        assert!(matches!(alice.answer(id).await, Body::SendAck(_)));
        assert_eq!(bob.push().await.number, n as u64);
        bob.ack_pushes(n as u64).await;
        bob.send(id, Body::Send(text("alice", &body))).await;
        assert_eq!(alice.push().await.number, n as u64);
        alice.ack_pushes(n as u64).await;
    }
}

#[tokio::test]
async fn a_client_that_moves_stays_logged_in() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    // Other ports hash to other loops, so that some of these packets stray.
    for n in 1..=20 {
        alice.udp().move_away().await;
        alice
            .send(n + 10, Body::Send(text("bob", "on the way")))
            .await;
        assert!(matches!(alice.answer(n + 10).await, Body::SendAck(_)));
        bob.send(n + 10, Body::Send(text("alice", "where are you")))
            .await;
        assert_eq!(alice.push().await.number, n);
        alice.ack_pushes(n).await;
    }
}

async fn login_from(rig: &Rig, local: &str, ticket: Option<AddressTicket>) -> Client {
    let client = UdpClient::connect_from(local, rig.udp, ticket).await;
    let mut client = Client::Udp(Box::new(client));
    client.login("alice", "phone").await;
    client
}

#[tokio::test]
async fn a_client_that_moved_gets_a_ticket_for_where_it_is() {
    let rig = Rig::start().await;
    let mut alice = login_from(&rig, "127.0.0.1", None).await;
    assert_eq!(
        alice.udp().handshake_answers,
        2,
        "a cookie, and the Welcome"
    );
    let (_, home) = alice.udp().connection.take_ticket().unwrap();
    // Another port of the same address: the ticket holds there, too.
    alice.udp().move_away().await;
    alice.send(7, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(7).await, Body::Pong(_)));
    assert_eq!(alice.udp().connection.take_token(), None);
    alice.udp().move_to("127.0.0.2").await;
    let mut token = None;
    for id in 10.. {
        alice.send(id, Body::Ping(Ping {})).await;
        assert!(matches!(alice.answer(id).await, Body::Pong(_)));
        token = alice.udp().connection.take_token();
        if token.is_some() || id > 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let there = AddressTicket::from_bytes(<[u8; _]>::try_from(&*token.unwrap()).unwrap());
    for (local, ticket, answers) in [
        ("127.0.0.2", there, 1),
        // Of another address, it is worth nothing.
        ("127.0.0.1", there, 2),
        ("127.0.0.2", home, 2),
    ] {
        let mut again = login_from(&rig, local, Some(ticket)).await;
        assert_eq!(again.udp().handshake_answers, answers, "{local}");
    }
}

#[tokio::test]
async fn a_session_that_moved_is_counted_where_it_is() {
    let mut config = config();
    config.limits.connections_per_address = 2;
    let rig = Rig::start_with(config).await;
    let mut sessions = Vec::new();
    for local in ["127.0.0.2", "127.0.0.2", "127.0.0.3"] {
        sessions.push(UdpClient::connect_from(local, rig.udp, None).await);
    }
    let mut sessions: Vec<_> = (sessions.into_iter())
        .map(|client| Client::Udp(Box::new(client)))
        .collect();
    for (n, session) in sessions.iter_mut().enumerate() {
        session.login(&format!("user{n}"), "phone").await;
    }
    // A third one in a place for two: it stays, and none comes after it.
    sessions[2].udp().move_to("127.0.0.2").await;
    for id in 10..20 {
        for session in &mut sessions {
            session.send(id, Body::Ping(Ping {})).await;
            assert!(matches!(session.answer(id).await, Body::Pong(_)));
        }
    }
    let refused = async |local: &str| {
        let mut client = UdpClient::connect_from(local, rig.udp, None).await;
        let ended = tokio::time::timeout(Duration::from_secs(2), client.recv()).await;
        let busy = matches!(client.connection.failure(), Some(ConnectError::Busy { .. }));
        assert_eq!(busy, ended.is_ok());
        busy
    };
    assert!(refused("127.0.0.2").await);
    // Where it was, there is room for two again.
    let mut others = Vec::new();
    for n in 0..2 {
        let client = UdpClient::connect_from("127.0.0.3", rig.udp, None).await;
        let mut client = Client::Udp(Box::new(client));
        client.login(&format!("other{n}"), "phone").await;
        others.push(client);
    }
    assert!(refused("127.0.0.3").await);
}

#[tokio::test]
async fn a_kick_arrives_before_the_end() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let kick = Kick {
        reason: CloseReason::Banned.into(),
        message: "enough".into(),
    };
    rig.services.kick("alice", kick.clone()).await;
    assert_eq!(alice.recv().await.unwrap().body, Some(Body::Kick(kick)));
    alice.expect_end().await;
    assert!(matches!(alice.udp().end(), Some(End::ClosedByPeer(_))));
    eventually("unbound", async || {
        rig.services.routes("alice").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn nothing_but_connect_before_login_and_nothing_large() {
    let rig = Rig::start().await;
    let mut early = Client::connect_udp(rig.udp).await;
    early.send(1, Body::Send(text("bob", "hi"))).await;
    early.expect_error(ErrorCode::LoginRequired).await;
    early.expect_end().await;
    let mut large = Client::connect_udp(rig.udp).await;
    let body = "x".repeat(5_000);
    large.send(1, Body::Send(text("bob", &body))).await;
    large.expect_error(ErrorCode::TooLarge).await;
    large.expect_end().await;
}

#[tokio::test]
async fn a_session_that_the_gateway_forgot_is_reset() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let other = Rig::start().await;
    // The packets reach a gateway with the same keys that knows nothing of them,
    // as after a restart.
    alice.udp().socket.connect(other.udp).await.unwrap();
    alice.send(2, Body::Ping(Ping {})).await;
    alice.expect_end().await;
    assert_eq!(alice.udp().end(), Some(End::Forgotten));
}

#[tokio::test]
async fn a_flood_of_hellos_and_junk_leaves_nothing_and_is_not_amplified() {
    let rig = Rig::start().await;
    let mut bob = login(&rig, "bob").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(rig.udp).await.unwrap();
    let (mut sent, mut received) = (0, 0);
    let mut answer = [0; 2_000];
    for n in 0..2_000_u32 {
        let mut datagram = vec![0; HELLO_BYTES];
        datagram[0] = 0x80;
        datagram[1] = 1;
        datagram[2..6].copy_from_slice(&n.to_be_bytes());
        match n % 4 {
            0 => {}
            // Short, of a session that nobody has, and anything.
            1 => datagram.truncate(700),
            2 => datagram[0] = 0x61,
            _ => datagram.fill_with(rand::random),
        }
        sent += socket.send(&datagram).await.unwrap();
        while let Ok(bytes) = socket.try_recv(&mut answer) {
            assert!(bytes < HELLO_BYTES);
            received += bytes;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    while let Ok(bytes) = socket.try_recv(&mut answer) {
        received += bytes;
    }
    assert!(received > 0 && received * 10 < sent, "{received} of {sent}");
    bob.send(9, Body::Ping(Ping {})).await;
    assert!(matches!(bob.answer(9).await, Body::Pong(_)));
    assert_eq!(connections(rig.admin).await, 1);
}

#[tokio::test]
async fn an_address_with_too_many_sessions_is_told_to_wait() {
    let mut config = config();
    config.limits.connections_per_address = 2;
    let rig = Rig::start_with(config).await;
    let _alice = login(&rig, "alice").await;
    let _bob = login(&rig, "bob").await;
    let mut carol = Client::connect_udp(rig.udp).await;
    carol.expect_end().await;
    let busy = matches!(
        carol.udp().connection.failure(),
        Some(ConnectError::Busy {
            retry_after_ms: 1..
        })
    );
    assert!(busy);
}

#[tokio::test]
async fn packets_that_come_again_or_changed_do_nothing() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    alice.send(5, Body::Send(text("bob", "once"))).await;
    let packet = alice.udp().last_sent.clone();
    assert_eq!(bob.push().await.number, 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for place in 0..packet.len() {
        // As it was, from elsewhere, and with each byte changed.
        stranger.send_to(&packet, rig.udp).await.unwrap();
        let mut forged = packet.clone();
        forged[place] ^= 0x55;
        stranger.send_to(&forged, rig.udp).await.unwrap();
        alice.udp().socket.send(&forged).await.unwrap();
    }
    assert!(matches!(alice.answer(5).await, Body::SendAck(_)));
    bob.expect_silence(Duration::from_millis(300)).await;
    alice.send(6, Body::Send(text("bob", "twice"))).await;
    assert!(matches!(alice.answer(6).await, Body::SendAck(_)));
    // The way back has not been turned to the stranger.
    let mut heard = [0; 2_000];
    while let Ok((bytes, _)) = stranger.try_recv_from(&mut heard) {
        assert!(bytes < 30, "{bytes} bytes");
    }
}

/// Channels that the gateway holds.
async fn connections(admin: SocketAddr) -> u64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(admin).await.unwrap();
    let request = "GET /admin/connections HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let start = answer.find('{').unwrap();
    let end = answer.rfind('}').unwrap();
    let page: serde_json::Value = serde_json::from_str(&answer[start..=end]).unwrap();
    page["total"].as_u64().unwrap()
}
