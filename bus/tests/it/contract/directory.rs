//! The contract of [`Directory`].

use std::{sync::Arc, time::Duration};

use sluice_bus::{Bind, BindOutcome, BusError, DevicePolicy, Directory, PresenceChange, Route};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};
use tokio::task::JoinSet;

use super::{eventually, soon};

const GATEWAY: Incarnation = Incarnation(1);
const OTHER_GATEWAY: Incarnation = Incarnation(2);
const TTL: Duration = Duration::from_secs(60);
const DEVICES_MAX: usize = 8;

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn route(gateway: Incarnation, slot: u32, name: &str, platform: i32) -> Route {
    Route {
        device: device(name),
        platform,
        connection: ConnectionId {
            incarnation: gateway,
            event_loop: 0,
            slot,
            generation: 3,
        },
    }
}

pub(crate) fn bind(name: &str, login: u64, route: &Route) -> Bind {
    Bind {
        user: user(name),
        route: route.clone(),
        login,
    }
}

fn bound(replaced: &[&Route]) -> BindOutcome {
    let replaced = replaced.iter().copied().cloned().collect();
    BindOutcome::Bound { replaced }
}

/// Live routes of one user.
async fn routes(directory: &Arc<dyn Directory>, name: &str) -> Vec<Route> {
    let found = directory.lookup(&[user(name)]).await.unwrap();
    found.into_iter().next().unwrap()
}

async fn bind_each(directory: &Arc<dyn Directory>, bind: Bind) -> BindOutcome {
    let policy = DevicePolicy::EachDevice;
    directory.bind(bind, policy, DEVICES_MAX).await.unwrap()
}

async fn start(directory: &Arc<dyn Directory>) {
    for gateway in [GATEWAY, OTHER_GATEWAY] {
        directory.lease(gateway, TTL).await.unwrap();
    }
    eventually("both gateways", async || {
        directory.gateways().await.unwrap().len() == 2
    })
    .await;
}

pub(crate) async fn a_bound_device_is_found_until_it_unbinds(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let phone = route(GATEWAY, 1, "phone", 1);
    let laptop = route(OTHER_GATEWAY, 1, "laptop", 2);
    assert_eq!(
        bind_each(&directory, bind("ann", 1, &phone)).await,
        bound(&[])
    );
    assert_eq!(
        bind_each(&directory, bind("ann", 2, &laptop)).await,
        bound(&[])
    );
    let mut found = routes(&directory, "ann").await;
    found.sort_by_key(|route| route.platform);
    assert_eq!(found, [phone.clone(), laptop.clone()]);
    let unbind = async |route: &Route| {
        let (ann, connection) = (user("ann"), route.connection);
        directory.unbind(&ann, &route.device, connection).await
    };
    assert_eq!(unbind(&phone).await, Ok(true));
    assert_eq!(unbind(&phone).await, Ok(false));
    assert_eq!(
        routes(&directory, "ann").await,
        std::slice::from_ref(&laptop)
    );
    assert_eq!(unbind(&laptop).await, Ok(true));
    assert_eq!(routes(&directory, "ann").await, []);
}

pub(crate) async fn lookups_answer_in_the_order_asked(directory: Arc<dyn Directory>) {
    start(&directory).await;
    for slot in 0..200 {
        let phone = route(GATEWAY, slot, "phone", 1);
        let new = bind(&format!("user {slot}"), 1, &phone);
        bind_each(&directory, new).await;
    }
    let asked: Vec<_> = (0..250)
        .rev()
        .map(|slot| user(&format!("user {slot}")))
        .collect();
    let found = directory.lookup(&asked).await.unwrap();
    let slots: Vec<_> = found
        .iter()
        .map(|routes| routes.first().map(|route| route.connection.slot))
        .collect();
    let expected: Vec<_> = (0..250).rev().map(|n| (n < 200).then_some(n)).collect();
    assert_eq!(slots, expected);
    assert_eq!(directory.lookup(&[]).await.unwrap(), Vec::<Vec<_>>::new());
}

pub(crate) async fn the_newest_login_of_a_device_wins(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let old = route(GATEWAY, 1, "phone", 1);
    let new = route(OTHER_GATEWAY, 2, "phone", 1);
    bind_each(&directory, bind("ann", 5, &old)).await;
    let outcome = bind_each(&directory, bind("ann", 6, &new)).await;
    assert_eq!(outcome, bound(&[&old]));
    let outcome = bind_each(&directory, bind("ann", 5, &old)).await;
    assert_eq!(outcome, BindOutcome::Stale, "a late repeat");
    assert_eq!(routes(&directory, "ann").await, [new]);
}

