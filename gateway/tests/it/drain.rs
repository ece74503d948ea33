//! Leaving in good order, and at once.

use std::time::Duration;

use sluice_bus::Directory;
use sluice_protocol::packet::{CloseReason, packet::Body};
use tokio::net::TcpStream;

use crate::{
    client::{Client, text},
    rig::{Rig, config, eventually},
};

#[tokio::test]
async fn draining_says_so_finishes_and_hands_the_lease_back() {
    let mut config = config();
    config.drain.grace_ms = 3_000;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    let mut silent = rig.connect().await;
    let Rig {
        gateway,
        directory,
        services,
        tcp,
        ..
    } = rig;
    // One message is under way and stays so for a while.
    services.pause(true);
    alice.send(10, Body::Send(text("bob", "last words"))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let drained = tokio::spawn(gateway.drain());

    let Some(Body::GoAway(go_away)) = alice.recv().await.unwrap().body else {
        panic!("no GoAway");
    };
    assert_eq!(go_away.reason(), CloseReason::GoingAway);
    assert!(go_away.reconnect_delay_max_ms > 0);
    silent.expect_go_away(CloseReason::GoingAway).await;
    // Each loop closes its listener in a turn of its own.
    eventually("closed ports", async || {
        TcpStream::connect(tcp).await.is_err()
    })
    .await;
    services.pause(false);
    assert!(matches!(alice.answer(10).await, Body::SendAck(_)));
    alice.expect_go_away(CloseReason::GoingAway).await;

    let done = tokio::time::timeout(Duration::from_secs(10), drained).await;
    done.expect("the drain did not end").unwrap();
    assert!(services.routes("alice").await.is_empty());
    assert!(directory.gateways().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_gateway_ends_at_once() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    drop(rig.gateway);
    alice.expect_go_away(CloseReason::GoingAway).await;
    let tcp = rig.tcp;
    eventually("closed ports", async || {
        TcpStream::connect(tcp).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_second_gateway_does_not_share_the_port_in_silence() {
    use sluice_bus::{MemoryBus, MemoryBusConfig};
    use sluice_gateway::{Gateway, GatewayParts, StartError, TokenVerifier};
    let rig = Rig::start().await;
    let mut other = config();
    other.tcp_address = Some(rig.tcp);
    let started = Gateway::start(GatewayParts {
        config: other,
        keys: TokenVerifier::from_pem([include_str!("../keys/public.pem")]).unwrap(),
        datagram_keys: None,
        bus: MemoryBus::new(MemoryBusConfig::default()),
        directory: rig.directory.clone(),
        incarnation: sluice_protocol::Incarnation(9_999),
        partitions: 4,
        tracer: sluice_trace::Tracer::new(),
        shutdown: tokio_util::sync::CancellationToken::new(),
    })
    .await;
    assert!(matches!(started, Err(StartError::Listen { .. })));
    Client::connect(rig.tcp).await.login("alice", "phone").await;
}
