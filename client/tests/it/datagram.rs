//! Over UDP, and from one transport to another: nothing is lost, nothing told twice.

use std::time::{Duration, Instant};

use sluice_client::{
    Client, ContentType, ConversationId, DeviceId, DisconnectReason, Endpoint, Event, EventStream,
    LocalState, ServerPins, SessionConfig, Transport,
};
use sluice_relay::{DatagramRelay, FaultPlan};
use tokio::time::timeout;

use crate::{
    messages::{PATIENCE, next, next_entry, numbered, texts, until_caught_up, user},
    server::Server,
};

async fn relay(server: &Server, faults: &str, seed: u64) -> DatagramRelay {
    let plan: FaultPlan = faults.parse().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    DatagramRelay::start(any, server.udp.address, plan, seed)
        .await
        .unwrap()
}

fn behind(server: &Server, relay: &DatagramRelay) -> Endpoint {
    Endpoint {
        udp: Some(relay.local_addr()),
        ..server.endpoint()
    }
}

fn client(endpoint: &Endpoint, name: &str, transport: Transport) -> (Client, EventStream) {
    with_state(endpoint, name, transport, &LocalState::memory())
}

fn with_state(
    endpoint: &Endpoint,
    name: &str,
    transport: Transport,
    state: &LocalState,
) -> (Client, EventStream) {
    let config = SessionConfig {
        udp_retry_ms: 1_000,
        ..SessionConfig::default()
    };
    Client::builder(user(name), DeviceId::parse("phone").unwrap())
        .server(endpoint.clone())
        .config(config)
        .transport(transport)
        .token(name)
        .state(state.clone())
        .start()
        .unwrap()
}

/// Sends, and does something before each message; then all must have arrived once.
async fn talk(
    alice: &Client,
    alice_events: &mut EventStream,
    bob_events: &mut EventStream,
    count: usize,
    pause: Duration,
    mut before: impl AsyncFnMut(usize),
) {
    let mut pending = Vec::new();
    for (n, text) in numbered(count).into_iter().enumerate() {
        before(n).await;
        let send = alice.send(user("bob"), ContentType::Text, text).await;
        pending.push(send.unwrap());
        tokio::time::sleep(pause).await;
    }
    for (n, pending) in pending.into_iter().enumerate() {
        let receipt = timeout(PATIENCE, pending.acked()).await.unwrap().unwrap();
        assert_eq!(receipt.seq.0, n as u64 + 1);
    }
    assert_eq!(texts(alice_events, count).await, numbered(count));
    assert_eq!(texts(bob_events, count).await, numbered(count));
}

async fn until(events: &mut EventStream, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut passed = Vec::new();
    loop {
        let event = next(events).await;
        if wanted(&event) {
            return passed;
        }
        passed.push(event);
    }
}

