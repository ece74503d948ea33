//! Durable sends: the window, refusals, the outbox.

use super::*;

#[test]
fn a_refused_send_fails_alone() {
    let mut world = World::new(&USERS[..2], SessionConfig::default(), 4);
    world.server.refused = Some((b"bad", packet::ErrorCode::Muted));
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let mut refused = Vec::new();
    for n in 0..12 {
        if n % 4 == 1 {
            refused.push(world.send(0, &pair, format!("bad {n}")));
        } else {
            world.send(0, &pair, format!("{n}"));
        }
    }
    world.run_for(60_000);
    world.check();
    assert_eq!(world.devices[0].refused, refused);
    let kept = ["0", "2", "3", "4", "6", "7", "8", "10", "11"];
    assert_eq!(world.bodies(&pair, "alice"), kept);
}

#[test]
fn busy_holds_back_its_conversation_only() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 5);
    let (slow, fast) = (pair("alice", "bob"), pair("alice", "carol"));
    world.run_for(1_000);
    world.faults.busy = 1000;
    for body in numbered(5) {
        world.send(0, &slow, body);
    }
    world.faults.busy = 0;
    for body in numbered(5) {
        world.send(0, &fast, body);
    }
    world.run_for(1_000);
    assert_eq!(world.bodies(&slow, "alice"), numbered(5));
    assert_eq!(world.bodies(&fast, "alice"), numbered(5));
    world.check();
}

#[test]
fn no_more_sends_than_the_window_are_under_way() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 6);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let before = world.up.len();
    for body in numbered(100) {
        world.send(0, &pair, body);
    }
    assert_eq!(world.up.len() - before, 16);
    world.run_for(10_000);
    assert_eq!(world.bodies(&pair, "alice"), numbered(100));
}

#[test]
fn a_full_outbox_says_so() {
    let config = SessionConfig {
        outbox_max_sends: 3,
        ..SessionConfig::default()
    };
    let mut world = World::new(&USERS[..1], config, 7);
    let pair = pair("alice", "bob");
    let session = &mut world.devices[0].session;
    let mut send = || session.send(0, pair.clone(), packet::ContentType::Text, Bytes::new());
    for _ in 0..3 {
        send().unwrap();
    }
    assert_eq!(send(), Err(SendError::Full(3)));
}

#[test]
fn a_send_that_the_server_keeps_failing_at_is_given_up() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 17);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    world.server.refused = Some((b"poison", packet::ErrorCode::Internal));
    let id = world.send(0, &pair, "poison".to_owned());
    world.send(0, &pair, "fine".to_owned());
    world.run_for(120_000);
    assert_eq!(world.devices[0].refused, [id]);
    assert_eq!(world.server.refusals, 6);
    world.check();
}
