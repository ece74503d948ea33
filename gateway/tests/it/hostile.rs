//! Bytes and packets that nobody should send. Each gets its answer, and nobody
//! else notices.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sluice_codec::{Decoder, Frame, Input, decode_packet};
use sluice_protocol::{
    limits::BODY_MAX_BYTES,
    packet::{
        CloseReason, ErrorCode, Packet, Ping, Pong, Send, SendAck, packet::Body, send::Target,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame as WsFrame,
        coding::{Data, OpCode},
    },
};

use crate::{
    client::{Client, PATIENCE, text},
    rig::{Rig, config},
};

/// Sends bytes and returns all that comes back until the end.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let all = socket.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("not closed")
        .unwrap();
    answer
}

fn packets(mut bytes: Vec<u8>) -> Vec<Packet> {
    let mut decoder = Decoder::tcp(1 << 20);
    let mut input = Input::new(&mut bytes);
    let mut packets = Vec::new();
    while let Some(Frame::Packet(payload)) = decoder.decode(&mut input).unwrap() {
        packets.push(decode_packet(payload).unwrap());
    }
    packets
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [length.as_slice(), payload].concat()
}

async fn expect_working(client: &mut Client, id: u64) {
    client.send(id, Body::Ping(Ping {})).await;
    assert!(matches!(client.answer(id).await, Body::Pong(_)));
}

#[tokio::test]
async fn broken_frames_are_named_and_closed() {
    let rig = Rig::start().await;
    let mut bystander = rig.login("bystander").await;
    let no_body = Packet { id: 9, body: None }.encode_to_vec();
    let cases: [(Vec<u8>, ErrorCode); 7] = [
        (vec![0x7f, 0xff, 0xff, 0xff], ErrorCode::TooLarge),
        (4_097_u32.to_be_bytes().to_vec(), ErrorCode::TooLarge),
        (vec![0xff, 0xff, 0xff, 0xff], ErrorCode::BadFrame),
        (vec![0x80, 0, 0, 1, 1], ErrorCode::BadFrame),
        (framed(&[]), ErrorCode::BadFrame),
        (framed(&[0xff; 20]), ErrorCode::BadPacket),
        (framed(&no_body), ErrorCode::BadPacket),
    ];
    for (bytes, code) in cases {
        let answer = packets(exchange(rig.tcp, &bytes).await);
        let [
            Packet {
                id,
                body: Some(Body::Error(error)),
            },
        ] = answer.as_slice()
        else {
            panic!("one error was expected for {bytes:?}, not {answer:?}");
        };
        assert_eq!(error.code(), code, "{bytes:?}");
        assert_eq!(*id, if bytes.ends_with(&no_body) { 9 } else { 0 });
    }
    expect_working(&mut bystander, 5).await;
}