#[tokio::test]
async fn a_bad_network_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let faults = "loss=0.2,delay_ms=15,jitter_ms=20,dup=0.05,reorder=0.1,corrupt=0.02,rebind_s=1";
    let relay = relay(&server, faults, 11).await;
    let endpoint = behind(&server, &relay);
    let (alice, mut alice_events) = client(&endpoint, "alice", Transport::Udp);
    let (bob, mut bob_events) = client(&endpoint, "bob", Transport::Udp);
    // One who says nothing at all is not found after a rebind before its next ping.
    let typist = tokio::spawn(async move {
        while bob.typing(user("alice")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    talk(
        &alice,
        &mut alice_events,
        &mut bob_events,
        300,
        Duration::from_millis(10),
        async |_| {},
    )
    .await;
    typist.abort();
    assert!(relay.stats().lost > 20 && server.udp.moves() > 1);
    assert!(server.with(|model| model.conns.len()) <= 2);
}

#[tokio::test]
async fn another_network_keeps_the_session() {
    let server = Server::start().await;
    let endpoint = server.endpoint();
    let (alice, mut alice_events) = client(&endpoint, "alice", Transport::Auto);
    let (_bob, mut bob_events) = client(&endpoint, "bob", Transport::Udp);
    until_caught_up(&mut alice_events).await;
    until_caught_up(&mut bob_events).await;
    let connects = server.with(|model| model.connects.len());
    for round in 1..=3 {
        alice.network_changed().await.unwrap();
        let send = alice.send(user("bob"), ContentType::Text, "still here");
        let receipt = timeout(PATIENCE, send.await.unwrap().acked()).await;
        assert_eq!(receipt.unwrap().unwrap().seq.0, round);
        // Nothing but the entries: no reconnect.
        assert!(matches!(next(&mut alice_events).await, Event::Entry { .. }));
        next_entry(&mut bob_events).await;
    }
    assert_eq!(server.udp.moves(), 3);
    assert_eq!(server.with(|model| model.connects.len()), connects);
}

#[tokio::test]
async fn a_listener_behind_a_forgetful_nat_is_found_again_soon() {
    let server = Server::start().await;
    let relay = relay(&server, "", 8).await;
    let endpoint = behind(&server, &relay);
    let (_alice, mut events) = client(&endpoint, "alice", Transport::Udp);
    until_caught_up(&mut events).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = ConversationId::private(&alice, &bob).unwrap();
    let say = |text: &str| server.with(|model| model.say(&conversation, "bob", text));
    say("here");
    assert_eq!(texts(&mut events, 1).await, ["here"]);
    let began = Instant::now();
    let until =
        async |ms| tokio::time::sleep_until((began + Duration::from_millis(ms)).into()).await;
    // Found by the ping after 2 s, so the next comes as soon.
    until(1_000).await;
    assert_eq!(relay.rebind_all(), 1);
    until(3_000).await;
    assert_eq!(relay.rebind_all(), 1);
    say("there");
    assert_eq!(texts(&mut events, 1).await, ["there"]);
    let waited = began.elapsed() - Duration::from_secs(3);
    assert!(waited < Duration::from_millis(2_000), "{waited:?}");
}

#[tokio::test]
async fn another_network_makes_a_stream_reconnect_at_once() {
    let server = Server::start().await;
    let (alice, mut events) = client(&server.endpoint(), "alice", Transport::Tcp);
    until_caught_up(&mut events).await;
    let since = Instant::now();
    alice.network_changed().await.unwrap();
    let lost = next(&mut events).await;
    let reason = DisconnectReason::NetworkChanged;
    let retry_in_ms = Some(0);
    assert_eq!(
        lost,
        Event::Disconnected {
            reason,
            retry_in_ms
        }
    );
    assert_eq!(next(&mut events).await, Event::Connected { resumed: true });
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn where_udp_is_blocked_a_stream_takes_over_and_udp_comes_back() {
    let server = Server::start().await;
    let relay = relay(&server, "", 1).await;
    relay.block();
    let (alice, mut events) = client(&behind(&server, &relay), "alice", Transport::Auto);
    let (_bob, mut bob_events) = client(&server.endpoint(), "bob", Transport::Tcp);
    let since = Instant::now();
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    assert!(since.elapsed() < Duration::from_secs(3));
    assert!(server.udp.answers() == 0);
    // Who blocks UDP doesn't get to read.
    let plain_is_bob = (1, 1);
    assert!([(0, 1), plain_is_bob].contains(&server.streams()));
    until_caught_up(&mut events).await;
    relay.unblock();
    let moved = |event: &Event| {
        let reason = DisconnectReason::Moved;
        matches!(event, Event::Disconnected { reason: it, .. } if *it == reason)
    };
    until(&mut events, moved).await;
    assert_eq!(next(&mut events).await, Event::Connected { resumed: true });
    assert!(server.udp.answers() > 0);
    talk(
        &alice,
        &mut events,
        &mut bob_events,
        20,
        Duration::ZERO,
        async |_| {},
    )
    .await;
}

#[tokio::test]
async fn a_silence_on_udp_moves_the_session_to_a_stream() {
    let server = Server::start().await;
    let relay = relay(&server, "delay_ms=5", 2).await;
    let endpoint = behind(&server, &relay);
    let (alice, mut alice_events) = client(&endpoint, "alice", Transport::Auto);
    let (_bob, mut bob_events) = client(&server.endpoint(), "bob", Transport::Tcp);
    until_caught_up(&mut alice_events).await;
    assert_eq!(relay.clients().len(), 1);
    let since = Instant::now();
    talk(
        &alice,
        &mut alice_events,
        &mut bob_events,
        40,
        Duration::from_millis(10),
        async |n| {
            if n == 20 {
                relay.block();
            }
        },
    )
    .await;
    assert!(since.elapsed() < Duration::from_secs(9));
    let tokens = server.with(|model| {
        let with_token =
            |it: &&sluice_protocol::packet::Connect| it.user_id == "alice" && !it.token.is_empty();
        model.connects.iter().filter(with_token).count()
    });
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_session_goes_from_transport_to_transport() {
    let server = Server::start().await;
    let relay = relay(&server, "loss=0.05,delay_ms=5", 3).await;
    let endpoint = behind(&server, &relay);
    let (alice, mut alice_events) = client(&endpoint, "alice", Transport::Auto);
    let (bob, mut bob_events) = client(&endpoint, "bob", Transport::Udp);
    until_caught_up(&mut alice_events).await;
    let all = [
        Transport::SealedTcp,
        Transport::Udp,
        Transport::WebSocket,
        Transport::Tcp,
    ];
    talk(
        &alice,
        &mut alice_events,
        &mut bob_events,
        240,
        Duration::from_millis(4),
        async |n| {
            if n % 40 == 20 {
                alice.go_by(all[n / 40 % 4]).await.unwrap();
                bob.go_by(all[(n / 40 + 1) % 4]).await.unwrap();
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_ticket_spares_the_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let endpoint = server.endpoint();
    for life in 0..3 {
        let state = LocalState::open(folder.path().join("state")).unwrap();
        let (alice, mut events) = with_state(&endpoint, "alice", Transport::Udp, &state);
        drop(state);
        until_caught_up(&mut events).await;
        drop(events);
        alice.disconnect(false).await;
        assert_eq!((server.udp.answers(), server.udp.tickets()), (1, life));
    }
}

#[tokio::test]
async fn a_server_that_forgot_is_asked_again() {
    let server = Server::start().await;
    let (alice, mut events) = client(&server.endpoint(), "alice", Transport::Udp);
    until_caught_up(&mut events).await;
    server.udp.forget();
    let send = alice.send(user("bob"), ContentType::Text, "hello?").await;
    let acked = timeout(PATIENCE, send.unwrap().acked()).await.unwrap();
    assert_eq!(acked.unwrap().seq.0, 1);
    let passed = until(&mut events, |it| matches!(it, Event::Entry { .. })).await;
    let resumed = Event::Connected { resumed: true };
    assert!(passed.contains(&resumed), "{passed:?}");
}

#[tokio::test]
async fn what_keeps_udp_from_working_is_named() {
    let server = Server::start().await;
    let pins: ServerPins = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        .parse()
        .unwrap();
    let wrong_key = Endpoint::udp(server.udp.address, pins.clone());
    let shut = Endpoint::udp("127.0.0.1:1".parse().unwrap(), pins);
    for (endpoint, told) in [(wrong_key, "another key"), (shut, "refused")] {
        let (_alice, mut events) = client(&endpoint, "alice", Transport::Udp);
        match next(&mut events).await {
            Event::Disconnected {
                reason: DisconnectReason::ConnectFailed(why),
                ..
            } => assert!(why.contains(told), "{why}"),
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_tells_the_server() {
    let server = Server::start().await;
    for logout in [false, true] {
        let (alice, mut events) = client(&server.endpoint(), "alice", Transport::Udp);
        until_caught_up(&mut events).await;
        assert_eq!(server.with(|model| model.conns.len()), 1);
        alice.disconnect(logout).await;
        timeout(PATIENCE, async {
            while server.with(|model| !model.conns.is_empty()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_port_that_is_shut_is_left_before_long() {
    let (dies, lives) = (Server::start().await, Server::start().await);
    let state = LocalState::memory();
    let (alice, mut events) = Client::builder(user("alice"), DeviceId::parse("phone").unwrap())
        .servers(vec![dies.endpoint(), lives.endpoint()])
        .transport(Transport::Udp)
        .token("alice")
        .state(state)
        .start()
        .unwrap();
    until_caught_up(&mut events).await;
    drop(dies);
    let since = Instant::now();
    let send = alice.send(user("bob"), ContentType::Text, "anybody?").await;
    let acked = timeout(PATIENCE, send.unwrap().acked()).await.unwrap();
    assert_eq!(acked.unwrap().seq.0, 1);
    assert!(since.elapsed() < Duration::from_secs(9));
}