pub(crate) async fn a_repeated_bind_replaces_nobody(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let phone = route(GATEWAY, 1, "phone", 1);
    for login in [5, 5, 6] {
        let outcome = bind_each(&directory, bind("ann", login, &phone)).await;
        assert_eq!(outcome, bound(&[]));
    }
    assert_eq!(routes(&directory, "ann").await, [phone]);
}

pub(crate) async fn policies_say_who_is_replaced(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let phone = route(GATEWAY, 1, "phone", 1);
    let pad = route(GATEWAY, 2, "pad", 1);
    let laptop = route(OTHER_GATEWAY, 3, "laptop", 2);
    let watch = route(OTHER_GATEWAY, 4, "watch", 3);
    let place = async |login, route: &Route, policy| {
        let new = bind("ann", login, route);
        directory.bind(new, policy, DEVICES_MAX).await.unwrap()
    };
    let platform = DevicePolicy::EachPlatform;
    assert_eq!(place(1, &phone, platform).await, bound(&[]));
    assert_eq!(place(2, &laptop, platform).await, bound(&[]));
    assert_eq!(place(3, &pad, platform).await, bound(&[&phone]));
    let late = place(1, &phone, platform).await;
    assert_eq!(late, BindOutcome::Stale, "a late repeat");
    let single = DevicePolicy::Single;
    let BindOutcome::Bound { mut replaced } = place(4, &watch, single).await else {
        panic!("the newest login is bound");
    };
    replaced.sort_by_key(|route| route.connection.slot);
    assert_eq!(replaced, [pad, laptop.clone()]);
    assert_eq!(place(2, &laptop, single).await, BindOutcome::Stale);
    assert_eq!(routes(&directory, "ann").await, [watch]);
}

pub(crate) async fn the_cap_counts_live_devices_only(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let place = async |login: u64, route: &Route| {
        let new = bind("ann", login, route);
        let outcome = directory.bind(new, DevicePolicy::EachDevice, 2).await;
        outcome.unwrap()
    };
    let phone = route(GATEWAY, 1, "phone", 1);
    let laptop = route(OTHER_GATEWAY, 2, "laptop", 2);
    let pad = route(OTHER_GATEWAY, 3, "pad", 1);
    let phone_again = route(OTHER_GATEWAY, 4, "phone", 1);
    place(1, &phone).await;
    place(2, &laptop).await;
    assert_eq!(place(3, &pad).await, BindOutcome::TooManyDevices);
    assert_eq!(routes(&directory, "ann").await.len(), 2);
    directory.release(GATEWAY).await.unwrap();
    eventually("the phone's route to be void", async || {
        routes(&directory, "ann").await.len() == 1
    })
    .await;
    assert_eq!(place(4, &pad).await, bound(&[]));
    assert_eq!(place(5, &phone_again).await, BindOutcome::TooManyDevices);
    let pad_again = route(OTHER_GATEWAY, 5, "pad", 1);
    assert_eq!(place(6, &pad_again).await, bound(&[&pad]));
}

pub(crate) async fn a_late_unbind_spares_the_newer_bind(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let old = route(GATEWAY, 1, "phone", 1);
    let new = route(GATEWAY, 2, "phone", 1);
    bind_each(&directory, bind("ann", 1, &old)).await;
    bind_each(&directory, bind("ann", 2, &new)).await;
    let ann = user("ann");
    let late = directory.unbind(&ann, &old.device, old.connection).await;
    assert_eq!(late, Ok(false));
    assert_eq!(routes(&directory, "ann").await, [new]);
}

pub(crate) async fn reasserting_fills_holes_and_names_the_displaced(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let held = route(GATEWAY, 1, "phone", 1);
    let lost = route(GATEWAY, 2, "phone", 1);
    let displaced = route(GATEWAY, 3, "phone", 1);
    let newer = route(OTHER_GATEWAY, 4, "phone", 1);
    let older = route(OTHER_GATEWAY, 5, "phone", 1);
    bind_each(&directory, bind("held", 1, &held)).await;
    bind_each(&directory, bind("displaced", 2, &newer)).await;
    bind_each(&directory, bind("rewound", 1, &older)).await;
    let binds = vec![
        bind("held", 1, &held),
        bind("lost", 1, &lost),
        bind("displaced", 1, &displaced),
        bind("rewound", 2, &lost),
    ];
    let kick = directory.reassert(binds.clone()).await.unwrap();
    assert_eq!(kick, [binds[2].clone()]);
    for (name, expected) in [
        ("held", &held),
        ("lost", &lost),
        ("displaced", &newer),
        ("rewound", &lost),
    ] {
        let found = routes(&directory, name).await;
        assert_eq!(found, std::slice::from_ref(expected), "{name}");
    }
}

