//! The in-process implementations: the contract, and what only they promise.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use sluice_bus::{
    BindOutcome, Bus, BusError, DevicePolicy, Directory, MemoryBus, MemoryBusConfig,
    MemoryDirectory, MemoryDirectoryConfig, Route, Stream,
};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, Partition};

use crate::contract::{
    bus::{STREAM_MAX_ENTRIES, batch, name, numbers},
    bus_contract,
    directory::{bind, user},
    directory_contract,
    model::{steps, walk},
    soon,
};

const UP: Stream = Stream::Message(Partition(1));
const DOWN: Stream = Stream::Down(Incarnation(1));
const GATEWAY: Incarnation = Incarnation(1);

pub(crate) fn small_bus() -> Arc<MemoryBus> {
    MemoryBus::new(MemoryBusConfig {
        stream_max_entries: STREAM_MAX_ENTRIES,
        ..MemoryBusConfig::default()
    })
}

fn directory() -> Arc<dyn Directory> {
    MemoryDirectory::new(MemoryDirectoryConfig::default())
}

bus_contract!(async { small_bus() as Arc<dyn Bus> });

directory_contract!(async { directory() });

proptest! {
    #[test]
    fn the_bus_does_as_its_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(walk(small_bus(), steps));
    }
}

fn phone(slot: u32) -> Route {
    Route {
        device: DeviceId::parse("0197f1d2-phone").unwrap(),
        platform: 1,
        connection: ConnectionId {
            incarnation: GATEWAY,
            event_loop: 0,
            slot,
            generation: 0,
        },
    }
}

#[tokio::test]
async fn bytes_bound_a_stream_too() {
    let bus = MemoryBus::new(MemoryBusConfig {
        stream_max_bytes: 1000,
        ..MemoryBusConfig::default()
    });
    let mut reader = bus.own(&DOWN, &name("gateway")).await.unwrap();
    for _ in 0..3 {
        let entry = Bytes::from(vec![0; 400]);
        bus.append(&DOWN, vec![entry]).await.unwrap();
    }
    let stats = bus.stats();
    assert_eq!((stats.entries, stats.bytes), (2, 800));
    assert_eq!(stats.dropped_entries, 1);
    let read = reader.read(9).await.unwrap();
    let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
    reader.ack(&ids).await.unwrap();
    assert_eq!(bus.stats().bytes, 0);
}

#[tokio::test]
async fn small_batches_do_not_pass_a_large_one_that_waits() {
    let bus = small_bus();
    let bound = STREAM_MAX_ENTRIES as u32;
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, batch(0..bound)).await.unwrap();
    let append = |numbers: std::ops::Range<u32>| {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.append(&UP, batch(numbers)).await })
    };
    let large = append(100..110);
    tokio::task::yield_now().await;
    let read = reader.read(STREAM_MAX_ENTRIES).await.unwrap();
    reader.ack(&[read.entries[0].id]).await.unwrap();
    let small = append(200..201);
    tokio::task::yield_now().await;
    assert!(!large.is_finished() && !small.is_finished());
    // The large one gives up: it leaves nothing behind and frees the way.
    large.abort();
    soon("the small append", small).await.unwrap().unwrap();
    assert_eq!(numbers(&reader.read(99).await.unwrap()), [200]);
    assert_eq!(bus.stats().entries, STREAM_MAX_ENTRIES);
}

#[tokio::test]
async fn a_revoked_reader_is_fenced_off_and_the_next_begins_where_it_was() {
    let bus = small_bus();
    assert!(!bus.revoke(&UP));
    let mut stale = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, batch(0..4)).await.unwrap();
    let held = stale.read(2).await.unwrap();
    assert!(bus.revoke(&UP));
    let lost = BusError::LeaseLost(UP.to_string());
    assert_eq!(stale.read(1).await.err(), Some(lost.clone()));
    assert_eq!(stale.ack(&[held.entries[0].id]).await, Err(lost));
    let mut owner = bus.own(&UP, &name("b")).await.unwrap();
    assert_eq!(numbers(&owner.read(9).await.unwrap()), [0, 1, 2, 3]);
    drop(stale);
    assert_eq!(bus.lag(&UP).await.unwrap().entries, 4);
    let third = tokio::time::timeout(Duration::from_millis(20), bus.own(&UP, &name("c"))).await;
    assert!(third.is_err(), "one owner");
}

