//! Holes, heads, windows of groups, recalls.

use super::*;

#[test]
fn a_hole_is_pulled_after_its_patience() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 2);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    world.faults.push_lost = 1000;
    world.server.say(&pair, "bob", "lost");
    world.step(world.now_ms);
    world.faults.push_lost = 0;
    world.server.say(&pair, "bob", "seen");
    world.run_for(250);
    assert!(world.devices[0].entries.is_empty());
    world.run_for(500);
    assert_eq!(world.devices[0].entries.len(), 2);
    world.check();
}

#[test]
fn a_lost_last_push_is_found_by_looking_at_the_heads() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 3);
    world.run_for(1_000);
    world.faults.push_lost = 1000;
    world.server.say(&pair("alice", "bob"), "bob", "lost");
    world.run_for(1_000);
    world.faults.push_lost = 0;
    assert!(world.devices[0].entries.is_empty());
    world.run_for(460_000);
    assert_eq!(world.devices[0].entries.len(), 1);
}

#[test]
fn one_who_is_no_member_any_more_stops_pulling() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 13);
    let group = world.server.create_group(9, &["bob", "alice"]);
    world.run_for(1_000);
    world.server.notices_are_bare = true;
    world.server.say(&group, "bob", "you are out");
    world.server.members.get_mut("g:9").unwrap().remove("alice");
    world.run_for(60_000);
    assert_eq!(world.devices[0].entries.len(), 1);
    assert!(matches!(
        world.devices[0].entries[0].content,
        Content::GroupChange { created: true, .. }
    ));
    let timeout = world.devices[0].session.sync.deadline_ms();
    assert!(timeout.is_none_or(|at| at > world.now_ms + 10_000));
}

#[test]
fn more_groups_than_can_be_followed_are_no_catching_up() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 20);
    let known: Vec<_> = (0..sync::GROUPS_MAX as u64)
        .map(|n| world.server.create_group(1_000 + n, &["alice"]))
        .collect();
    world.devices[0].saved.groups = known.into_iter().map(|group| (group, 1)).collect();
    let group = world.server.create_group(1, &["alice"]);
    world.restart(0);
    world.run_for(5_000);
    let events = &world.devices[0].events;
    assert!(!events.contains(&Event::CaughtUp), "{events:?}");
    let skipped = Event::TooManyGroups {
        conversation: group,
    };
    assert_eq!(events.iter().filter(|event| **event == skipped).count(), 1);
}

#[test]
fn groups_that_the_server_names_no_more_make_room() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 26);
    let left = (0..sync::GROUPS_MAX as u64 - 1)
        .map(|n| ConversationId::group(sluice_protocol::MessageId(1_000 + n)));
    world.devices[0].saved.groups = left.map(|group| (group, 7)).collect();
    let first = world.server.create_group(1, &["alice", "bob"]);
    world.restart(0);
    world.run_for(5_000);
    // As long as there is room, nothing is forgotten.
    let saved = &world.devices[0].saved;
    assert_eq!(saved.groups.len(), sync::GROUPS_MAX);
    // One is pushed, and one is found by the heads.
    let pushed = world.server.create_group(2, &["alice", "bob"]);
    world.server.say(&pushed, "bob", "welcome");
    world.run_for(5_000);
    let found = world.server.create_group(3, &["alice", "bob"]);
    world.restart(0);
    world.run_for(5_000);
    let device = &world.devices[0];
    for (group, position) in [(first, 1), (pushed, 2), (found, 1)] {
        assert_eq!(device.saved.groups.get(&group), Some(&position), "{group}");
    }
    assert_eq!(device.saved.groups.len(), 3);
    assert_eq!(device.events.last(), Some(&Event::CaughtUp));
    let skipped = |event: &Event| matches!(event, Event::TooManyGroups { .. });
    assert!(!device.events.iter().any(skipped));
    world.check();
}

#[test]
fn a_server_that_was_set_back_is_told_and_followed_from_there() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 21);
    let pair = pair("alice", "bob");
    let group = world.server.create_group(1, &["alice", "bob"]);
    // Told by the server before it lost them.
    world.devices[0].saved.inbox = 50;
    world.devices[0].saved.groups.insert(group.clone(), 60);
    world.server.say(&pair, "bob", "kept");
    world.restart(0);
    world.run_for(3_000);
    let lost: Vec<_> = (world.devices[0].events.iter())
        .filter_map(|event| match event {
            Event::ServerBehind { group, told, .. } => Some((group.clone(), *told)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(None, 50), (Some(group.clone()), 60)]);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
    assert_eq!(world.devices[0].saved.inbox, 1);
    world.server.say(&pair, "bob", "new");
    world.server.say(&group, "bob", "new too");
    world.step(world.now_ms);
    world.run_for(3_000);
    assert_eq!(world.devices[0].entries.len(), 2);
    assert_eq!(world.devices[0].saved.inbox, 2);
}

#[test]
fn a_message_and_its_recall_are_told_whichever_came_first() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 25);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    // The push of the message is late (a retransmission, with its body), the
    // recall overtakes it.
    world.faults.push_lost = 1000;
    world.server.say(&pair, "bob", "regretted");
    world.step(world.now_ms);
    let late = world.server.inboxes["alice"][0].clone();
    world.faults.push_lost = 0;
    world.server.recall(&pair, "bob", 1);
    world.step(world.now_ms);
    world.run_for(100);
    assert!(world.devices[0].entries.is_empty(), "the recall is held");
    let push = packet::Push {
        number: 1,
        user_seq: 1,
        entry: late.entry,
    };
    let now_ms = world.now_ms;
    let packet = Packet {
        id: 0,
        body: Some(Body::Push(push)),
    };
    world.devices[0].session.handle_packet(now_ms, packet);
    world.turn(0);
    let told: Vec<_> = (world.devices[0].entries.iter())
        .map(|entry| match &entry.content {
            Content::Message { .. } => (entry.seq.0, None),
            Content::Recall { seq } => (entry.seq.0, Some(seq.0)),
            other => panic!("{other:?}"),
        })
        .collect();
    // The recall's entry comes after its message, so an application that applies
    // what it is told ends with the message recalled.
    assert_eq!(told, [(1, None), (2, Some(1))]);
}

#[test]
fn what_is_archived_is_told_and_waited_for_by_nobody() {
    // Devices: new, behind what is archived, in front of it.
    for (position, archived, told, rest) in [
        (0, 3, Some(0), 2),
        (2, 3, Some(2), 2),
        (4, 3, None, 1),
        (1, 5, Some(1), 0),
    ] {
        let mut world = World::new(&USERS[..1], SessionConfig::default(), 23);
        let pair = pair("alice", "bob");
        for number in 1..=5 {
            world.server.say(&pair, "bob", &format!("m{number}"));
        }
        world.server.archived = archived;
        world.devices[0].saved.inbox = position;
        world.restart(0);
        world.run_for(3_000);
        let events = &world.devices[0].events;
        let mut announced = events.iter().filter_map(|event| match event {
            Event::Archived { told, first } => Some((*told, *first)),
            _ => None,
        });
        assert_eq!(announced.next(), told.map(|told| (told, archived + 1)));
        assert_eq!(announced.next(), None);
        assert_eq!(events.last(), Some(&Event::CaughtUp), "{events:?}");
        assert_eq!(world.devices[0].entries.len(), rest);
        world.server.say(&pair, "bob", "new");
        world.step(world.now_ms);
        world.run_for(3_000);
        assert_eq!(world.devices[0].entries.len(), rest + 1);
        assert_eq!(world.devices[0].saved.inbox, 6);
    }
}