pub(crate) async fn routes_die_with_their_gateway(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let phone = route(GATEWAY, 1, "phone", 1);
    let laptop = route(OTHER_GATEWAY, 2, "laptop", 2);
    bind_each(&directory, bind("ann", 1, &phone)).await;
    bind_each(&directory, bind("ann", 2, &laptop)).await;
    let stray = route(Incarnation(77), 1, "stray", 1);
    bind_each(&directory, bind("bob", 1, &stray)).await;
    assert_eq!(routes(&directory, "bob").await, [], "no lease, no route");
    directory.release(GATEWAY).await.unwrap();
    directory.release(GATEWAY).await.unwrap();
    eventually("one gateway", async || {
        directory.gateways().await.unwrap() == [OTHER_GATEWAY]
    })
    .await;
    assert_eq!(routes(&directory, "ann").await, [laptop]);
}

pub(crate) async fn a_lapsed_gateway_learns_it_and_comes_back(directory: Arc<dyn Directory>) {
    let short = Duration::from_millis(200);
    directory.lease(GATEWAY, short).await.unwrap();
    let phone = route(GATEWAY, 1, "phone", 1);
    bind_each(&directory, bind("ann", 1, &phone)).await;
    eventually("the lease to lapse", async || {
        directory.gateways().await.unwrap().is_empty()
    })
    .await;
    assert_eq!(routes(&directory, "ann").await, []);
    let late = directory.lease(GATEWAY, TTL).await;
    assert!(matches!(late, Err(BusError::LeaseLost(_))), "{late:?}");
    let kick = directory.reassert(vec![bind("ann", 1, &phone)]).await;
    assert_eq!(kick, Ok(vec![]));
    eventually("the route", async || {
        routes(&directory, "ann").await == [phone.clone()]
    })
    .await;
    directory.lease(GATEWAY, TTL).await.unwrap();
}

pub(crate) async fn watchers_hear_the_first_and_the_last_device(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let mut watch = directory.watch(&[user("ann"), user("bob")]).await.unwrap();
    let phone = route(GATEWAY, 1, "phone", 1);
    let laptop = route(OTHER_GATEWAY, 2, "laptop", 2);
    bind_each(&directory, bind("eve", 1, &phone)).await;
    bind_each(&directory, bind("ann", 1, &phone)).await;
    bind_each(&directory, bind("ann", 2, &laptop)).await;
    for gone in [&phone, &laptop] {
        let (ann, connection) = (user("ann"), gone.connection);
        let unbound = directory.unbind(&ann, &gone.device, connection).await;
        assert_eq!(unbound, Ok(true));
    }
    let mut expect = async |name: &str, online| {
        let user = user(name);
        let change = soon("a change", watch.next()).await;
        assert_eq!(change, Some(PresenceChange { user, online }));
    };
    expect("ann", true).await;
    expect("ann", false).await;
    // Each is heard of before the next: a remote engine keeps the order of one
    // user's changes only, and a gateway's death may be seen before a bind.
    bind_each(&directory, bind("bob", 1, &phone)).await;
    expect("bob", true).await;
    directory.release(GATEWAY).await.unwrap();
    expect("bob", false).await;
    assert!(!watch.overflowed());
}

pub(crate) async fn racing_binds_leave_one_session(directory: Arc<dyn Directory>) {
    start(&directory).await;
    let mut binds = JoinSet::new();
    for login in 1..=32 {
        let directory = Arc::clone(&directory);
        binds.spawn(async move {
            let phone = route(GATEWAY, login as u32, &format!("device {login}"), 1);
            let new = bind("ann", login, &phone);
            let single = DevicePolicy::Single;
            directory.bind(new, single, DEVICES_MAX).await.unwrap()
        });
    }
    let mut out = 0;
    while let Some(outcome) = binds.join_next().await {
        match outcome.unwrap() {
            BindOutcome::Bound { replaced } => out += replaced.len(),
            BindOutcome::Stale => out += 1,
            BindOutcome::TooManyDevices => panic!("one session is allowed"),
        }
    }
    assert_eq!(out, 31, "every loser is told once");
    let left = routes(&directory, "ann").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].connection.slot, 32);
}

pub(crate) async fn nodes_find_who_shares_their_work(directory: Arc<dyn Directory>) {
    let announce = async |work: &str, node: u64, ttl| directory.announce(work, node, ttl).await;
    let short = Duration::from_millis(200);
    assert_eq!(announce("dig", 7, TTL).await, Ok(vec![7]));
    assert_eq!(announce("sow", 8, TTL).await, Ok(vec![8]));
    assert_eq!(announce("dig", 300, short).await, Ok(vec![7, 300]));
    assert_eq!(announce("dig", 20, TTL).await, Ok(vec![7, 20, 300]));
    eventually("300 to lapse", async || {
        announce("dig", 7, TTL).await == Ok(vec![7, 20])
    })
    .await;
    assert_eq!(announce("dig", 7, Duration::ZERO).await, Ok(vec![20]));
}
