//! What goes out beside messages, and how fast: acks, read cursors, notices.

use super::*;

#[test]
fn read_cursors_are_told_again_after_a_lost_connection() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 15);
    let pair = pair("alice", "bob");
    // Before there is a connection.
    world.devices[0].session.read(world.now_ms, pair.clone(), 3);
    world.run_for(1_000);
    for seq in [5, 4] {
        let now_ms = world.now_ms;
        world.devices[0].session.read(now_ms, pair.clone(), seq);
        world.turn(0);
    }
    world.run_for(1_000);
    world.cut(0);
    world.run_for(60_000);
    world.cut(0);
    world.run_for(60_000);
    let seqs: Vec<_> = world.server.reads.iter().map(|it| it.seq).collect();
    assert_eq!(seqs, [3, 5, 5]);
}

#[test]
fn one_who_comes_back_to_thousands_of_groups_keeps_the_servers_pace() {
    const GROUPS: u64 = 5_000;
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 22);
    (world.server.packets_per_s, world.server.packets_burst) = (50, 200);
    for number in 1..=GROUPS {
        world.server.create_group(number, &["bob", "alice"]);
    }
    // A pull and a cursor for each of them, at 50 a second.
    world.run_for(400_000);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
    assert_eq!(world.devices[0].entries.len() as u64, GROUPS);
    assert_eq!(world.server.connects.len(), 1);
    world.check();
    // What can't wait doesn't wait for the cursors.
    let most = world
        .server
        .push_acks
        .iter()
        .map(|(_, ack)| ack.cursors.len())
        .max();
    assert_eq!(most, Some(64));
}

#[test]
fn messages_go_beside_thousands_of_cursors() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 23);
    (world.server.packets_per_s, world.server.packets_burst) = (20, 40);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let now_ms = world.now_ms;
    for number in 1..=2_000 {
        let group = ConversationId::group(sluice_protocol::MessageId(number));
        world.devices[0].session.acks.unpushed(&group, 1, now_ms);
    }
    world.run_for(20_000);
    let told = world.server.delivered.len();
    assert!((200..300).contains(&told), "{told}");
    for body in numbered(10) {
        world.send(0, &pair, body);
    }
    world.run_for(2_000);
    assert_eq!(world.bodies(&pair, "alice"), numbered(10));
    assert_eq!(world.server.over_rate, 0);
}

#[test]
fn notices_and_reads_on_a_stalled_connection_are_bounded() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 24);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    // The connection takes nothing: nobody polls for packets.
    let now_ms = world.now_ms;
    let session = &mut world.devices[0].session;
    let typing = || Body::Typing(packet::Typing::default());
    for _ in 0..NOTICES_MAX {
        assert_eq!(session.notify(typing()), Ok(()));
    }
    assert_eq!(
        session.notify(typing()),
        Err(SendError::Stalled(NOTICES_MAX))
    );
    for seq in 1..1_000 {
        session.read(now_ms, pair.clone(), seq);
    }
    let sent = std::iter::from_fn(|| session.poll_transmit(now_ms)).count();
    assert_eq!(sent, NOTICES_MAX + 1, "the newest read cursor alone");
    assert_eq!(session.notify(typing()), Ok(()));
    // And they die with their connection.
    world.cut(0);
    assert!(world.devices[0].session.notices.is_empty());
}
