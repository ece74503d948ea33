//! The gateway in the directory: it is forgotten, its places are taken.

use std::{sync::atomic::Ordering, time::Duration};

use sluice_bus::{Bind, BindOutcome, DevicePolicy, Directory, Route};
use sluice_protocol::{
    ConnectionId, DeviceId, Incarnation, UserId,
    envelope::{SessionOpened, delivery},
    packet::{CloseReason, Connect, packet::Body},
};

use crate::{
    client::connect,
    rig::{Rig, config, eventually},
};

#[tokio::test]
async fn what_the_directory_forgot_is_said_again() {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    config.directory.reassert_interval_ms = 200;
    let rig = Rig::start_with(config).await;
    let _alice = rig.login("alice").await;
    // As after a failover that forgot this gateway.
    rig.directory.release(rig.incarnation).await.unwrap();
    assert!(rig.services.routes("alice").await.is_empty());
    eventually("bound again", async || {
        rig.services.routes("alice").await.len() == 1
    })
    .await;
    assert_eq!(rig.directory.gateways().await.unwrap(), [rig.incarnation]);
}

#[tokio::test]
async fn who_was_replaced_meanwhile_is_kicked_in_the_sweep() {
    let mut config = config();
    config.directory.lease_ttl_ms = 10_000;
    config.directory.reassert_interval_ms = 200;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    let elsewhere = Incarnation(77_777);
    let ttl = Duration::from_secs(60);
    rig.directory.lease(elsewhere, ttl).await.unwrap();
    let connection = ConnectionId {
        incarnation: elsewhere,
        event_loop: 0,
        slot: 0,
        generation: 0,
    };
    let newer = Bind {
        user: UserId::parse("alice").unwrap(),
        route: Route {
            device: DeviceId::parse("phone").unwrap(),
            platform: 0,
            connection,
        },
        login: 1_000,
    };
    // The kick that should have followed was lost.
    let bound = rig.directory.bind(newer, DevicePolicy::EachDevice, 8).await;
    bound.unwrap();
    let Some(Body::Kick(kick)) = alice.recv().await.unwrap().body else {
        panic!("no kick");
    };
    assert_eq!(kick.reason(), CloseReason::Replaced);
    alice.expect_end().await;
    let routes = rig.services.routes("alice").await;
    assert_eq!(routes[0].connection, connection);
}

#[tokio::test]
async fn a_route_of_a_connection_that_is_over_goes_when_it_is_used() {
    let rig = Rig::start().await;
    let alice = rig.login("alice").await;
    let route = rig.services.routes("alice").await.remove(0);
    drop(alice);
    let gone = async || rig.services.routes("alice").await.is_empty();
    eventually("unbound", gone).await;
    // Its login was worked on twice, or its unbind was given up.
    let bind_again = async |login| {
        let bind = Bind {
            user: UserId::parse("alice").unwrap(),
            route: route.clone(),
            login,
        };
        let bound = rig.directory.bind(bind, DevicePolicy::EachDevice, 8).await;
        assert_eq!(bound, Ok(BindOutcome::Bound { replaced: vec![] }));
        assert!(!gone().await);
    };
    bind_again(1_000).await;
    rig.services.push("alice", b"hello?").await;
    eventually("unbound by a push", gone).await;
    bind_again(1_001).await;
    let opened = delivery::Body::SessionOpened(SessionOpened::default());
    let connection = route.connection;
    rig.services.deliver(connection, "alice", opened).await;
    eventually("unbound by the answer to its login", gone).await;
    // Nobody else's is touched.
    let _alice = rig.login("alice").await;
    let stays = rig.services.routes("alice").await;
    let opened = delivery::Body::SessionOpened(SessionOpened::default());
    rig.services.deliver(connection, "alice", opened).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.services.routes("alice").await, stays);
}

#[tokio::test]
async fn a_directory_that_was_away_and_comes_back_empty_is_told_at_once() {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    config.directory.reassert_interval_ms = 3_600_000;
    let rig = Rig::start_with(config).await;
    let _alice = rig.login("alice").await;
    rig.way.away.store(true, Ordering::Relaxed);
    eventually("calls to fail", async || {
        rig.way.failures.load(Ordering::Relaxed) > 2
    })
    .await;
    rig.directory.release(rig.incarnation).await.unwrap();
    assert!(rig.services.routes("alice").await.is_empty());
    rig.way.away.store(false, Ordering::Relaxed);
    eventually("bound again", async || {
        rig.services.routes("alice").await.len() == 1
    })
    .await;
}

#[tokio::test]
async fn after_a_lapse_clients_are_told_to_check() {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    config.directory.reassert_interval_ms = 3_600_000;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    rig.way.away.store(true, Ordering::Relaxed);
    eventually("the lease to lapse", async || {
        rig.directory.gateways().await.unwrap().is_empty()
    })
    .await;
    rig.way.away.store(false, Ordering::Relaxed);
    let told = alice.recv().await.unwrap().body;
    assert!(matches!(told, Some(Body::Resync(_))), "{told:?}");
    assert_eq!(rig.services.routes("alice").await.len(), 1);
}

#[tokio::test]
async fn open_sessions_are_checked_in_a_slow_sweep() {
    let mut config = config();
    config.directory.session_check_interval_ms = 100;
    let rig = Rig::start_with(config).await;
    let _alice = rig.login("alice").await;
    let resuming = Connect {
        token: String::new(),
        resume_token: vec![7; 32].into(),
        ..connect("bob", "phone")
    };
    let mut bob = rig.connect().await;
    bob.send(1, Body::Connect(resuming)).await;
    assert!(matches!(bob.answer(1).await, Body::ConnectAck(_)));
    for user in ["alice", "bob"] {
        let route = rig.services.routes(user).await.remove(0);
        eventually("a check", async || {
            let checked = rig.services.seen().await.checked;
            checked.iter().any(|session| {
                // The epoch is the token's, or what the service said.
                session.user_id == user
                    && session.connection_id == route.connection.to_bytes().as_slice()
                    && session.token_epoch == 1
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_gap_has_all_sessions_checked_at_once() {
    let mut config = config();
    config.directory.session_check_interval_ms = 3_600_000;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    assert!(rig.services.seen().await.checked.is_empty());
    // It may have been a kick.
    rig.services.lose_a_down_entry().await;
    rig.services.push("alice", b"after the gap").await;
    assert_eq!(alice.push().await.number, 1);
    eventually("a check", async || {
        rig.services.seen().await.checked.len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_slow_sweep_does_not_cost_the_lease() {
    let mut config = config();
    config.directory.lease_ttl_ms = 600;
    config.directory.reassert_interval_ms = 50;
    let rig = Rig::start_with(config).await;
    let _alice = rig.login("alice").await;
    rig.way.reassert_ms.store(2_000, Ordering::Relaxed);
    let before = rig.way.reasserts.load(Ordering::Relaxed);
    eventually("a sweep", async || {
        let lives = rig.directory.gateways().await.unwrap();
        assert_eq!(lives, [rig.incarnation]);
        rig.way.reasserts.load(Ordering::Relaxed) > before + 2
    })
    .await;
}

#[tokio::test]
async fn a_gateway_whose_id_another_has_ends() {
    let mut config = config();
    config.directory.lease_ttl_ms = 300;
    let rig = Rig::start_with(config).await;
    rig.way.taken.store(true, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(10), rig.gateway.ended())
        .await
        .unwrap();
}
