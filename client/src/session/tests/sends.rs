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

/// Over datagrams an ack may be long on its way behind what is sent again, and a repeat
/// would only lengthen the way; over streams as well, but there the wait stays what it is.
#[test]
fn where_something_is_heard_an_ack_may_take_longer() {
    let cases = [(false, true, 15), (true, true, 45), (true, false, 15)];
    for (is_datagram, is_heard, again_by_s) in cases {
        let mut world = World::new(&USERS[..1], SessionConfig::default(), 3);
        world.keeps_itself_alive = is_datagram;
        world.run_for(1_000);
        world.faults.answer_lost = 1000;
        world.send(0, &pair("alice", "bob"), "once".to_owned());
        let mut again_s = 0;
        while world.sends == 1 {
            again_s += 1;
            assert!(again_s < 60, "never again");
            if is_heard {
                let conn = world.devices[0].conn.unwrap();
                let notice = packet::TypingNotice::default();
                world.server.push_to(conn, Body::TypingNotice(notice));
            }
            world.run_for(1_000);
        }
        assert!(
            (again_by_s - 5..=again_by_s).contains(&again_s),
            "{is_datagram} {is_heard}: after {again_s} s"
        );
        world.faults.answer_lost = 0;
        world.run_for(120_000);
        world.check();
    }
}

/// A service that is away for a while, while others push on, costs a send no more than
/// the longest of the waits that double.
#[test]
fn what_is_heard_does_not_lengthen_the_waits_that_have_grown() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 3);
    world.keeps_itself_alive = true;
    world.run_for(1_000);
    world.faults.answer_lost = 1000;
    world.send(0, &pair("alice", "bob"), "once".to_owned());
    let mut at_s = Vec::new();
    for now_s in 0..300 {
        let before = world.sends;
        let conn = world.devices[0].conn.unwrap();
        let notice = packet::TypingNotice::default();
        world.server.push_to(conn, Body::TypingNotice(notice));
        world.run_for(1_000);
        at_s.extend((before..world.sends).map(|_| now_s));
    }
    let waits: Vec<_> = at_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(at_s.len() >= 5, "{at_s:?}");
    assert!(
        waits.iter().all(|wait| (35..=85).contains(wait)),
        "{waits:?}"
    );
    world.faults.answer_lost = 0;
    world.run_for(120_000);
    world.check();
}
