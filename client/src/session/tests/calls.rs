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
