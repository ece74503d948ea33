//! Pulls that come faster than they are answered.

use sluice_bus::{MemoryBus, MemoryBusConfig, Stream};
use sluice_protocol::{
    limits::SHARED_PARTITIONS,
    packet::{self, packet::Body},
    partition_of,
};
use sluice_services::Config;

use crate::world::{World, config};

const AT_ONCE: usize = 4;

#[tokio::test]
async fn who_asks_too_fast_is_put_off_and_holds_nobody_up() {
    let config = Config {
        pulls_per_user_max: AT_ONCE,
        ..config()
    };
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config, bus).await;
    // Two users of one stream, so that their pulls come in one batch.
    let stream_of = |name: &str| partition_of(name.as_bytes(), SHARED_PARTITIONS);
    let patient = (0..)
        .map(|n| format!("patient{n}"))
        .find(|name| stream_of(name) == stream_of("eager"))
        .unwrap();
    world.add_users(&["eager", &patient]).await;
    let eager = world.gateway.device("eager", "phone");
    let patient = world.gateway.device(&patient, "phone");
    let sync = || Body::SyncInbox(packet::SyncInbox { after: 0, limit: 1 });
    let mut asked = Vec::new();
    for _ in 0..AT_ONCE * 3 {
        asked.push(world.gateway.packet(Stream::Query, &eager, sync()).await);
    }
    let last = world.gateway.packet(Stream::Query, &patient, sync()).await;
    world.start().await;

    let answer = world.gateway.answer(&patient, last).await;
    assert!(matches!(answer, Body::InboxPage(_)), "{answer:?}");
    for (place, id) in asked.into_iter().enumerate() {
        let answer = world.gateway.answer(&eager, id).await;
        match place < AT_ONCE {
            true => assert!(matches!(answer, Body::InboxPage(_)), "{answer:?}"),
            false => assert!(
                matches!(&answer, Body::Busy(busy) if busy.retry_after_ms > 0),
                "{answer:?}"
            ),
        }
    }
    // Later the same question is taken.
    let again = world.query(&eager, sync()).await;
    assert!(matches!(again, Body::InboxPage(_)), "{again:?}");
    world.stop().await;
}

#[tokio::test]
async fn few_lists_of_a_user_are_read_at_once() {
    let config = Config {
        lists_per_user_max: 2,
        ..config()
    };
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config, bus).await;
    world.add_users(&["eager"]).await;
    let eager = world.gateway.device("eager", "phone");
    let list = || Body::ListConversations(packet::ListConversations::default());
    let sync = Body::SyncInbox(packet::SyncInbox { after: 0, limit: 1 });
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(world.gateway.packet(Stream::Query, &eager, list()).await);
    }
    let other = world.gateway.packet(Stream::Query, &eager, sync).await;
    world.start().await;

    for (place, id) in asked.into_iter().enumerate() {
        let answer = world.gateway.answer(&eager, id).await;
        match place < 2 {
            true => assert!(matches!(answer, Body::ConversationList(_)), "{answer:?}"),
            false => assert!(
                matches!(&answer, Body::Busy(busy) if busy.retry_after_ms > 0),
                "{answer:?}"
            ),
        }
    }
    // Cheaper pulls have no part in it.
    let answer = world.gateway.answer(&eager, other).await;
    assert!(matches!(answer, Body::InboxPage(_)), "{answer:?}");
    // The seats were given back.
    for _ in 0..3 {
        let again = world.query(&eager, list()).await;
        assert!(matches!(again, Body::ConversationList(_)), "{again:?}");
    }
    world.stop().await;
}
