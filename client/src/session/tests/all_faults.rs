//! Everything at once, on the worst of networks.

use proptest::prelude::*;

use super::*;

fn faults() -> impl Strategy<Value = Faults> {
    let rates = (0_u32..300, 0_u32..200, 0_u32..300, 0_u32..60, 0_u32..300);
    let rare = (0_u32..200, 0_u32..6, 0_u32..4, 0_u32..6, 0_u32..900);
    (rates, rare).prop_map(|(often, rare)| Faults {
        push_lost: often.0,
        push_doubled: often.1,
        push_late: often.2,
        answer_lost: often.3,
        answer_late: often.4,
        busy: rare.0,
        cut: rare.1,
        restart: rare.2,
        upset: rare.3,
        slow_application: rare.4,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        seed in any::<u64>(),
        faults in faults(),
        bare in any::<bool>(),
        page in 1_usize..20,
        plan in prop::collection::vec((0_usize..4, 0_usize..3, 0_u64..400), 1..160),
    ) {
        // Small bounds, so that they are met.
        let config = SessionConfig { events_max: 8, held_max_entries: 8, ..SessionConfig::default() };
        let mut world = World::new(&USERS, config, seed);
        world.server.page = page;
        world.server.notices_are_bare = bare;
        let group = world.server.create_group(7, &["alice", "bob", "carol"]);
        let mut sent: HashMap<(String, usize), Vec<String>> = HashMap::new();
        world.faults = faults;
        for (n, (device, to, pause)) in plan.into_iter().enumerate() {
            let user = world.devices[device].user;
            let others: Vec<_> = ["alice", "bob", "carol"].into_iter().filter(|it| *it != user).collect();
            let conversation = others.get(to).map_or(group.clone(), |other| pair(user, other));
            let body = format!("{n} of {device}");
            world.send(device, &conversation, body.clone());
            sent.entry((conversation.to_string(), device)).or_default().push(body);
            world.run_for(pause);
            if world.strikes(faults.cut) {
                world.cut(device);
            }
        }
        world.run_with_faults(faults, 20_000);
        world.check();
        for ((conversation, device), bodies) in sent {
            let conversation = ConversationId::parse(&conversation).unwrap();
            let mine = format!(" of {device}");
            let stored = world.bodies(&conversation, world.devices[device].user);
            // Another device of the same user has an order of its own.
            let stored: Vec<_> = stored.into_iter().filter(|it| it.ends_with(&mine)).collect();
            prop_assert_eq!(stored, bodies);
        }
    }
}
