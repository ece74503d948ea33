//! Encrypted TCP: only with the server whose key is pinned, through bad networks too.

use std::time::Duration;

use sluice_client::{
    Client, ContentType, DeviceId, DisconnectReason, Endpoint, Event, EventStream, ServerPins,
    Transport,
};
use sluice_codec::datagram::ServerKey;
use sluice_protocol::packet::{CloseReason, Error, ErrorCode, GoAway, Packet, packet::Body};
use sluice_relay::{FaultPlan, Relay};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::{
    messages::{PATIENCE, next, numbered, texts, until_caught_up, user},
    server::Server,
};

fn client(endpoint: Endpoint, name: &str) -> (Client, EventStream) {
    Client::builder(user(name), DeviceId::parse("phone").unwrap())
        .server(endpoint)
        .transport(Transport::SealedTcp)
        .token(name)
        .start()
        .unwrap()
}

fn foreign() -> ServerPins {
    ServerKey::from_secret([5; 32]).pin().into()
}

/// Why the first connection failed.
async fn refusal(events: &mut EventStream) -> String {
    match next(events).await {
        Event::Disconnected {
            reason: DisconnectReason::ConnectFailed(why),
            retry_in_ms: Some(_),
        } => why,
        other => panic!("not a failed connection: {other:?}"),
    }
}

#[tokio::test]
async fn a_server_with_another_key_gets_no_login() {
    let server = Server::start().await;
    let tcp = server.endpoint().tcp.unwrap();
    let (_alice, mut events) = client(Endpoint::sealed_tcp(tcp, foreign()), "alice");
    assert!(refusal(&mut events).await.contains("another key"));
    assert_eq!(server.streams(), (0, 0));
}

#[tokio::test]
async fn any_of_the_pinned_keys_will_do() {
    let server = Server::start().await;
    let endpoint = server.endpoint();
    let both = format!("{},{}", foreign(), endpoint.pins.unwrap());
    let pinned = Endpoint::sealed_tcp(endpoint.tcp.unwrap(), both.parse().unwrap());
    let (_alice, mut events) = client(pinned, "alice");
    until_caught_up(&mut events).await;
    assert_eq!(server.streams(), (0, 1));
}

#[tokio::test]
async fn a_bad_network_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let endpoint = server.endpoint();
    let faults: FaultPlan = "delay_ms=10,jitter_ms=10,reset_s=1,stall_s=1"
        .parse()
        .unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let relay = Relay::start(any, endpoint.tcp.unwrap(), faults, 5)
        .await
        .unwrap();
    let behind = Endpoint::sealed_tcp(relay.local_addr(), endpoint.pins.unwrap());
    let (alice, mut alice_events) = client(behind.clone(), "alice");
    let (_bob, mut bob_events) = client(behind, "bob");
    let mut pending = Vec::new();
    for text in numbered(300) {
        let send = alice.send(user("bob"), ContentType::Text, text).await;
        pending.push(send.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for pending in pending {
        timeout(PATIENCE, pending.acked()).await.unwrap().unwrap();
    }
    assert_eq!(texts(&mut alice_events, 300).await, numbered(300));
    assert_eq!(texts(&mut bob_events, 300).await, numbered(300));
    let (plain, sealed) = server.streams();
    assert!(plain == 0 && sealed > 2, "{plain} {sealed}");
}

#[tokio::test]
async fn what_a_server_says_in_the_clear_is_told_and_gets_no_login() {
    let full = Body::GoAway(GoAway {
        reason: CloseReason::Overloaded.into(),
        ..GoAway::default()
    });
    let plain_only = Body::Error(Error {
        code: ErrorCode::BadFrame.into(),
        reason: "a reason that is longer than the answer to an opening would be".into(),
        ..Error::default()
    });
    let kick = Body::Kick(Default::default());
    for (body, expected) in [
        (full, "OVERLOADED"),
        (plain_only, "does not take encrypted"),
        (kick, "does not take encrypted"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let (_alice, mut events) = client(Endpoint::sealed_tcp(tcp, foreign()), "alice");
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        let packet = Packet {
            id: 0,
            body: Some(body),
        };
        let mut frame = bytes::BytesMut::new();
        let framing = sluice_codec::Framing::Tcp;
        framing.append_packet(&packet, 4096, &mut frame).unwrap();
        stream.write_all(&frame).await.unwrap();
        stream.shutdown().await.unwrap();
        let why = refusal(&mut events).await;
        assert!(why.contains(expected), "{why}");
        stream.read_to_end(&mut said).await.unwrap();
        // The opening, and nothing else.
        assert_eq!(said.len(), 56);
    }
}
