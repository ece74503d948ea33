//! Crashes between commit and emit, fenced owners, a bus that misbehaves.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sluice_bus::{
    Bus, BusError, Directory as _, Lag, MemoryBus, MemoryBusConfig, NodeName, Reader, Stream,
    faulty_bus::{Fault, FaultPlan, FaultyBus},
};
use sluice_protocol::{
    ClientMsgId, DeviceId, Partition,
    envelope::{OpenSession, delivery, up},
    packet::packet::Body,
};
use sluice_services::Services;
use sluice_store::{SessionOpening, SessionProof, Store as _};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::world::{PARTITIONS, World, ack, config, fresh_id, now_ms, pair, text, text_to, user};

/// A bus whose `down` streams never answer: who appends dies waiting.
struct DeafDown(Arc<dyn Bus>);

#[async_trait]
impl Bus for DeafDown {
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError> {
        if let Stream::Down(_) = stream {
            std::future::pending::<()>().await;
        }
        self.0.append(stream, entries).await
    }
    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        self.0.own(stream, owner).await
    }
    async fn join(&self, stream: &Stream, name: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        self.0.join(stream, name).await
    }
    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        self.0.lag(stream).await
    }
    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        self.0.delete(stream).await
    }
}

/// Services whose answers reach nobody, in a runtime of their own, which dies with
/// all its tasks.
async fn doomed_services(world: &World) -> Runtime {
    let mut parts = world.parts().await;
    parts.bus = Arc::new(DeafDown(world.bus.clone()));
    let doomed = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let started = doomed.spawn(async {
        let services = Services::start(config(), parts, CancellationToken::new()).await;
        // They run on without it.
        drop(services.unwrap());
    });
    started.await.unwrap();
    doomed
}

#[tokio::test]
async fn what_was_committed_before_a_crash_is_acked_and_pushed_after_it() {
    let bus: Arc<dyn Bus> = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config(), bus.clone()).await;
    world.add_users(&["alice", "bob"]).await;
    let alice = world.gateway.device("alice", "phone");
    let request = world
        .gateway
        .send(&alice, text_to("bob", fresh_id(), "hello"))
        .await;

    let doomed = doomed_services(&world).await;
    let conversation = pair("alice", "bob");
    while world
        .store
        .conversation_members(std::slice::from_ref(&conversation))
        .await
        .unwrap()[0]
        .is_none()
    {
        tokio::task::yield_now().await;
    }
    doomed.shutdown_background();

    world.start().await;
    let bob = world.device_online("bob", "phone").await;
    let acked = ack(world.gateway.answer(&alice, request).await);
    assert_eq!(acked.seq, 1);
    // Bob came after the crash: he has it by push or by pull, and once.
    let page = world
        .store
        .inbox(
            &user("bob"),
            sluice_protocol::UserSeq(0),
            sluice_store::PageLimit {
                entries: 10,
                bytes: 10_000,
            },
        )
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 1);
    world.gateway.rest(&bob).await;
    world.stop().await;
}

#[tokio::test]
async fn a_resume_that_was_bound_before_a_crash_is_open_after_it() {
    let bus: Arc<dyn Bus> = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config(), bus).await;
    world.add_users(&["alice"]).await;
    let alice = world.gateway.device("alice", "phone");
    // What an earlier session has left.
    let token = [7; 32];
    let claims = world.claims("alice").await.claims.unwrap();
    let earlier = SessionOpening {
        user: user("alice"),
        device: DeviceId::parse("phone").unwrap(),
        platform: 0,
        proof: SessionProof::Token {
            token_epoch: claims.token_epoch,
            expires_ms: claims.expires_ms,
        },
        new_resume_hash: Sha256::digest(token).into(),
        connect_time_ms: Some(0),
        has_place: true,
        now_ms: now_ms(),
    };
    world.store.open_sessions(vec![earlier]).await.unwrap();
    let resume = OpenSession {
        resume_token: token.to_vec().into(),
        ..OpenSession::default()
    };
    let open = up::Body::OpenSession(resume);
    world.gateway.append(Stream::Session, &alice, open).await;

    let doomed = doomed_services(&world).await;
    let routes = async |world: &World| {
        let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
        routes[0].clone()
    };
    while routes(&world).await.is_empty() {
        tokio::task::yield_now().await;
    }
    doomed.shutdown_background();

    world.start().await;
    let answer = world.gateway.find(&alice, |_| true).await.body;
    assert!(
        matches!(answer, delivery::Body::SessionOpened(_)),
        "{answer:?}"
    );
    assert_eq!(routes(&world).await[0].connection, alice.connection);
    world.stop().await;
}

