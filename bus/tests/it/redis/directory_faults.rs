//! `RedisDirectory` when Redis forgets, dies, stands still or comes back.

use std::time::Duration;

use sluice_bus::{BusError, Directory, RedisConfig, RedisMode};
use sluice_engines::{Redis, RedisCluster, RedisSettings};

use super::{
    corner_of,
    directory::{
        EACH, GATEWAY, OTHER_GATEWAY, TTL, bound, login, open, raw, route, routes, unbind, user,
    },
};
use crate::contract::{eventually, soon};

fn config_of(server: &Redis) -> RedisConfig {
    let mut config = corner_of(vec![server.url()], RedisMode::Single);
    config.response_timeout_ms = 500;
    config
}

/// A server that has on disk whatever it has answered.
async fn durable() -> Redis {
    let settings = RedisSettings {
        aof: true,
        arguments: ["--appendfsync", "always"].map(String::from).into(),
        ..RedisSettings::default()
    };
    Redis::with(settings).await.unwrap()
}

#[tokio::test]
async fn what_a_flush_forgot_is_said_again() {
    let server = Redis::start().await.unwrap();
    let config = config_of(&server);
    let directory = open(&config);
    directory.lease(GATEWAY, TTL).await.unwrap();
    let phone = route(GATEWAY, 1, "phone");
    let binds = vec![login("ann", 1, &phone), login("bob", 2, &phone)];
    for bind in &binds {
        assert_eq!(directory.bind(bind.clone(), EACH, 8).await, bound());
    }
    let mut raw = raw(&config).await;
    redis::cmd("FLUSHALL").exec_async(&mut raw).await.unwrap();
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec_async(&mut raw)
        .await
        .unwrap();
    assert_eq!(directory.gateways().await, Ok(vec![]));
    assert_eq!(routes(&directory, "ann").await, []);
    let lapsed = directory.lease(GATEWAY, TTL).await;
    assert!(matches!(lapsed, Err(BusError::LeaseLost(_))), "{lapsed:?}");
    assert_eq!(directory.reassert(binds).await, Ok(vec![]));
    for name in ["ann", "bob"] {
        eventually("the route", async || {
            routes(&directory, name).await == [phone.clone()]
        })
        .await;
    }
    let late = route(GATEWAY, 7, "phone");
    assert!(!unbind(&directory, "ann", &late).await);
    assert_eq!(routes(&directory, "ann").await, [phone]);
}

#[tokio::test]
async fn a_killed_server_fails_calls_and_comes_back_with_its_routes() {
    let mut server = durable().await;
    let directory = open(&config_of(&server));
    directory.lease(GATEWAY, TTL).await.unwrap();
    let phone = route(GATEWAY, 1, "phone");
    assert_eq!(
        directory.bind(login("ann", 1, &phone), EACH, 8).await,
        bound()
    );
    server.kill().unwrap();
    for _ in 0..3 {
        let failed = soon("an error", directory.lookup(&[user("ann")])).await;
        let failed = failed.unwrap_err();
        assert!(
            matches!(failed, BusError::Unavailable(_) | BusError::Unknown(_)),
            "{failed}"
        );
        let late = soon("an error", directory.lease(GATEWAY, TTL)).await;
        assert!(matches!(late, Err(BusError::Unavailable(_))), "{late:?}");
    }
    server.restart().await.unwrap();
    eventually("the directory", async || {
        directory.lease(GATEWAY, TTL).await == Ok(())
    })
    .await;
    assert_eq!(routes(&directory, "ann").await, [phone]);
}

#[tokio::test]
async fn a_server_that_stands_still_costs_no_more_than_the_deadline() {
    let server = Redis::start().await.unwrap();
    let directory = open(&config_of(&server));
    directory.lease(GATEWAY, TTL).await.unwrap();
    let phone = route(GATEWAY, 1, "phone");
    server.pause().unwrap();
    let began = tokio::time::Instant::now();
    let new = login("ann", 1, &phone);
    let unknown = directory.bind(new.clone(), EACH, 8).await;
    assert!(matches!(unknown, Err(BusError::Unknown(_))), "{unknown:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
    server.resume().unwrap();
    // It may have been done; again is harmless.
    eventually("the bind", async || {
        directory.bind(new.clone(), EACH, 8).await == bound()
    })
    .await;
    assert_eq!(routes(&directory, "ann").await, [phone]);
}

#[tokio::test]
async fn watchers_learn_what_they_missed_while_the_server_was_away() {
    let mut server = durable().await;
    let config = config_of(&server);
    let (gateway, service) = (open(&config), open(&config));
    gateway.lease(GATEWAY, TTL).await.unwrap();
    gateway.lease(OTHER_GATEWAY, TTL).await.unwrap();
    let mut watch = service.watch(&[user("ann"), user("bob")]).await.unwrap();
    let phone = route(GATEWAY, 1, "phone");
    assert_eq!(
        gateway.bind(login("bob", 1, &phone), EACH, 8).await,
        bound()
    );
    let change = soon("bob", watch.next()).await.unwrap();
    assert_eq!((change.user, change.online), (user("bob"), true));
    assert!(!watch.overflowed());
    server.kill().unwrap();
    server.restart().await.unwrap();
    // Before or after the watching task is back: it is heard of either way.
    eventually("the bind", async || {
        gateway.bind(login("ann", 1, &phone), EACH, 8).await == bound()
    })
    .await;
    let change = soon("ann", watch.next()).await.unwrap();
    assert_eq!((change.user, change.online), (user("ann"), true));
    eventually("the overflow", async || watch.overflowed()).await;
    assert!(unbind(&gateway, "bob", &phone).await);
    let change = soon("bob again", watch.next()).await.unwrap();
    assert_eq!((change.user, change.online), (user("bob"), false));
}

#[tokio::test]
async fn a_cluster_serves_again_after_the_death_of_a_master() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let mut config = corner_of(cluster.urls(), RedisMode::Cluster);
    config.response_timeout_ms = 500;
    let directory = open(&config);
    directory.lease(GATEWAY, TTL).await.unwrap();
    let binds: Vec<_> = (0..100)
        .map(|n| login(&format!("user {n}"), 1, &route(GATEWAY, n, "phone")))
        .collect();
    assert_eq!(directory.reassert(binds.clone()).await, Ok(vec![]));
    let users: Vec<_> = binds.iter().map(|bind| bind.user.clone()).collect();
    for master in 0..cluster.masters.len() {
        cluster.masters[master].kill().unwrap();
        let failed = soon("an answer", directory.lookup(&users)).await;
        assert!(failed.is_err(), "routes are not left out in silence");
        cluster.masters[master].restart().await.unwrap();
        // It may have lost the last second, routes and leases alike.
        eventually("all routes", async || {
            let _ = directory.lease(GATEWAY, TTL).await;
            let _ = directory.reassert(binds.clone()).await;
            let found = directory.lookup(&users).await;
            found.is_ok_and(|found| found.iter().all(|routes| routes.len() == 1))
        })
        .await;
    }
}
