//! Connecting, tokens, transports, the local state's owner, and the end.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use sluice_client::{
    Client, ContentType, ConversationId, DeviceId, DisconnectReason, Ended, Endpoint, Event,
    LocalState, StartError, StateError, TokenError, TokenSource, Transport,
};
use tokio::time::timeout;

use crate::{
    messages::{PATIENCE, next, numbered, start, texts, until_caught_up, user},
    server::Server,
};

fn phone() -> DeviceId {
    DeviceId::parse("phone").unwrap()
}

#[tokio::test]
async fn auto_goes_by_websocket_when_tcp_is_shut() {
    let server = Server::start().await;
    let endpoint = Endpoint {
        // Nobody listens there.
        tcp: Some("127.0.0.1:1".parse().unwrap()),
        udp: None,
        ..server.endpoint()
    };
    let (_alice, mut events) = Client::builder(user("alice"), phone())
        .server(endpoint)
        .token("alice")
        .start()
        .unwrap();
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
}

#[tokio::test]
async fn a_token_source_is_asked_again_when_its_token_is_refused() {
    let server = Server::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let source = TokenSource::from_fn(move || {
        let times = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            match times {
                0 => Err(TokenError("no network".to_owned())),
                1 => Ok("expired".to_owned()),
                _ => Ok("alice".to_owned()),
            }
        }
    });
    let (_alice, mut events) = Client::builder(user("alice"), phone())
        .server(server.endpoint())
        .token(source)
        .start()
        .unwrap();
    let mut reasons = Vec::new();
    loop {
        match next(&mut events).await {
            Event::Disconnected { reason, .. } => reasons.push(reason),
            Event::Connected { .. } => break,
            event => panic!("{event:?}"),
        }
    }
    assert!(matches!(
        &reasons[..],
        [
            DisconnectReason::NoToken(_),
            DisconnectReason::LoginRefused(_)
        ]
    ));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn ephemeral_messages_arrive_without_a_trace() {
    let server = Server::start().await;
    let (alice, mut alice_events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    let (_bob, mut bob_events) = start(&server, "bob", Transport::WebSocket, &LocalState::memory());
    until_caught_up(&mut alice_events).await;
    until_caught_up(&mut bob_events).await;
    let sent = alice.send_ephemeral(user("bob"), ContentType::Custom, "wave");
    sent.await.unwrap();
    match next(&mut bob_events).await {
        Event::Ephemeral { sender, body, .. } => {
            assert_eq!((sender, &body[..]), (user("alice"), &b"wave"[..]));
        }
        event => panic!("{event:?}"),
    }
    assert!(server.with(|model| model.logs.is_empty()));
}

#[tokio::test]
async fn a_state_belongs_to_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    for state in [
        LocalState::memory(),
        LocalState::open(folder.path().join("state")).unwrap(),
    ] {
        let (alice, events) = start(&server, "alice", Transport::Tcp, &state);
        drop(events);
        alice.disconnect(false).await;
        let other = Client::builder(user("bob"), phone())
            .server(server.endpoint())
            .token("bob")
            .state(state)
            .start();
        assert!(matches!(
            other,
            Err(StartError::State(StateError::Foreign { .. }))
        ));
    }
    let nowhere = Client::builder(user("bob"), phone()).token("bob").start();
    assert!(matches!(nowhere, Err(StartError::NoAddress)));
}

#[tokio::test]
async fn what_nobody_takes_stays_on_the_server_and_sends_go_on() {
    let server = Server::start().await;
    let pair = ConversationId::private(&user("alice"), &user("bob")).unwrap();
    for text in numbered(2_000) {
        server.with(|model| model.say(&pair, "bob", &text));
    }
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    let sent = alice
        .send(user("bob"), ContentType::Text, "still here")
        .await;
    let receipt = timeout(PATIENCE, sent.unwrap().acked()).await.unwrap();
    assert_eq!(receipt.unwrap().seq.0, 2_001);
    let mut expected = numbered(2_000);
    expected.push("still here".to_owned());
    assert_eq!(texts(&mut events, 2_001).await, expected);
}

#[tokio::test]
async fn a_client_whose_handles_are_dropped_leaves() {
    let server = Server::start().await;
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut events).await;
    assert_eq!(server.with(|model| model.conns.len()), 1);
    drop((alice, events));
    timeout(PATIENCE, async {
        while server.with(|model| !model.conns.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_file_is_free_when_the_disconnect_returns() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    for _ in 0..5 {
        let state = LocalState::open(folder.path().join("state")).unwrap();
        let (alice, mut events) = start(&server, "alice", Transport::Tcp, &state);
        drop(state);
        let pending = alice.send(user("bob"), ContentType::Text, "again").await;
        let pending = pending.unwrap();
        next(&mut events).await;
        drop(events);
        alice.disconnect(false).await;
        assert_eq!(alice.ended(), Some(Ended::Disconnected));
        // Its outcome is known, or that it isn't.
        let _ = timeout(PATIENCE, pending.acked()).await.unwrap();
    }
}
