//! Questions of the application.

use super::*;

#[test]
fn a_question_is_asked_again_after_a_reconnect_unless_it_may_harm() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 12);
    world.run_for(1_000);
    let now_ms = world.now_ms;
    let session = &mut world.devices[0].session;
    let list = Body::ListConversations(packet::ListConversations::default());
    session.ask(now_ms, list, 30_000).unwrap();
    let request = Body::Request(packet::Request::default());
    session.ask(now_ms, request, 30_000).unwrap();
    world.cut(0);
    world.run_for(5_000);
    let answers = &world.devices[0].answers;
    assert_eq!(answers[0], Err(CallError::ConnectionLost));
    assert!(matches!(answers[1], Ok(Body::ConversationList(_))));
    assert_eq!(answers.len(), 2);
}

/// Of two recallers one makes the entry and the other gets its place: both must
/// tell it as the log has it, whether it is pushed to them or not.
#[test]
fn two_recallers_tell_one_entry() {
    for push_lost in [0, 500, 1000] {
        for seed in 0..8 {
            let users = [("alice", "phone"), ("bob", "phone")];
            let mut world = World::new(&users, SessionConfig::default(), seed);
            let group = world.server.create_group(3, &["alice", "bob"]);
            world.run_for(1_000);
            world.send(1, &group, "oops".to_owned());
            world.run_for(1_000);
            let told = |world: &World| [0, 1].map(|at| world.devices[at].entries.len());
            assert_eq!(told(&world), [2, 2]);

            world.faults.push_lost = push_lost;
            for at in 0..2 {
                let recall = Body::Recall(packet::Recall {
                    conversation_id: group.to_string(),
                    seq: 2,
                    ..packet::Recall::default()
                });
                let now_ms = world.now_ms;
                let session = &mut world.devices[at].session;
                session.ask(now_ms, recall, 30_000).unwrap();
                world.turn(at);
            }
            // Nobody waits for a look at the heads.
            world.run_for(1_000);
            assert_eq!(told(&world), [3, 3]);
            for device in &world.devices {
                let [Ok(Body::SendAck(ack))] = device.answers.as_slice() else {
                    panic!("{:?}", device.answers);
                };
                assert_eq!(ack.seq, 3);
            }
            let [alices, bobs] = [0, 1].map(|at| world.devices[at].entries.last().unwrap());
            assert_eq!(alices, bobs);
            world.check();
        }
    }
}

/// Over datagrams a page may be long on its way behind what is sent again, and another
/// would only lengthen the way; in any case it is asked for again in the end.
#[test]
fn where_something_is_heard_a_page_may_take_longer() {
    let cases = [(false, true, 15), (true, true, 45), (true, false, 15)];
    for (is_datagram, is_heard, again_by_s) in cases {
        let mut world = World::new(&USERS[..2], SessionConfig::default(), 3);
        world.keeps_itself_alive = is_datagram;
        world.run_for(1_000);
        let pair = pair("alice", "bob");
        world.faults.push_lost = 1000;
        world.send(1, &pair, "hidden".to_owned());
        world.run_for(1_000);
        world.faults.push_lost = 0;
        world.send(1, &pair, "shows the hole".to_owned());
        world.run_for(200);
        world.faults.answer_lost = 1000;
        let before = world.pulls;
        let mut again_s = 0;
        while world.pulls < before + 2 {
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
            (again_by_s - 6..=again_by_s).contains(&again_s),
            "{is_datagram} {is_heard}: after {again_s} s"
        );
        world.faults.answer_lost = 0;
        world.run_for(120_000);
        world.check();
    }
}