#[tokio::test]
async fn a_fenced_owner_starts_over_and_loses_nothing() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    for n in 1..=5 {
        // Somebody else takes every partition behind the owner's back.
        for partition in (0..PARTITIONS).map(Partition) {
            world.store.take_partition(partition).await.unwrap();
        }
        let send = text_to("bob", fresh_id(), &n.to_string());
        assert_eq!(ack(world.send(&alice, send).await).seq, n);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_partition_is_taken_over_when_its_owner_stops() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    let stop_second = CancellationToken::new();
    let parts = world.parts().await;
    let mut second = Services::start(config(), parts, stop_second.clone())
        .await
        .unwrap();
    ack(world.send(&alice, text_to("bob", fresh_id(), "1")).await);
    world.shutdown.cancel();
    world.services.take().unwrap().stopped().await;
    let acked = ack(world.send(&alice, text_to("bob", fresh_id(), "2")).await);
    assert_eq!(acked.seq, 2);
    stop_second.cancel();
    second.stopped().await;
}

#[tokio::test]
async fn entries_that_nobody_can_read_are_set_aside() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    let streams = |p| {
        [
            Stream::Message(p),
            Stream::Query(p),
            Stream::Ack(p),
            Stream::Session(p),
        ]
    };
    for stream in (0..PARTITIONS).map(Partition).flat_map(streams) {
        for poison in ["\u{7f}nonsense", ""] {
            world.gateway.append_bytes(&stream, poison.into()).await;
        }
    }
    // Well-formed, but another service's.
    let stream = |_| Stream::Message(pair("alice", "bob").partition(PARTITIONS));
    let ping = Body::Ping(Default::default());
    world.gateway.packet(stream, &alice, ping.clone()).await;
    world.gateway.packet(Stream::Ack, &alice, ping).await;
    ack(world.send(&alice, text_to("bob", fresh_id(), "x")).await);
    world.device_online("bob", "phone").await;
    world.stop().await;
}

/// Every message is acked in the end, stored once and in order, whatever the
/// bus does; clients resend what isn't acked, as the SDK does.
#[tokio::test]
async fn a_rough_bus_loses_nothing_and_doubles_nothing() {
    for seed in [1, 7] {
        let inner = MemoryBus::new(MemoryBusConfig::default());
        let bus = FaultyBus::new(inner.clone(), FaultPlan::rough(seed));
        // The gateway's own faults are its own tests' matter.
        let mut world = World::idle(config(), inner).await;
        world.bus = bus.clone();
        world.start().await;
        let alice = world.user_online("alice").await;
        let bob = world.user_online("bob").await;
        let ids: Vec<ClientMsgId> = (0..40).map(|_| fresh_id()).collect();
        let mut seqs = HashMap::new();
        for (n, id) in ids.iter().enumerate() {
            let sends = [
                (&alice, text_to("bob", *id, &n.to_string())),
                (&bob, text_to("alice", *id, &n.to_string())),
            ];
            for (device, send) in sends {
                let acked = ack(world.send(device, send).await);
                seqs.insert((device.user.clone(), n), acked.seq);
            }
        }
        bus.calm();
        assert!(bus.struck(Fault::LeaseLost) + bus.struck(Fault::UnknownApplied) > 0);
        let page = world
            .store
            .conversation_log(
                &user("alice"),
                &pair("alice", "bob"),
                sluice_store::Range::After(sluice_protocol::Seq(0)),
                sluice_store::PageLimit {
                    entries: 200,
                    bytes: 100_000,
                },
            )
            .await
            .unwrap()
            .unwrap();
        assert_eq!(page.entries.len(), 80, "each stored once");
        for entry in &page.entries {
            let wanted = seqs.iter().find(|(_, seq)| **seq == entry.seq.0).unwrap().0;
            assert_eq!(entry.sender.as_str(), wanted.0);
        }
        let first = world.gateway.entry(&bob).await;
        assert_eq!(text(&first), "0");
        world.stop().await;
    }
}
