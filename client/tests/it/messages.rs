//! Messages between clients: sent, stored, received in order, over all transports.

use std::time::Duration;

use sluice_client::{
    CallError, Client, ContentType, ConversationId, DeviceId, Ended, Entry, Event, EventStream,
    LocalState, SendError, Target, Transport, UserId,
};
use sluice_protocol::packet::{self, packet::Body};
use tokio::time::timeout;

use crate::server::Server;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn start(
    server: &Server,
    name: &str,
    transport: Transport,
    state: &LocalState,
) -> (Client, EventStream) {
    Client::builder(user(name), DeviceId::parse("phone").unwrap())
        .server(server.endpoint())
        .transport(transport)
        .token(name)
        .state(state.clone())
        .start()
        .unwrap()
}

pub(crate) async fn next(events: &mut EventStream) -> Event {
    timeout(PATIENCE, events.next()).await.unwrap().unwrap()
}

pub(crate) async fn next_entry(events: &mut EventStream) -> (Entry, bool) {
    loop {
        if let Event::Entry { entry, own } = next(events).await {
            return (entry, own);
        }
    }
}

pub(crate) async fn texts(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(next_entry(events).await.0.text().unwrap().to_owned());
    }
    texts
}

pub(crate) async fn until_caught_up(events: &mut EventStream) {
    while next(events).await != Event::CaughtUp {}
}

pub(crate) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("message {n}")).collect()
}

async fn a_conversation(transport: Transport) {
    let server = Server::start().await;
    let (alice, mut alice_events) = start(&server, "alice", transport, &LocalState::memory());
    let (bob, mut bob_events) = start(&server, "bob", transport, &LocalState::memory());
    until_caught_up(&mut bob_events).await;
    let mut pending = Vec::new();
    for text in numbered(100) {
        let send = alice.send(user("bob"), ContentType::Text, text).await;
        pending.push(send.unwrap());
    }
    for (n, pending) in pending.into_iter().enumerate() {
        let id = pending.client_msg_id();
        let receipt = timeout(PATIENCE, pending.acked()).await.unwrap().unwrap();
        assert_eq!(receipt.seq.0, n as u64 + 1);
        let (entry, own) = next_entry(&mut bob_events).await;
        assert_eq!(
            (entry.seq, entry.client_msg_id, own),
            (receipt.seq, Some(id), false)
        );
    }
    assert_eq!(texts(&mut alice_events, 100).await, numbered(100));
    let reply = bob.send(user("alice"), ContentType::Text, "and?").await;
    reply.unwrap().acked().await.unwrap();
    let (entry, own) = next_entry(&mut alice_events).await;
    assert_eq!((entry.text(), own), (Some("and?"), false));
    let (entry, own) = next_entry(&mut bob_events).await;
    assert_eq!((entry.text(), own), (Some("and?"), true));
    alice.disconnect(false).await;
    while let Some(event) = timeout(PATIENCE, alice_events.next()).await.unwrap() {
        assert!(!matches!(event, Event::Entry { .. }), "{event:?}");
    }
    assert_eq!(alice.ended(), Some(Ended::Disconnected));
    let refused = alice.send(user("bob"), ContentType::Text, "late").await;
    assert_eq!(refused.unwrap_err(), SendError::Ended(Ended::Disconnected));
}

#[tokio::test]
async fn a_conversation_over_tcp() {
    a_conversation(Transport::Tcp).await;
}

#[tokio::test]
async fn a_conversation_over_encrypted_tcp() {
    a_conversation(Transport::SealedTcp).await;
}

#[tokio::test]
async fn a_conversation_over_udp() {
    a_conversation(Transport::Udp).await;
}

#[tokio::test]
async fn a_conversation_over_websocket() {
    a_conversation(Transport::WebSocket).await;
}

