//! `RedisDirectory` on a healthy server and cluster.

use std::{sync::Arc, time::Duration};

use sluice_bus::{
    Bind, BindOutcome, BusError, DevicePolicy, Directory, PresenceChange, RedisConfig,
    RedisDirectory, Route,
};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};

use super::{on_cluster, on_one_server};
use crate::contract::{directory_contract, eventually, soon};

mod one_server {
    use super::*;
    directory_contract!(async { open(&on_one_server().await) as Arc<dyn Directory> });
}

mod cluster {
    use super::*;
    directory_contract!(async { open(&on_cluster().await) as Arc<dyn Directory> });
}

pub(super) const GATEWAY: Incarnation = Incarnation(1);
pub(super) const OTHER_GATEWAY: Incarnation = Incarnation(2);
pub(super) const TTL: Duration = Duration::from_secs(60);
pub(super) const EACH: DevicePolicy = DevicePolicy::EachDevice;

pub(super) fn open(config: &RedisConfig) -> Arc<RedisDirectory> {
    RedisDirectory::open(config).unwrap()
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn route(gateway: Incarnation, slot: u32, device: &str) -> Route {
    let connection = ConnectionId {
        incarnation: gateway,
        event_loop: 1,
        slot,
        generation: 2,
    };
    Route {
        device: DeviceId::parse(device).unwrap(),
        platform: -7,
        connection,
    }
}

pub(super) fn login(name: &str, login: u64, route: &Route) -> Bind {
    Bind {
        user: user(name),
        route: route.clone(),
        login,
    }
}

pub(super) async fn routes(directory: &RedisDirectory, name: &str) -> Vec<Route> {
    directory.lookup(&[user(name)]).await.unwrap().remove(0)
}

pub(super) async fn unbind(directory: &RedisDirectory, name: &str, route: &Route) -> bool {
    let (user, device) = (user(name), &route.device);
    directory
        .unbind(&user, device, route.connection)
        .await
        .unwrap()
}

pub(super) fn bound() -> Result<BindOutcome, BusError> {
    let replaced = Vec::new();
    Ok(BindOutcome::Bound { replaced })
}

/// A plain connection, to look behind the port.
pub(super) async fn raw(config: &RedisConfig) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(config.urls[0].as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn names_may_be_anything() {
    for config in [on_one_server().await, on_cluster().await] {
        let directory = open(&config);
        directory.lease(GATEWAY, TTL).await.unwrap();
        let names = [
            "{}", "a}b{c", "{ann}", "ann", "名前", "a b:c", "}", "{a}{b}",
        ];
        let mut watch = directory.watch(&names.map(user)).await.unwrap();
        for (slot, name) in names.into_iter().enumerate() {
            let phone = route(GATEWAY, slot as u32, name);
            let new = login(name, u64::MAX - 1, &phone);
            assert_eq!(directory.bind(new, EACH, 8).await, bound());
            let change = soon("a change", watch.next()).await;
            let online = true;
            assert_eq!(
                change,
                Some(PresenceChange {
                    user: user(name),
                    online
                })
            );
        }
        for (slot, name) in names.into_iter().enumerate() {
            let found = routes(&directory, name).await;
            assert_eq!(found, [route(GATEWAY, slot as u32, name)]);
        }
    }
}

#[tokio::test]
async fn a_late_repeat_of_a_bind_does_not_undo_its_end() {
    let directory = open(&on_one_server().await);
    directory.lease(GATEWAY, TTL).await.unwrap();
    let phone = route(GATEWAY, 1, "phone");
    let new = login("ann", 5, &phone);
    assert_eq!(directory.bind(new.clone(), EACH, 8).await, bound());
    assert!(unbind(&directory, "ann", &phone).await);
    let again = directory.bind(new.clone(), EACH, 8).await;
    assert_eq!(again, Ok(BindOutcome::Stale));
    let older = login("ann", 4, &route(GATEWAY, 9, "phone"));
    let older = directory.bind(older, EACH, 8).await;
    assert_eq!(older, Ok(BindOutcome::Stale));
    assert_eq!(directory.reassert(vec![new.clone()]).await, Ok(vec![new]));
    assert_eq!(routes(&directory, "ann").await, []);
    let laptop = login("ann", 3, &route(GATEWAY, 3, "laptop"));
    assert_eq!(
        directory.bind(laptop, EACH, 8).await,
        bound(),
        "another device"
    );
    let newer = login("ann", 6, &phone);
    assert_eq!(directory.bind(newer, EACH, 8).await, bound());
}

#[tokio::test]
async fn who_was_replaced_by_policy_stays_so() {
    let directory = open(&on_one_server().await);
    directory.lease(GATEWAY, TTL).await.unwrap();
    let (phone, watch) = (route(GATEWAY, 1, "phone"), route(GATEWAY, 2, "watch"));
    let single = DevicePolicy::Single;
    let old = login("ann", 1, &phone);
    assert_eq!(directory.bind(old.clone(), single, 8).await, bound());
    let new = login("ann", 2, &watch);
    let replaced = vec![phone];
    let outcome = directory.bind(new, single, 8).await;
    assert_eq!(outcome, Ok(BindOutcome::Bound { replaced }));
    assert!(unbind(&directory, "ann", &watch).await);
    // Its kick was lost, and its gateway says its bind again.
    assert_eq!(directory.reassert(vec![old.clone()]).await, Ok(vec![old]));
}

#[tokio::test]
async fn what_is_left_behind_expires_and_is_bounded() {
    let config = on_one_server().await;
    let directory = open(&config);
    directory.lease(GATEWAY, TTL).await.unwrap();
    for number in 1..=100 {
        let device = route(GATEWAY, number, &format!("device {number}"));
        let new = login("ann", u64::from(number), &device);
        assert_eq!(directory.bind(new, EACH, 8).await, bound());
        assert!(unbind(&directory, "ann", &device).await);
    }
    let mut raw = raw(&config).await;
    let key = format!("{}d:ann", config.key_prefix);
    let mut ask = async |command: &str| {
        let command = redis::cmd(command).arg(&key).to_owned();
        command.query_async::<i64>(&mut raw).await.unwrap()
    };
    assert!(ask("HLEN").await <= 17);
    let day_s = 24 * 3600;
    assert!((day_s - 60..=day_s).contains(&ask("TTL").await));
    let last = login("ann", 100, &route(GATEWAY, 100, "device 100"));
    let late = directory.bind(last, EACH, 8).await;
    assert_eq!(late, Ok(BindOutcome::Stale), "the latest are remembered");
}

#[tokio::test]
async fn a_sweep_keeps_routes_from_expiring() {
    let config = on_one_server().await;
    let directory = open(&config);
    directory.lease(GATEWAY, TTL).await.unwrap();
    let new = login("ann", 1, &route(GATEWAY, 1, "phone"));
    assert_eq!(directory.bind(new.clone(), EACH, 8).await, bound());
    let mut raw = raw(&config).await;
    let key = format!("{}d:ann", config.key_prefix);
    let expire = redis::cmd("EXPIRE").arg(&key).arg(100).to_owned();
    expire.exec_async(&mut raw).await.unwrap();
    assert_eq!(directory.reassert(vec![new]).await, Ok(vec![]));
    let ttl = redis::cmd("TTL").arg(&key).to_owned();
    let ttl_s: i64 = ttl.query_async(&mut raw).await.unwrap();
    assert!(ttl_s > 80_000, "{ttl_s}");
}

/// Each call sees what another process did just before.
#[tokio::test]
async fn a_new_gateway_is_found_at_once_by_all() {
    for config in [on_one_server().await, on_cluster().await] {
        let (gateway, service) = (open(&config), open(&config));
        for number in 1..50 {
            let incarnation = Incarnation(number);
            let name = format!("user {number}");
            gateway.lease(incarnation, TTL).await.unwrap();
            let phone = route(incarnation, 1, "phone");
            let new = login(&name, 1, &phone);
            assert_eq!(gateway.bind(new, EACH, 8).await, bound());
            assert_eq!(routes(&service, &name).await, [phone]);
        }
    }
}

#[tokio::test]
async fn one_gateway_id_has_one_holder() {
    let config = on_one_server().await;
    let (first, second) = (open(&config), open(&config));
    let short = Duration::from_millis(300);
    first.lease(GATEWAY, short).await.unwrap();
    let refused = second.lease(GATEWAY, short).await;
    assert!(matches!(refused, Err(BusError::Taken(_))), "{refused:?}");
    second.release(GATEWAY).await.unwrap();
    first.lease(GATEWAY, short).await.unwrap();
    // The first one stands still until its lease has lapsed.
    eventually("the lease to lapse", async || {
        second.gateways().await.unwrap().is_empty()
    })
    .await;
    let lapsed = second.lease(GATEWAY, TTL).await;
    assert!(matches!(lapsed, Err(BusError::LeaseLost(_))), "{lapsed:?}");
    assert_eq!(second.lease(GATEWAY, TTL).await, Ok(()));
    let refused = first.lease(GATEWAY, TTL).await;
    assert!(matches!(refused, Err(BusError::Taken(_))), "{refused:?}");
    second.release(GATEWAY).await.unwrap();
    assert_eq!(first.lease(GATEWAY, TTL).await, Ok(()));
}

#[tokio::test]
async fn a_lapse_is_told_once() {
    let directory = open(&on_one_server().await);
    let short = Duration::from_millis(100);
    directory.lease(GATEWAY, short).await.unwrap();
    eventually("the lease to lapse", async || {
        directory.gateways().await.unwrap().is_empty()
    })
    .await;
    let lapsed = directory.lease(GATEWAY, TTL).await;
    assert!(matches!(lapsed, Err(BusError::LeaseLost(_))), "{lapsed:?}");
    assert_eq!(directory.lease(GATEWAY, TTL).await, Ok(()));
    assert_eq!(directory.gateways().await, Ok(vec![GATEWAY]));
}

#[tokio::test]
async fn presence_ends_with_a_lease_that_runs_out() {
    let config = on_cluster().await;
    let (gateway, service) = (open(&config), open(&config));
    gateway
        .lease(GATEWAY, Duration::from_millis(500))
        .await
        .unwrap();
    let mut watch = service.watch(&[user("ann")]).await.unwrap();
    let new = login("ann", 1, &route(GATEWAY, 1, "phone"));
    assert_eq!(gateway.bind(new, EACH, 8).await, bound());
    for online in [true, false] {
        let change = soon("a change", watch.next()).await.unwrap();
        assert_eq!(change.online, online);
    }
    assert!(!watch.overflowed());
    drop(service);
    assert_eq!(soon("the end", watch.next()).await, None);
}

#[tokio::test]
async fn big_lookups_and_sweeps_cross_all_slots() {
    let config = on_cluster().await;
    let directory = open(&config);
    directory.lease(OTHER_GATEWAY, TTL).await.unwrap();
    let binds: Vec<_> = (0..2000)
        .map(|n| login(&format!("user {n}"), 1, &route(OTHER_GATEWAY, n, "phone")))
        .collect();
    assert_eq!(directory.reassert(binds.clone()).await, Ok(vec![]));
    let users: Vec<_> = binds.iter().map(|bind| bind.user.clone()).collect();
    let found = directory.lookup(&users).await.unwrap();
    for (bind, routes) in binds.iter().zip(found) {
        assert_eq!(routes, std::slice::from_ref(&bind.route));
    }
}