#[tokio::test]
async fn shutting_down_ends_reads_appends_and_waiting_producers() {
    let bus = small_bus();
    bus.append(&UP, batch(0..STREAM_MAX_ENTRIES as u32))
        .await
        .unwrap();
    let producer = {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.append(&UP, batch([1])).await })
    };
    let mut reader = bus.own(&DOWN, &name("gateway")).await.unwrap();
    let reading = tokio::spawn(async move { reader.read(1).await.err() });
    tokio::task::yield_now().await;
    bus.shut_down();
    let closed = |stream: &Stream| BusError::Closed(stream.to_string());
    assert_eq!(producer.await.unwrap(), Err(closed(&UP)));
    assert_eq!(reading.await.unwrap(), Some(closed(&DOWN)));
    assert_eq!(bus.append(&UP, batch([1])).await, Err(closed(&UP)));
    assert_eq!(bus.own(&UP, &name("a")).await.err(), Some(closed(&UP)));
    assert_eq!(bus.stats().streams, 0);
}

#[tokio::test]
async fn a_gateways_next_life_finds_nothing_of_the_last() {
    let bus = small_bus();
    let first = bus.own(&DOWN, &name("gateway")).await.unwrap();
    bus.append(&DOWN, batch([1])).await.unwrap();
    let next = {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.own(&DOWN, &name("gateway")).await })
    };
    tokio::task::yield_now().await;
    drop(first);
    let mut next = soon("the lease", next).await.unwrap().unwrap();
    bus.append(&DOWN, batch([2])).await.unwrap();
    assert_eq!(numbers(&next.read(9).await.unwrap()), [2]);
    drop(next);
    assert_eq!(bus.stats().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn leases_run_by_the_clock() {
    let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
    let ttl = Duration::from_secs(10);
    let ann = [user("ann")];
    directory.lease(GATEWAY, ttl).await.unwrap();
    let each = DevicePolicy::EachDevice;
    let bound = directory.bind(bind("ann", 1, &phone(1)), each, 8).await;
    assert!(bound.is_ok());
    let mut watch = directory.watch(&ann).await.unwrap();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(9)).await;
        directory.lease(GATEWAY, ttl).await.unwrap();
    }
    assert_eq!(directory.lookup(&ann).await.unwrap()[0].len(), 1);
    tokio::time::advance(ttl).await;
    assert_eq!(directory.lookup(&ann).await.unwrap()[0].len(), 0);
    let other = Route {
        device: DeviceId::parse("laptop").unwrap(),
        ..phone(2)
    };
    let bound = directory.bind(bind("bob", 1, &phone(3)), each, 1).await;
    assert!(bound.is_ok());
    let bound = directory.bind(bind("bob", 2, &other), each, 1).await;
    let replaced = Vec::new();
    assert_eq!(
        bound,
        Ok(BindOutcome::Bound { replaced }),
        "void ones don't count"
    );
    assert_eq!(directory.gateways().await.unwrap(), []);
    assert_eq!(directory.users(), 0, "void routes are swept out");
    let change = watch.next().await.unwrap();
    assert!(!change.online);
    drop(directory);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_slow_watcher_overflows_and_ended_watches_go_away() {
    let directory = MemoryDirectory::new(MemoryDirectoryConfig {
        watch_queue_max_changes: 4,
    });
    let ttl = Duration::from_secs(10);
    directory.lease(GATEWAY, ttl).await.unwrap();
    let ann = user("ann");
    for _ in 0..1000 {
        let ended = directory.watch(std::slice::from_ref(&ann)).await;
        drop(ended);
    }
    let mut watch = directory.watch(&[ann]).await.unwrap();
    for login in 0..3 {
        let each = DevicePolicy::EachDevice;
        let new = bind("ann", login, &phone(1));
        directory.bind(new.clone(), each, 8).await.unwrap();
        let device = &new.route.device;
        let connection = new.route.connection;
        let unbound = directory.unbind(&new.user, device, connection).await;
        assert_eq!(unbound, Ok(true));
    }
    assert!(watch.overflowed());
    assert!(!watch.overflowed(), "told once");
    for online in [true, false, true, false] {
        assert_eq!(watch.next().await.unwrap().online, online);
    }
}

/// Resident memory of many users with one device each.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_user_costs_less_than_200_bytes() {
    const USERS: u32 = 200_000;
    let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
    let ttl = Duration::from_secs(1000);
    directory.lease(GATEWAY, ttl).await.unwrap();
    let before = resident_bytes();
    for slot in 0..USERS {
        let new = bind(&format!("some user {slot:06}"), 1, &phone(slot));
        let each = DevicePolicy::EachDevice;
        directory.bind(new, each, 8).await.unwrap();
    }
    let each = (resident_bytes() - before) / u64::from(USERS);
    println!("{each} bytes a user with one device");
    assert!(each < 200, "{each} bytes");
    assert_eq!(directory.users(), USERS as usize);
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}