#[tokio::test]
async fn all_pushes_are_acked() {
    let server = Server::start().await;
    let (_alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut events).await;
    let pair = ConversationId::private(&user("alice"), &user("bob")).unwrap();
    for text in numbered(70) {
        server.with(|model| model.say(&pair, "bob", &text));
    }
    assert_eq!(texts(&mut events, 70).await, numbered(70));
    timeout(PATIENCE, async {
        while server.with(|model| model.push_acks.last().is_none_or(|it| it.1.cumulative < 70)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn cuts_lose_and_double_nothing() {
    let server = Server::start().await;
    let (alice, mut alice_events) = start(&server, "alice", Transport::Auto, &LocalState::memory());
    let (_bob, mut bob_events) = start(&server, "bob", Transport::Auto, &LocalState::memory());
    let mut pending = Vec::new();
    for (n, text) in numbered(200).into_iter().enumerate() {
        if n % 40 == 20 {
            alice.cut().await.unwrap();
        }
        if n % 50 == 30 {
            server.drop_connections();
        }
        let send = alice.send(user("bob"), ContentType::Text, text).await;
        pending.push(send.unwrap());
        tokio::task::yield_now().await;
    }
    for (n, pending) in pending.into_iter().enumerate() {
        let receipt = timeout(PATIENCE, pending.acked()).await.unwrap().unwrap();
        assert_eq!(receipt.seq.0, n as u64 + 1);
    }
    assert_eq!(texts(&mut alice_events, 200).await, numbered(200));
    assert_eq!(texts(&mut bob_events, 200).await, numbered(200));
}

#[tokio::test]
async fn a_kick_is_final() {
    let server = Server::start().await;
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut events).await;
    server.with(|model| {
        let kick = packet::Kick {
            reason: packet::CloseReason::Replaced.into(),
            message: String::new(),
        };
        model.push_to(1, Body::Kick(kick));
    });
    let reason = packet::CloseReason::Replaced;
    assert_eq!(next(&mut events).await, Event::Kicked { reason });
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
    assert_eq!(alice.ended(), Some(Ended::Kicked(reason)));
}

#[tokio::test]
async fn a_restarted_client_goes_on_where_the_application_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let pair = ConversationId::private(&user("alice"), &user("bob")).unwrap();
    for text in numbered(10) {
        server.with(|model| model.say(&pair, "bob", &text));
    }
    {
        let state = LocalState::open(folder.path().join("state")).unwrap();
        let (alice, mut events) = start(&server, "alice", Transport::Tcp, &state);
        assert_eq!(texts(&mut events, 4).await, numbered(4));
        timeout(PATIENCE, events.commit()).await.unwrap().unwrap();
        // Taken, but not committed: it will come again.
        assert_eq!(texts(&mut events, 1).await, ["message 4"]);
        drop(events);
        alice.disconnect(false).await;
    }
    {
        let state = LocalState::open(folder.path().join("state")).unwrap();
        let (alice, mut events) = start(&server, "alice", Transport::Tcp, &state);
        assert_eq!(next(&mut events).await, Event::Connected { resumed: true });
        assert_eq!(texts(&mut events, 6).await, numbered(10)[4..]);
        timeout(PATIENCE, events.commit()).await.unwrap().unwrap();
        alice.disconnect(false).await;
    }
    let state = LocalState::open(folder.path().join("state")).unwrap();
    let (_alice, mut events) = start(&server, "alice", Transport::Tcp, &state);
    loop {
        match next(&mut events).await {
            Event::CaughtUp => break,
            Event::Entry { entry, .. } => panic!("told again: {entry:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn unacked_sends_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let server = Server::start().await;
    {
        let state = LocalState::open(&path).unwrap();
        // Nobody listens on port 1.
        let (alice, events) = Client::builder(user("alice"), DeviceId::parse("phone").unwrap())
            .server(sluice_client::Endpoint::tcp("127.0.0.1:1".parse().unwrap()))
            .token("alice")
            .state(state)
            .start()
            .unwrap();
        for text in numbered(3) {
            alice
                .send(user("bob"), ContentType::Text, text)
                .await
                .unwrap();
        }
        alice.disconnect(false).await;
        drop(events);
    }
    let state = LocalState::open(&path).unwrap();
    let (_alice, mut events) = start(&server, "alice", Transport::WebSocket, &state);
    assert_eq!(texts(&mut events, 3).await, numbered(3));
}

#[tokio::test]
async fn groups_are_found_and_followed() {
    let server = Server::start().await;
    let group = server.with(|model| model.create_group(7, &["alice", "bob"]));
    for text in numbered(5) {
        server.with(|model| model.say(&group, "bob", &text));
    }
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    assert_eq!(next_entry(&mut events).await.0.seq.0, 1);
    assert_eq!(texts(&mut events, 5).await, numbered(5));
    until_caught_up(&mut events).await;
    server.with(|model| model.notices_are_bare = true);
    for text in numbered(5) {
        server.with(|model| model.say(&group, "bob", &text));
    }
    assert_eq!(texts(&mut events, 5).await, numbered(5));
    let target = Target::Conversation(group.clone());
    let send = alice.send(target, ContentType::Text, "me too").await;
    let receipt = send.unwrap().acked().await.unwrap();
    assert_eq!((receipt.seq.0, receipt.user_seq.0), (12, 0));
    assert_eq!(texts(&mut events, 1).await, ["me too"]);
    // One who joins later starts where she may.
    let (_carol, mut carol_events) = start(&server, "carol", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut carol_events).await;
    server.with(|model| model.join(&group, "carol"));
    assert_eq!(next_entry(&mut carol_events).await.0.seq.0, 13);
    let history = alice.history(&group, None, 3).await.unwrap();
    let seqs: Vec<_> = history.entries.iter().map(|it| it.seq.0).collect();
    assert_eq!((seqs, history.more), (vec![11, 12, 13], true));
}

/// The gateway says that the backend hasn't answered when the time is up, and not
/// before; that this comes too late for the client would be worse than no word.
#[tokio::test]
async fn the_gateways_word_on_a_timeout_is_waited_for() {
    let server = Server::start().await;
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut events).await;
    let span = Duration::from_millis(200);
    let request = tokio::spawn(async move { alice.request("silent", "", "", span).await });
    tokio::time::sleep(3 * span).await;
    let timed_out = packet::Error {
        code: packet::ErrorCode::Timeout.into(),
        ..packet::Error::default()
    };
    server.with(|model| {
        let (conn, id) = model.unanswered.pop().unwrap();
        model.answer(conn, id, Body::Error(timed_out));
    });
    match request.await.unwrap() {
        Err(CallError::Refused(refusal)) => {
            assert_eq!(refusal.code, packet::ErrorCode::Timeout);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn questions_are_answered_and_bad_tokens_final() {
    let server = Server::start().await;
    let (alice, mut events) = start(&server, "alice", Transport::Tcp, &LocalState::memory());
    until_caught_up(&mut events).await;
    let answer = alice
        .request("echo", "key", "payload", Duration::from_secs(5))
        .await;
    assert_eq!(answer.unwrap().payload, "payload");
    let sent = alice.send(user("bob"), ContentType::Text, "oops").await;
    let receipt = sent.unwrap().acked().await.unwrap();
    let recalled = alice.recall(&receipt.conversation, receipt.seq).await;
    assert_eq!(recalled.unwrap().seq.0, 2);
    assert_eq!(next_entry(&mut events).await.0.text(), Some("oops"));
    let (entry, own) = next_entry(&mut events).await;
    let content = sluice_client::Content::Recall { seq: receipt.seq };
    assert_eq!((entry.content, own), (content, true));

    let (eve, mut eve_events) = Client::builder(user("eve"), DeviceId::parse("d").unwrap())
        .server(server.endpoint())
        .token("stolen")
        .start()
        .unwrap();
    assert!(matches!(
        next(&mut eve_events).await,
        Event::LoginRefused { .. }
    ));
    assert!(matches!(eve.ended(), Some(Ended::LoginRefused(_))));
}
