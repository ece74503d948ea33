//! The same over WebSocket, by a client that is not ours (tungstenite).

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sluice_protocol::packet::{CloseReason, Kick, Ping, packet::Body};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Client, text},
    rig::{Rig, config},
};

async fn login(rig: &Rig, user: &str) -> Client {
    let mut client = Client::connect_ws(rig.ws).await;
    client.login(user, "browser").await;
    client
}

#[tokio::test]
async fn messages_cross_between_transports() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let mut bob = rig.login("bob").await;
    for n in 1..=100 {
        let body = "x".repeat(n * 500);
        alice
            .send(n as u64 + 10, Body::Send(text("bob", &body)))
            .await;
        assert!(matches!(
            alice.answer(n as u64 + 10).await,
            Body::SendAck(_)
        ));
        assert_eq!(bob.push().await.number, n as u64);
        bob.ack_pushes(n as u64).await;
        bob.send(n as u64 + 10, Body::Send(text("alice", &body)))
            .await;
        assert_eq!(alice.push().await.number, n as u64);
        alice.ack_pushes(n as u64).await;
    }
}

#[tokio::test]
async fn control_frames_are_answered() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let Client::Ws(socket) = &mut alice else {
        panic!("not a WebSocket");
    };
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    let pong = socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("are you there".into()));
    socket.as_mut().close(None).await.unwrap();
    let close = socket.next().await;
    assert!(matches!(close, Some(Ok(Message::Close(_)))), "{close:?}");
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn control_frames_are_counted_like_packets() {
    let mut config = config();
    config.limits.packets_per_s = 20;
    config.limits.packets_burst = 20;
    let rig = Rig::start_with(config).await;
    // A stranger is held to it, too.
    let mut pinging = Client::connect_ws(rig.ws).await;
    let mut ponging = login(&rig, "alice").await;
    for (client, frame) in [
        (&mut pinging, Message::Ping("x".into())),
        (&mut ponging, Message::Pong("x".into())),
    ] {
        let Client::Ws(socket) = client else {
            panic!("not a WebSocket");
        };
        for _ in 0..300 {
            // It may be closed already.
            let _ = socket.send(frame.clone()).await;
        }
        let mut pongs = 0;
        let close = loop {
            match socket.next().await {
                Some(Ok(Message::Pong(_))) => pongs += 1,
                Some(Ok(Message::Close(Some(close)))) => break close,
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        };
        assert_eq!(u16::from(close.code), 4023);
        assert!(pongs < 60, "{pongs} pongs");
    }
}

#[tokio::test]
async fn who_pings_at_a_sane_rate_is_never_closed() {
    let mut config = config();
    config.limits.packets_per_s = 50;
    config.limits.packets_burst = 5;
    let rig = Rig::start_with(config).await;
    let mut alice = login(&rig, "alice").await;
    let Client::Ws(socket) = &mut alice else {
        panic!("not a WebSocket");
    };
    for n in 0..50 {
        let ping = format!("{n}");
        socket
            .send(Message::Ping(ping.clone().into()))
            .await
            .unwrap();
        let pong = socket.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(ping.into()));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test]
async fn a_kick_is_a_packet_and_a_close_code() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let kick = Kick {
        reason: CloseReason::Banned.into(),
        message: "no".into(),
    };
    rig.services.kick("alice", kick.clone()).await;
    assert_eq!(alice.recv().await.unwrap().body, Some(Body::Kick(kick)));
    let Client::Ws(socket) = &mut alice else {
        panic!("not a WebSocket");
    };
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (4003, "banned")
    );
}

#[tokio::test]
async fn text_is_not_taken() {
    let rig = Rig::start().await;
    let mut alice = login(&rig, "alice").await;
    let Client::Ws(socket) = &mut alice else {
        panic!("not a WebSocket");
    };
    socket.send(Message::Text("hello".into())).await.unwrap();
    let error = socket.next().await.unwrap().unwrap();
    assert!(error.is_binary());
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(close.code), 1003);
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_in_http() {
    let rig = Rig::start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut socket = TcpStream::connect(rig.ws).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut alice = login(&rig, "alice").await;
    alice.send(3, Body::Ping(Ping {})).await;
    assert!(matches!(alice.answer(3).await, Body::Pong(_)));
}