#[tokio::test]
async fn other_protocols_are_told_in_their_own_or_not_at_all() {
    let rig = Rig::start().await;
    let http = exchange(rig.tcp, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(http.starts_with(b"HTTP/1.1 400"), "{http:?}");
    let tls = exchange(rig.tcp, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert!(tls.is_empty(), "{tls:?}");
}

#[tokio::test]
async fn a_frame_may_not_stay_open() {
    let mut config = config();
    config.timeouts.frame_ms = 200;
    let rig = Rig::start_with(config).await;
    // A byte now and then does not put the deadline off.
    let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let drip = async {
        let _ = writer.write_all(&1_000_u32.to_be_bytes()).await;
        for _ in 0..100 {
            let _ = writer.write_all(b"x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => panic!("it stayed open for five seconds"),
        _ = reader.read_to_end(&mut answer) => {}
    }
    let [
        Packet {
            body: Some(Body::GoAway(go_away)),
            ..
        },
    ] = packets(answer)[..]
    else {
        panic!("no GoAway");
    };
    assert_eq!(go_away.reason(), CloseReason::FrameTimeout);
}

#[tokio::test]
async fn frames_that_never_end_together_with_a_read_are_all_right() {
    let mut config = config();
    config.timeouts.frame_ms = 300;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    let Client::Tcp(stream) = &mut alice else {
        panic!("not TCP");
    };
    let ping = |id| {
        let body = Some(Body::Ping(Ping {}));
        framed(&Packet { id, body }.encode_to_vec())
    };
    let frame_bytes = ping(10).len();
    let bytes: Vec<u8> = (10..40).flat_map(ping).collect();
    let (first, rest) = bytes.split_at(1);
    let socket = stream.get_mut();
    socket.write_all(first).await.unwrap();
    // Each read ends one frame and begins the next, for three deadlines long.
    for chunk in rest.chunks(frame_bytes) {
        socket.write_all(chunk).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for id in 10..40 {
        assert!(matches!(alice.answer(id).await, Body::Pong(_)));
    }
}

#[tokio::test]
async fn pings_between_fragments_do_not_put_the_deadline_off() {
    let mut config = config();
    config.timeouts.frame_ms = 300;
    let rig = Rig::start_with(config).await;
    let mut alice = Client::connect_ws(rig.ws).await;
    alice.login("alice", "browser").await;
    let Client::Ws(socket) = &mut alice else {
        panic!("not a WebSocket");
    };
    let first = WsFrame::message(vec![0_u8; 4], OpCode::Data(Data::Binary), false);
    socket.send(Message::Frame(first)).await.unwrap();
    for _ in 0..100 {
        // It may be closed already.
        let _ = socket.send(Message::Ping("still here".into())).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        while let Ok(Some(next)) = tokio::time::timeout(Duration::ZERO, socket.next()).await {
            if let Ok(Message::Binary(bytes)) = &next {
                let packet = Packet::decode(bytes.clone()).unwrap();
                let Some(Body::GoAway(go_away)) = packet.body else {
                    panic!("no GoAway but {packet:?}");
                };
                return assert_eq!(go_away.reason(), CloseReason::FrameTimeout);
            }
            assert!(matches!(next, Ok(Message::Pong(_))), "{next:?}");
        }
    }
    panic!("it stayed open for three seconds");
}

#[tokio::test]
async fn half_open_connections_end_and_harm_nobody() {
    let mut config = config();
    config.timeouts.login_ms = 1_500;
    let rig = Rig::start_with(config).await;
    let mut bystander = rig.login("bystander").await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(rig.connect().await);
    }
    expect_working(&mut bystander, 5).await;
    for client in &mut silent {
        client.expect_go_away(CloseReason::LoginTimeout).await;
    }
    expect_working(&mut bystander, 6).await;
}

#[tokio::test]
async fn packets_of_the_server_are_not_for_clients() {
    let rig = Rig::start().await;
    for body in [
        Body::Pong(Pong::default()),
        Body::SendAck(SendAck::default()),
    ] {
        let mut client = rig.login("alice").await;
        client.send(4, body).await;
        let (id, _) = client.expect_error(ErrorCode::UnexpectedPacket).await;
        assert_eq!(id, 4);
        client.expect_end().await;
    }
}

#[tokio::test]
async fn bad_sends_are_refused_and_the_channel_lives() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let long = Send {
        body: vec![0; BODY_MAX_BYTES + 1].into(),
        ..text("bob", "")
    };
    let others = Send {
        target: Some(Target::ConversationId("p:3:bob:carol".into())),
        ..text("bob", "")
    };
    let nowhere = Send {
        target: None,
        ..text("bob", "")
    };
    let old = Send {
        client_msg_id: vec![0x01, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0].into(),
        ..text("bob", "")
    };
    let nameless = Send {
        client_msg_id: vec![1, 2, 3].into(),
        ..text("bob", "")
    };
    let cases = [
        (long, ErrorCode::TooLarge),
        (others, ErrorCode::NotAMember),
        (nowhere, ErrorCode::BadRequest),
        (old, ErrorCode::Expired),
        (nameless, ErrorCode::BadRequest),
        (text("alice", "to myself"), ErrorCode::BadRequest),
        (text("", "to nobody"), ErrorCode::BadRequest),
        (text(&"x".repeat(65), "to nobody"), ErrorCode::BadRequest),
    ];
    for (id, (send, code)) in (10..).zip(cases) {
        let client_msg_id = send.client_msg_id.clone();
        alice.send(id, Body::Send(send)).await;
        let (answered, error) = alice.expect_error(code).await;
        assert_eq!((answered, error.client_msg_id), (id, client_msg_id));
    }
    assert!(rig.services.seen().await.origins.is_empty());
    alice.send(99, Body::Send(text("bob", "still here"))).await;
    assert!(matches!(alice.answer(99).await, Body::SendAck(_)));

    let over_the_cap = Send {
        body: vec![0; 66_000].into(),
        ..text("bob", "")
    };
    alice.send(100, Body::Send(over_the_cap)).await;
    alice.expect_error(ErrorCode::TooLarge).await;
    alice.expect_end().await;
}

#[tokio::test]
async fn noise_harms_only_its_own_connection() {
    let rig = Rig::start().await;
    let mut bystander = rig.login("bystander").await;
    for round in 0..100_usize {
        let noise: Vec<u8> = (0..round * 37).map(|_| rand::random()).collect();
        let mut socket = TcpStream::connect(if round % 2 == 0 { rig.tcp } else { rig.ws })
            .await
            .unwrap();
        // It may be closed before all is written.
        let _ = socket.write_all(&noise).await;
        expect_working(&mut bystander, 100 + round as u64).await;
    }
}
