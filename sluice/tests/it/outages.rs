//! What a cluster goes through: Redis away, Redis that has forgotten everything,
//! owners who sleep past their leases.

use std::time::Duration;

use sluice_client::{ContentType, Event, LocalState, Target};

use crate::{
    account::Account,
    roles::{Roles, endpoint, http},
    talkers::{PATIENCE, Talkers},
};

/// A figure of a process's metrics, summed over its labels.
pub(crate) async fn metric(admin: &str, name: &str) -> f64 {
    let text = reqwest::get(format!("http://{admin}/metrics"));
    let text = text.await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// While Redis is away a gateway keeps its clients, takes what its lanes hold,
/// puts the rest off and acks nothing; then all of it goes through, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_sends_are_put_off_and_nothing_is_acked() {
    const SENDS: u64 = 40;
    let mut roles = Roles::start().await;
    let services = roles.service("").await;
    let lanes = [("SLUICE__GATEWAY__LANES__ENTRIES_MAX", "8")];
    let gateway = roles.gateway_with(&lanes).await;
    let api = http(&services);
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let (alice_client, mut alice_events) =
        alice.device("phone", &endpoint(&gateway), LocalState::memory());
    let (bob_client, mut bob_events) =
        bob.device("phone", &endpoint(&gateway), LocalState::memory());
    for events in [&mut alice_events, &mut bob_events] {
        while events.next().await.unwrap() != Event::CaughtUp {}
    }

    roles.redis.kill().unwrap();
    let mut pending = Vec::new();
    for number in 0..SENDS {
        let target = Target::User(bob.user.clone());
        let sent = alice_client.send(target, ContentType::Text, number.to_string());
        pending.push(sent.await.unwrap());
    }
    let acks = async {
        let mut seqs = Vec::new();
        for send in pending {
            seqs.push(send.acked().await.unwrap().seq.0);
        }
        seqs
    };
    tokio::pin!(acks);
    let away = Duration::from_secs(3);
    let early = tokio::time::timeout(away, &mut acks).await;
    assert!(early.is_err(), "acked without being stored");
    let admin = gateway.addresses.admin.clone().unwrap();
    assert!(metric(&admin, "sluice_gateway_busy_total").await > 0.0);
    roles.redis.restart().await.unwrap();
    let seqs = tokio::time::timeout(PATIENCE, acks).await.unwrap();
    assert_eq!(seqs, (1..=SENDS).collect::<Vec<_>>());

    let mut heard = Vec::new();
    while heard.len() < SENDS as usize {
        let event = tokio::time::timeout(PATIENCE, bob_events.next()).await;
        match event.unwrap().unwrap() {
            Event::Entry { entry, .. } => heard.push(entry.seq.0),
            Event::Disconnected { reason, .. } => panic!("{reason:?}"),
            _ => {}
        }
    }
    assert_eq!(heard, seqs);
    while let Some(event) = alice_events.try_next() {
        assert!(!matches!(event, Event::Disconnected { .. }), "{event:?}");
    }
    alice_client.disconnect(true).await;
    bob_client.disconnect(true).await;
    for process in [gateway, services] {
        process.stop().await.unwrap();
    }
}

