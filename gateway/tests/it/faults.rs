//! A bus that loses answers, repeats itself and takes leases away.

use std::{collections::HashSet, sync::Arc};

use sluice_bus::{
    MemoryBus, MemoryBusConfig,
    faulty_bus::{Fault, FaultPlan, FaultyBus},
};
use sluice_protocol::packet::{entry, packet::Body};

use crate::{
    client::text,
    rig::{Rig, config},
};

#[tokio::test]
async fn nothing_is_lost_or_swapped_over_a_rough_bus() {
    const COUNT: u64 = 300;
    let mut config = config();
    config.lanes.append_retry_max_ms = 40;
    config.limits.unanswered_max = 0;
    // Repeats count too, and this client doesn't pull what a full window drops.
    config.push.window_max = 100_000;
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let plan = FaultPlan {
        // What a lost `down` stream takes along, clients get by asking again;
        // this one does not ask.
        lease_lost_per_1000: 0,
        ..FaultPlan::rough(7)
    };
    let rough = FaultyBus::new(Arc::clone(&bus) as _, plan);
    let rig = Rig::start_parts(config, rough, bus, Vec::new()).await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    let mut acked = HashSet::new();
    for id in 0..COUNT {
        let send = Body::Send(text("bob", &id.to_string()));
        alice.send(100 + id, send).await;
        // A few at a time, so that there are many appends to fail.
        while acked.len() + 10 < usize::try_from(id).unwrap() {
            let packet = alice.recv().await.unwrap();
            if let Some(Body::SendAck(_)) = packet.body {
                acked.insert(packet.id);
            }
        }
    }
    while acked.len() < usize::try_from(COUNT).unwrap() {
        let packet = alice.recv().await.unwrap();
        if let Some(Body::SendAck(_)) = packet.body {
            acked.insert(packet.id);
        }
    }
    let mut received = HashSet::new();
    while received.len() < usize::try_from(COUNT).unwrap() {
        let push = bob.push().await;
        let Some(entry::Content::Message(message)) = push.entry.unwrap().content else {
            panic!("not a message");
        };
        received.insert(message.body);
        bob.ack_pushes(push.number).await;
    }
    // Entries may come twice, but a first one never before its predecessor's.
    let mut seen = HashSet::new();
    let origins = rig.services.seen().await.origins;
    let ids = origins.iter().map(|origin| origin.request_id);
    let firsts: Vec<u64> = ids.filter(|id| seen.insert(*id)).collect();
    assert!(firsts.is_sorted(), "{firsts:?}");
    assert!(origins.len() > firsts.len(), "the bus was not rough at all");
}

#[tokio::test]
async fn a_lost_down_stream_is_owned_again_and_clients_are_told() {
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let faulty = FaultyBus::new(Arc::clone(&bus) as _, FaultPlan::default());
    let rig = Rig::start_parts(config(), Arc::clone(&faulty) as _, bus, Vec::new()).await;
    let mut bob = rig.login("bob").await;
    for _ in 0..3 {
        faulty.inject(Fault::LeaseLost);
        // This one makes the reader look, and may go down with its stream.
        rig.services.push("bob", b"x").await;
        loop {
            match bob.recv().await.unwrap().body.unwrap() {
                Body::Resync(_) => break,
                Body::Push(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        rig.services.push("bob", b"y").await;
        bob.push().await;
    }
}
