//! The gateway in the directory: it is forgotten, its places are taken.

use std::time::Duration;

use sluice_bus::{Bind, DevicePolicy, Directory, Route};
use sluice_protocol::{
    ConnectionId, DeviceId, Incarnation, UserId,
    packet::{CloseReason, packet::Body},
};

use crate::rig::{Rig, config, eventually};

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
    config.directory.lease_ttl_ms = 150;
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
