//! Logging in, heartbeats, going away, backing off.

use super::*;

#[test]
fn a_quiet_session_only_pings_and_looks_at_its_heads() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 1);
    world.run_for(1_000);
    let seen = world.packets;
    world.run_for(DAY_MS / 24);
    let device = &world.devices[0];
    assert_eq!(
        device.events,
        [Event::Connected { resumed: false }, Event::CaughtUp]
    );
    // A ping and its answer each 30 s, heads and answer about each 5 minutes.
    let packets = world.packets - seen;
    assert!((200..320).contains(&packets), "{packets}");
}

#[test]
fn a_wrong_clock_is_set_by_the_server() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 8);
    let device = &mut world.devices[0];
    device.saved.clock_offset_ms = -3_600_000;
    let saved = device.saved.clone();
    let session = world.session("alice", "phone", saved);
    world.devices[0].session = session;
    let id = {
        world.run_for(3_000);
        world.send(0, &pair("alice", "bob"), "now".to_owned())
    };
    assert_eq!(world.server.connects.len(), 2);
    assert!(id.unix_ms().abs_diff(world.now_ms) < 100);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
}

#[test]
fn a_spent_resume_token_falls_back_to_the_login_token() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 9);
    world.devices[0].saved.resume_token = Bytes::from_static(b"spent");
    world.restart(0);
    world.run_for(3_000);
    let resumed = world.server.connects.iter();
    let resumed: Vec<_> = resumed.map(|it| !it.resume_token.is_empty()).collect();
    assert_eq!(resumed, [true, false]);
    world.cut(0);
    world.run_for(3_000);
    let connected = |event: &&Event| matches!(event, Event::Connected { .. });
    let connected = world.devices[0].events.iter().filter(connected);
    assert_eq!(
        connected.cloned().collect::<Vec<_>>(),
        [
            Event::Connected { resumed: false },
            Event::Connected { resumed: true }
        ]
    );
}

#[test]
fn silence_is_taken_for_death() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 10);
    world.run_for(1_000);
    let conn = world.devices[0].conn.unwrap();
    // The server forgets the connection without a word.
    world.server.close(conn);
    world.run_for(80_000);
    let silent = |event: &Event| matches!(event, Event::Disconnected { reason, .. } if *reason == DisconnectReason::Silent);
    assert!(world.devices[0].events.iter().any(silent));
    assert!(world.devices[0].session.is_online());
}

#[test]
fn failed_connects_back_off_with_jitter_up_to_a_bound() {
    let config = SessionConfig::default();
    let mut world = World::new(&USERS[..1], config, 11);
    let session = &mut world.devices[0].session;
    let mut now_ms = 0;
    let mut waits = Vec::new();
    for _ in 0..40 {
        assert!(session.connect_due(now_ms));
        session.connecting();
        let reason = DisconnectReason::ConnectFailed(String::new());
        session.handle_disconnected(now_ms, reason);
        let at = session.next_timeout_ms().unwrap();
        waits.push(at - now_ms);
        now_ms = at;
    }
    assert!(waits[0] <= 200 && waits[3] <= 1_600);
    assert!(waits.iter().all(|wait| *wait <= 30_000));
    assert!(waits[10..].iter().any(|wait| *wait > 15_000));
}

#[test]
fn a_server_that_goes_is_left_within_its_span() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 14);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let go_away = packet::GoAway {
        reason: packet::CloseReason::GoingAway.into(),
        reconnect_delay_min_ms: 1_000,
        reconnect_delay_max_ms: 2_000,
    };
    let conn = world.devices[0].conn.unwrap();
    world.server.push_to(conn, Body::GoAway(go_away));
    world.collect_down();
    world.run_for(500);
    world.send(0, &pair, "later".to_owned());
    assert_eq!(world.up.len(), 0);
    world.run_for(2_000);
    assert_ne!(world.devices[0].conn, Some(conn));
    assert_eq!(world.bodies(&pair, "alice"), ["later"]);
    let gone = Event::Disconnected {
        reason: DisconnectReason::Closed(Some(packet::CloseReason::GoingAway)),
        retry_in_ms: Some(0),
    };
    assert!(world.devices[0].events.contains(&gone));
}

#[test]
fn a_refresh_that_meets_a_busy_server_is_tried_again() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 17);
    world.server.busy_refreshes = 3;
    world.run_for(DAY_MS);
    assert_eq!(world.server.busy_refreshes, 0);
    assert_eq!(world.server.refreshes, 1);
    assert_eq!(world.server.connects.len(), 1);
}

#[test]
fn a_token_is_refreshed_before_it_ends() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 16);
    world.run_for(DAY_MS - 3_600_000);
    assert_eq!(world.server.refreshes, 0);
    world.run_for(3_600_000);
    assert_eq!(world.server.refreshes, 1);
    assert_eq!(world.server.connects.len(), 1);
}

#[test]
fn each_login_is_later_than_the_one_before() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 10);
    for _ in 0..20 {
        world.run_for(1);
        world.cut(0);
        world.run_for(1_000);
    }
    let times: Vec<_> = world.server.connects.iter().map(|it| it.time_ms).collect();
    assert!(times.len() > 5, "{times:?}");
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}
