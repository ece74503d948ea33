//! What nodes keep in memory changes no answer, whoever changes it where.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use sluice_bus::{Directory, MemoryBus, MemoryBusConfig, Stream};
use sluice_protocol::{Incarnation, envelope::Down};
use sluice_services::{Config, Services};
use sluice_store::Store;

use crate::{
    http::Api,
    shares::{eventually, join},
    world::{PARTITIONS, World, config, user},
};

/// What is read once stays for the length of a test.
fn keeping() -> Config {
    Config {
        standing_ttl_ms: 3_600_000,
        owner_ttl_ms: 500,
        ..config()
    }
}

async fn world(config: Config) -> World {
    World::with(config, MemoryBus::new(MemoryBusConfig::default())).await
}

/// Incarnations of the services that run.
async fn announced(world: &World) -> Vec<u64> {
    let all = world.directory.announce("service", 0, Duration::ZERO);
    all.await
        .unwrap()
        .into_iter()
        .filter(|it| *it != 0)
        .collect()
}

/// Alice, and others in every partition that she has written to.
async fn acquainted(api: &Api) -> (String, Vec<(String, String)>) {
    let alice = api.user("alice").await;
    let mut others = Vec::new();
    for number in 0..12 {
        let name = format!("bob {number}");
        let token = api.user(&name).await;
        others.push((name, token));
    }
    for (name, _) in &others {
        greet(api, &alice, name).await.is(200);
    }
    (alice, others)
}

async fn greet(api: &Api, token: &str, to: &str) -> crate::http::Answer {
    let message = Some(json!({"to_user": to, "text": "hello"}));
    api.call("POST", "/messages", token, message).await
}

/// Word of a change is on its way when the call that made it is answered.
async fn soon(api: &Api, token: &str, to: &str, status: u16) {
    let told = async {
        while greet(api, token, to).await.status.as_u16() != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    told.unwrap_or_else(|_| panic!("no {status} for a message to {to}"));
}

fn block_of(name: &str) -> String {
    format!("/users/{}/blocks/alice", name.replace(' ', "%20"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_changes_the_others_forget() {
    let world = world(keeping()).await;
    let (mut second, stop) = join(&world).await;
    let half = usize::from(PARTITIONS) / 2;
    let both = |world: &World| world.services.as_ref().map(Services::partitions);
    eventually("halves", || {
        both(&world) == Some(half) && second.partitions() == half
    })
    .await;
    let (here, there) = (Api::of(&world), Api(second.router()));
    let (alice, others) = acquainted(&here).await;
    for (name, token) in &others {
        let path = block_of(name);
        there.call("PUT", &path, token, None).await.is(204);
        soon(&here, &alice, name, 403).await;
        here.call("DELETE", &path, token, None).await.is(204);
        soon(&there, &alice, name, 200).await;
    }
    let status = |status: &str| Some(json!({"status": status}));
    let of_alice = "/admin/users/alice/status";
    let muted = there.call("PUT", of_alice, "let me in", status("muted"));
    muted.await.is(204);
    for (name, _) in &others {
        soon(&here, &alice, name, 403).await;
    }
    stop.cancel();
    second.stopped().await;
    assert_eq!(announced(&world).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_gap_in_what_a_node_was_told_makes_it_forget_all() {
    let world = world(keeping()).await;
    let api = Api::of(&world);
    eventually("the announcement", || {
        futures_util::FutureExt::now_or_never(announced(&world)).is_some_and(|it| !it.is_empty())
    })
    .await;
    let (alice, others) = acquainted(&api).await;
    let (bob, blocker) = (&others[0].0, user(&others[0].0));
    let store = &world.store;
    store
        .set_block(&blocker, &user("alice"), true)
        .await
        .unwrap();
    // Nobody was told, so what was read before still holds here.
    greet(&api, &alice, bob).await.is(200);
    let down = Down {
        producer: 77,
        counter: 2,
        deliveries: Vec::new(),
    };
    let me = announced(&world).await[0];
    let stream = Stream::Down(Incarnation(u32::try_from(me).unwrap()));
    let bytes = down.encode_to_vec().into();
    world.gateway.append_bytes(&stream, bytes).await;
    soon(&api, &alice, bob, 403).await;
    greet(&api, &alice, bob).await.refused(403, "blocked");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_may_be_forgotten_keeps_nothing_until_it_is_announced_again() {
    let world = world(Config {
        // It is announced once in the length of a test.
        owner_ttl_ms: 3_600_000,
        ..keeping()
    })
    .await;
    let api = Api::of(&world);
    eventually("the announcement", || {
        futures_util::FutureExt::now_or_never(announced(&world)).is_some_and(|it| !it.is_empty())
    })
    .await;
    let (alice, others) = acquainted(&api).await;
    // A flush takes the streams with what they held, and the announcements.
    let me = announced(&world).await[0];
    let forgotten = world.directory.announce("service", me, Duration::ZERO);
    forgotten.await.unwrap();
    let blocks = async |blocker: &str| {
        let (blocker, blocked) = (user(blocker), user("alice"));
        let block = world.store.set_block(&blocker, &blocked, true);
        block.await.unwrap();
    };
    blocks(&others[0].0).await;
    let down = Down {
        producer: 77,
        counter: 2,
        deliveries: Vec::new(),
    };
    let stream = Stream::Down(Incarnation(u32::try_from(me).unwrap()));
    let bytes = down.encode_to_vec().into();
    world.gateway.append_bytes(&stream, bytes).await;
    soon(&api, &alice, &others[0].0, 403).await;
    // Of changes from now on nobody can tell it.
    for (name, _) in &others[1..] {
        greet(&api, &alice, name).await.is(200);
        blocks(name).await;
        greet(&api, &alice, name).await.refused(403, "blocked");
    }
    world.stop().await;
}

#[tokio::test]
async fn without_caches_every_question_goes_to_the_store() {
    let world = world(Config {
        caches: false,
        ..keeping()
    })
    .await;
    let api = Api::of(&world);
    let (alice, others) = acquainted(&api).await;
    for (name, _) in &others {
        let blocker = user(name);
        let blocked = user("alice");
        let block = world.store.set_block(&blocker, &blocked, true);
        block.await.unwrap();
        greet(&api, &alice, name).await.refused(403, "blocked");
    }
    world.stop().await;
}
