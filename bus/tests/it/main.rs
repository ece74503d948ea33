//! The in-process bus and directory, as gateways and services use them.

use std::time::Duration;

use bytes::Bytes;
use sluice_bus::*;
use sluice_protocol::*;

#[tokio::test]
async fn entries_come_in_order_and_come_again_to_the_next_owner() {
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let stream = Stream::Message(Partition(1));
    let name = NodeName("a".into());
    let batch = (0..10u8).map(|n| Bytes::from(vec![n])).collect();
    bus.append(&stream, batch).await.unwrap();
    let mut first = bus.own(&stream, &name).await.unwrap();
    let read = first.read(4).await.unwrap();
    first.ack(&[read.entries[0].id]).await.unwrap();
    drop(first);
    let mut second = bus.own(&stream, &name).await.unwrap();
    let read = second.read(100).await.unwrap();
    let seen: Vec<_> = read
        .entries
        .iter()
        .map(|e| (e.payload[0], e.deliveries))
        .collect();
    assert_eq!(seen[..4], [(1, 2), (2, 2), (3, 2), (4, 1)]);
    assert_eq!(bus.lag(&stream).await.unwrap().entries, 9);
}

#[tokio::test]
async fn a_bound_device_is_found_while_its_gateway_lives() {
    let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
    let gateway = Incarnation(1);
    let user = UserId::parse("ann").unwrap();
    directory
        .lease(gateway, Duration::from_secs(9))
        .await
        .unwrap();
    let route = Route {
        device: DeviceId::parse("phone").unwrap(),
        platform: 1,
        connection: ConnectionId {
            incarnation: gateway,
            event_loop: 0,
            slot: 1,
            generation: 0,
        },
    };
    let bind = Bind {
        user: user.clone(),
        route: route.clone(),
        login: 1,
    };
    let bound = directory
        .bind(bind, DevicePolicy::EachDevice, 8)
        .await
        .unwrap();
    assert_eq!(bound, BindOutcome::Bound { replaced: vec![] });
    assert_eq!(
        directory.lookup(std::slice::from_ref(&user)).await.unwrap(),
        [vec![route]]
    );
    directory.release(gateway).await.unwrap();
    assert_eq!(directory.lookup(&[user]).await.unwrap(), [vec![]]);
}
