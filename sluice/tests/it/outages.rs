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
async fn metric(admin: &str, name: &str) -> f64 {
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
