//! Several nodes share the partitions, and take over from each other.

use std::time::Duration;

use sluice_bus::Directory;
use sluice_services::{Config, Services};
use tokio_util::sync::CancellationToken;

use crate::world::{PARTITIONS, World, ack, config, fresh_id, text_to};

const OWNER_TTL_MS: u64 = 500;

fn sharing() -> Config {
    Config {
        owner_ttl_ms: OWNER_TTL_MS,
        ..config()
    }
}

/// Another node on the same store, bus and directory.
pub async fn join(world: &World) -> (Services, CancellationToken) {
    let stop = CancellationToken::new();
    let services = Services::start(world.config.clone(), world.parts().await, stop.clone());
    (services.await.unwrap(), stop)
}

pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

/// A message in every partition gets its ack.
async fn all_partitions_work(world: &mut World, round: usize) {
    let from = world.user_online(&format!("from {round}")).await;
    for peer in 0..32 {
        let name = format!("peer {round} {peer}");
        world.add_users(&[&name]).await;
        ack(world.send(&from, text_to(&name, fresh_id(), "hello")).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_partitions_and_inherit_them() {
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let mut world = World::with(sharing(), bus).await;
    let all = usize::from(PARTITIONS);
    let shares = |world: &World, others: &[&Services]| {
        let mut shares: Vec<_> = others.iter().map(|node| node.partitions()).collect();
        shares.extend(world.services.as_ref().map(Services::partitions));
        shares
    };
    eventually("the first to own all", || shares(&world, &[]) == [all]).await;
    all_partitions_work(&mut world, 0).await;

    let (second, stop_second) = join(&world).await;
    eventually("halves", || shares(&world, &[&second]) == [all / 2; 2]).await;
    all_partitions_work(&mut world, 1).await;

    let (third, stop_third) = join(&world).await;
    let (fourth, stop_fourth) = join(&world).await;
    let others = [&second, &third, &fourth];
    eventually("quarters", || shares(&world, &others) == [all / 4; 4]).await;
    all_partitions_work(&mut world, 2).await;

    for (mut node, stop) in [
        (second, stop_second),
        (third, stop_third),
        (fourth, stop_fourth),
    ] {
        stop.cancel();
        node.stopped().await;
    }
    eventually("the first to inherit", || shares(&world, &[]) == [all]).await;
    all_partitions_work(&mut world, 3).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_inherited_within_its_ttl() {
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let mut world = World::idle(sharing(), bus).await;
    // A node that died right after its announcement.
    let ttl = Duration::from_millis(2 * OWNER_TTL_MS);
    world.directory.announce("message", 99, ttl).await.unwrap();
    world.start().await;
    let services = world.services.take().unwrap();
    let half = usize::from(PARTITIONS) / 2;
    eventually("half", || services.partitions() == half).await;
    eventually("the rest", || services.partitions() == 2 * half).await;
    world.services = Some(services);
    all_partitions_work(&mut world, 0).await;
    world.stop().await;
}