/// While MariaDB is away, for longer than so few deliveries take, nothing that
/// waits for it is taken for poison: messages, receipts and logins go through
/// when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mariadb_everything_waits_and_nothing_is_set_aside() {
    const SENDS: u64 = 40;
    let mut roles = Roles::start().await;
    let few = [
        ("SLUICE__BUS__REDIS__DELIVERIES_MAX", "3"),
        // So that each try fails soon, and there are many.
        ("SLUICE__STORE__MYSQL__ACQUIRE_TIMEOUT_MS", "300"),
    ];
    let services = [
        roles.service_with(&few).await,
        roles.service_with(&few).await,
    ];
    let gateway = roles.gateway().await;
    let api = http(&services[0]);
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let connect = |account: &Account, device| {
        account.device(device, &endpoint(&gateway), LocalState::memory())
    };
    let (alice_client, mut alice_events) = connect(&alice, "phone");
    let (bob_client, mut bob_events) = connect(&bob, "phone");
    for events in [&mut alice_events, &mut bob_events] {
        while events.next().await.unwrap() != Event::CaughtUp {}
    }
    // What bob hears is acked about a second later, and then read.
    let say = async |text: &str| {
        let target = Target::User(bob.user.clone());
        let sent = alice_client.send(target, ContentType::Text, text.to_owned());
        sent.await.unwrap()
    };
    let first = say("before").await.acked().await.unwrap();
    while !matches!(bob_events.next().await.unwrap(), Event::Entry { .. }) {}
    roles.mariadb.kill().unwrap();
    bob_client
        .read(&first.conversation, first.seq)
        .await
        .unwrap();
    let (tablet, mut tablet_events) = connect(&bob, "tablet");
    let mut pending = Vec::new();
    for number in 1..=SENDS {
        pending.push(say(&number.to_string()).await);
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    for process in &services {
        let admin = process.addresses.admin.clone().unwrap();
        assert!(metric(&admin, "sluice_work_failures_total").await > 3.0);
    }
    roles.mariadb.restart().await.unwrap();
    for (number, send) in pending.into_iter().enumerate() {
        let acked = tokio::time::timeout(2 * PATIENCE, send.acked()).await;
        assert_eq!(acked.unwrap().unwrap().seq.0, number as u64 + 2);
    }
    let heard = async {
        while tablet_events.next().await.unwrap() != Event::CaughtUp {}
        while !matches!(alice_events.next().await.unwrap(), Event::Read { .. }) {}
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    for process in &services {
        let admin = process.addresses.admin.clone().unwrap();
        assert_eq!(metric(&admin, "sluice_bus_dead_letters_total").await, 0.0);
    }
    for client in [alice_client, bob_client, tablet] {
        client.disconnect(true).await;
    }
    for process in std::iter::once(gateway).chain(services) {
        process.stop().await.unwrap();
    }
}

/// As after a failover to a replica that had nothing: entries, routes and leases
/// are gone. What was not acked comes again, and gateways say who is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_made_good() {
    let roles = Roles::start().await;
    let (one, other) = (roles.service("").await, roles.service("").await);
    let gateways = [roles.gateway().await, roles.gateway().await];
    let endpoints = [endpoint(&gateways[0]), endpoint(&gateways[1])];
    let talkers = Talkers::start(&http(&one), 4, &endpoints).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        roles.flush_redis();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for met in talkers.finish().await {
        assert!(met.slowest_ack < Duration::from_secs(15), "{met:?}");
        assert_eq!(met.disconnects, 0, "{met:?}");
    }
    for process in gateways.into_iter().chain([one, other]) {
        process.stop().await.unwrap();
    }
}

/// The paused node holds half of the partitions, in the middle of its batches.
/// Another takes them over; what the first does when it wakes is fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_sleep_past_their_leases_do_no_harm() {
    let roles = Roles::start().await;
    let (steady, sleepy) = (roles.service("").await, roles.service("").await);
    let gateway = roles.gateway().await;
    let talkers = Talkers::start(&http(&steady), 12, &[endpoint(&gateway)]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // In the midst of a transaction, with its locks.
    let mut tries = 0;
    loop {
        sleepy.pause().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        if roles.stalled_transactions() > 0 {
            break;
        }
        sleepy.resume().await.unwrap();
        tries += 1;
        assert!(tries < 20, "it is always between two transactions");
        tokio::time::sleep(Duration::from_millis(100 + 7 * tries)).await;
    }
    // Longer than anybody may be made to wait by those locks.
    tokio::time::sleep(Duration::from_secs(18)).await;
    sleepy.resume().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for met in talkers.finish().await {
        assert!(met.slowest_ack < Duration::from_secs(15), "{met:?}");
        assert_eq!(met.disconnects, 0, "{met:?}");
    }
    for process in [gateway, sleepy, steady] {
        process.stop().await.unwrap();
    }
}
