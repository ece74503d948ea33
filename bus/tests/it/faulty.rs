//! [`FaultyBus`]: it does what its plan says and nothing that the port forbids.

use std::{sync::Arc, time::Duration};

use sluice_bus::{
    Bus, BusError, MemoryBus, MemoryBusConfig, Reader, Stream,
    faulty_bus::{Fault, FaultPlan, FaultyBus},
};
use sluice_protocol::{Incarnation, Partition};

use crate::contract::{
    bus::{batch, name, numbers},
    bus_contract, soon,
};

const UP: Stream = Stream::Message(Partition(1));
const DOWN: Stream = Stream::Down(Incarnation(1));

fn faulty(plan: FaultPlan) -> Arc<FaultyBus> {
    FaultyBus::new(MemoryBus::new(MemoryBusConfig::default()), plan)
}

mod without_faults {
    use super::*;

    bus_contract!(async {
        let inner = crate::memory::small_bus();
        FaultyBus::new(inner, FaultPlan::default()) as Arc<dyn Bus>
    });
}

#[tokio::test]
async fn unknown_appends_are_done_not_done_or_done_late() {
    let bus = faulty(FaultPlan::default());
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    for (n, fault) in (0..).zip([
        Fault::UnknownApplied,
        Fault::UnknownLost,
        Fault::UnknownLate,
    ]) {
        bus.inject(fault);
        let error = bus.append(&UP, batch([n])).await.unwrap_err();
        assert!(matches!(error, BusError::Unknown(_)));
        assert_eq!(bus.struck(fault), 1);
    }
    for n in 10..20 {
        bus.append(&UP, batch([n])).await.unwrap();
    }
    let seen = numbers(&reader.read(100).await.unwrap());
    assert_eq!(seen.len(), 12);
    assert_eq!(seen[0], 0, "applied at once");
    assert!(!seen.contains(&1), "lost");
    assert!(seen[1..].contains(&2), "late");
}

#[tokio::test]
async fn reads_and_acks_fail_and_begin_again() {
    let bus = faulty(FaultPlan::default());
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, batch(0..4)).await.unwrap();
    let read = reader.read(4).await.unwrap();
    let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();

    bus.inject(Fault::AckLost);
    let failed = reader.ack(&ids[..1]).await;
    assert!(matches!(failed, Err(BusError::Unavailable(_))));
    bus.inject(Fault::AckApplied);
    let failed = reader.ack(&ids[1..2]).await;
    assert!(matches!(failed, Err(BusError::Unavailable(_))));
    bus.append(&UP, batch([4])).await.unwrap();
    let again = reader.read(10).await.unwrap();
    assert_eq!(numbers(&again), [0, 2, 3]);
    assert!(again.entries.iter().all(|entry| entry.deliveries == 2));

    bus.inject(Fault::Reset);
    assert!(reader.read(1).await.unwrap().reset);
    bus.inject(Fault::ReadFailure);
    assert!(reader.read(1).await.is_err());
    assert_eq!(numbers(&reader.read(2).await.unwrap()), [0, 2]);

    bus.inject(Fault::LeaseLost);
    let lost = Err(BusError::LeaseLost(UP.to_string()));
    assert_eq!(reader.ack(&ids).await, lost);
    assert_eq!(reader.ack(&ids).await, lost);
    assert_eq!(reader.read(1).await.err(), lost.err());
    let mut next = soon("the lease", bus.own(&UP, &name("b"))).await.unwrap();
    assert_eq!(numbers(&next.read(10).await.unwrap()), [0, 2, 3, 4]);
}

#[tokio::test]
async fn down_entries_are_lost_and_spells_end() {
    let bus = faulty(FaultPlan {
        spell_max_calls: 1,
        ..FaultPlan::default()
    });
    let mut reader = bus.own(&DOWN, &name("gateway")).await.unwrap();
    bus.inject(Fault::DownLoss);
    bus.append(&DOWN, batch([1])).await.unwrap();
    bus.inject(Fault::Unavailable);
    let failed = bus.append(&DOWN, batch([2])).await;
    assert!(matches!(failed, Err(BusError::Unavailable(_))));
    bus.append(&DOWN, batch([3])).await.unwrap();
    assert_eq!(numbers(&reader.read(9).await.unwrap()), [3]);
}

/// A producer and an owner that follow the port's rules get everything through
/// once, in order, after dropping repeats; ten seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_rules_nothing_is_lost_under_faults() {
    for seed in 0..10 {
        let bus = faulty(FaultPlan::rough(seed));
        let producer = {
            let bus = Arc::clone(&bus);
            tokio::spawn(async move {
                for n in 0..300 {
                    while bus.append(&UP, batch([n * 2, n * 2 + 1])).await.is_err() {}
                }
            })
        };
        let seen = soon("600 entries", collect(&bus, 600)).await;
        producer.await.unwrap();
        assert_eq!(seen, (0..600).collect::<Vec<_>>(), "seed {seed}");
        for fault in [
            Fault::UnknownApplied,
            Fault::UnknownLost,
            Fault::UnknownLate,
            Fault::Unavailable,
        ] {
            assert!(bus.struck(fault) > 0, "{fault:?} never struck");
        }
    }
}

/// First occurrences, as an owner sees them that loses its lease now and then.
async fn collect(bus: &Arc<FaultyBus>, count: usize) -> Vec<u32> {
    let mut seen: Vec<u32> = Vec::new();
    while seen.len() < count {
        let Ok(mut reader) = bus.own(&UP, &name("owner")).await else {
            continue;
        };
        while seen.len() < count {
            match work(&mut reader, &mut seen).await {
                Err(BusError::LeaseLost(_)) => break,
                Err(_) => tokio::time::sleep(Duration::from_micros(50)).await,
                Ok(()) => {}
            }
        }
    }
    seen
}

async fn work(reader: &mut Box<dyn Reader>, seen: &mut Vec<u32>) -> Result<(), BusError> {
    let read = reader.read(5).await?;
    for number in numbers(&read) {
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
    reader.ack(&ids).await
}
