//! Groups: who may do what, who hears of it, and what each member may see.

use sha2::{Digest as _, Sha256};
use sluice_bus::Stream;
use sluice_protocol::{
    ClientMsgId, ConversationId, Seq,
    envelope::{self, group_command::Command, up},
    limits::NOTICE_BODY_MAX_BYTES,
    packet::{self, Entry, ErrorCode, MemberRole, entry::Content, packet::Body},
};

use sluice_store::{Commit, NewEntry, Store as _};

use crate::world::{
    Device, PARTITIONS, World, ack, fresh_id, id_bytes, is_push, refusal, text, text_in, user,
};

fn add(users: &[&str]) -> Command {
    Command::Add(envelope::AddMembers {
        users: users.iter().map(|name| (*name).to_owned()).collect(),
    })
}

fn remove(user: &str) -> Command {
    Command::Remove(envelope::RemoveMember {
        user_id: user.into(),
    })
}

fn role(user: &str, role: MemberRole) -> Command {
    Command::SetRole(envelope::SetRole {
        user_id: user.into(),
        role: role.into(),
    })
}

fn leave() -> Command {
    Command::Leave(envelope::LeaveGroup {})
}

fn rename(name: &str) -> Command {
    Command::Rename(envelope::RenameGroup { name: name.into() })
}

fn is_text(entry: &Entry, said: &str) -> bool {
    matches!(entry.content, Some(Content::Message(_))) && text(entry) == said
}

async fn log(world: &mut World, device: &Device, group: &ConversationId) -> Vec<Entry> {
    let question = Body::SyncConversation(packet::SyncConversation {
        conversation_id: group.to_string(),
        range: Some(packet::sync_conversation::Range::After(0)),
        limit: 0,
    });
    match world.query(device, question).await {
        Body::ConversationPage(page) => page.entries,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn members_online_get_notices_and_the_sender_an_ack() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let tablet = world.device_online("bob", "tablet").await;
    world.add_users(&["carol"]).await;
    let group = world.group(&alice, &["bob", "carol", "bob", "alice"]).await;
    let founded = world.gateway.entry(&bob).await;
    let Some(Content::GroupChange(change)) = &founded.content else {
        panic!("{founded:?}")
    };
    assert!(change.created);
    assert_eq!(change.members, ["bob", "carol"]);

    let acked = ack(world
        .send(&alice, text_in(&group, fresh_id(), "hi all"))
        .await);
    assert_eq!((acked.seq, acked.user_seq), (2, 0));
    assert_eq!(text(&world.gateway.entry(&bob).await), "hi all");
    let (_, push) = world.gateway.push(&tablet).await;
    assert_eq!(push.seq, 1);
    let (_, push) = world.gateway.push(&tablet).await;
    assert_eq!(
        (push.seq, push.conversation_id.as_str()),
        (2, group.as_str())
    );

    // Too large to ride along: a bare notice, then a pull.
    let large = "x".repeat(NOTICE_BODY_MAX_BYTES + 1);
    ack(world
        .send(&alice, text_in(&group, fresh_id(), &large))
        .await);
    let (_, push) = world.gateway.push(&bob).await;
    assert_eq!(push.seq, 3);
    assert!(push.entry.is_empty());
    let entries = log(&mut world, &bob, &group).await;
    assert_eq!(text(&entries[2]), large);
    assert!(!world.gateway.rest(&alice).await.iter().any(is_push));

    let stranger = world.user_online("stranger").await;
    let send = text_in(&group, fresh_id(), "let me in");
    assert_eq!(
        refusal(world.send(&stranger, send).await),
        ErrorCode::NotAMember
    );
    world.stop().await;
}

#[tokio::test]
async fn membership_is_a_window_on_the_log() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let carol = world.user_online("carol").await;
    let group = world.group(&alice, &["bob"]).await;
    let send = text_in(&group, fresh_id(), "before");
    let before = ack(world.send(&alice, send.clone()).await);
    ack(world.command(&alice, &group, add(&["carol", "bob"])).await);
    let joined = world.gateway.entry(&carol).await;
    assert_eq!(joined.seq, 3, "the first that carol hears of");
    let Some(Content::MemberChange(change)) = &joined.content else {
        panic!("{joined:?}")
    };
    assert_eq!(change.users, ["carol"], "bob was in it already");
    // A retry of what came before she joined is not told to her.
    assert_eq!(ack(world.send(&alice, send).await).seq, before.seq);
    ack(world
        .send(&carol, text_in(&group, fresh_id(), "thanks"))
        .await);

    ack(world.command(&alice, &group, remove("carol")).await);
    assert_eq!(world.gateway.entry(&carol).await.seq, 5, "her last entry");
    ack(world.send(&bob, text_in(&group, fresh_id(), "after")).await);
    assert!(!world.gateway.rest(&carol).await.iter().any(is_push));
    let seqs: Vec<_> = log(&mut world, &carol, &group)
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect();
    assert_eq!(seqs, [3, 4, 5]);
    let send = text_in(&group, fresh_id(), "still here?");
    assert_eq!(
        refusal(world.send(&carol, send).await),
        ErrorCode::NotAMember
    );
    world.stop().await;
}

#[tokio::test]
async fn who_comes_back_keeps_the_window_they_had() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let group = world.group(&alice, &["bob"]).await; // 1
    let say = async |world: &mut World, device: &Device, text: &str| {
        let sent = world.send(device, text_in(&group, fresh_id(), text)).await;
        ack(sent).seq
    };
    assert_eq!(say(&mut world, &alice, "first").await, 2);
    let of_bob = say(&mut world, &bob, "mine").await; // 3
    ack(world.command(&alice, &group, remove("bob")).await); // 4
    let hidden = say(&mut world, &alice, "hidden").await; // 5
    ack(world.command(&alice, &group, add(&["bob"])).await); // 6
    assert_eq!(say(&mut world, &alice, "again").await, 7);

    let question = |after| {
        Body::SyncConversation(packet::SyncConversation {
            conversation_id: group.to_string(),
            range: Some(packet::sync_conversation::Range::After(after)),
            limit: 0,
        })
    };
    for (after, expected) in [
        (0, (vec![1, 2, 3, 4], 1, 4, true)),
        (4, (vec![6, 7], 6, 7, false)),
    ] {
        let Body::ConversationPage(page) = world.query(&bob, question(after)).await else {
            panic!()
        };
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!((seqs, page.first_seq, page.last_seq, page.more), expected);
    }
    let list = Body::ListConversations(packet::ListConversations::default());
    let Body::ConversationList(list) = world.query(&bob, list).await else {
        panic!()
    };
    let row = &list.conversations[0];
    assert_eq!((row.first_seq, row.last_seq, row.unread), (1, 7, 2));

    // Recalls reach what one may see, and nothing else.
    ack(world
        .command(&alice, &group, role("bob", MemberRole::Admin))
        .await); // 8
    assert_eq!(
        refusal(world.recall(&bob, &group, hidden).await),
        ErrorCode::UnknownMessage
    );
    ack(world.recall(&bob, &group, of_bob).await);
    ack(world.recall(&bob, &group, 2).await);
    world.stop().await;
}

#[tokio::test]
async fn roles_say_who_may_change_what() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let carol = world.user_online("carol").await;
    world.add_users(&["dave", "erin"]).await;
    let group = world.group(&alice, &["bob", "carol"]).await;
    for command in [
        add(&["dave"]),
        remove("carol"),
        rename("x"),
        role("carol", MemberRole::Admin),
    ] {
        assert_eq!(
            refusal(world.command(&bob, &group, command).await),
            ErrorCode::Forbidden
        );
    }
    ack(world
        .command(&alice, &group, role("bob", MemberRole::Admin))
        .await);
    ack(world.command(&bob, &group, add(&["dave"])).await);
    ack(world.command(&bob, &group, rename("crew")).await);
    ack(world.command(&bob, &group, remove("dave")).await);
    for (command, code) in [
        (remove("alice"), ErrorCode::Forbidden),
        (role("carol", MemberRole::Admin), ErrorCode::Forbidden),
        (add(&["carol"]), ErrorCode::BadRequest),
        (add(&["nobody"]), ErrorCode::UnknownUser),
        (remove("dave"), ErrorCode::NotAMember),
        (remove("bob"), ErrorCode::BadRequest),
        (rename(""), ErrorCode::BadRequest),
    ] {
        assert_eq!(refusal(world.command(&bob, &group, command).await), code);
    }
    // The owner hands the group over, and stays as admin.
    ack(world
        .command(&alice, &group, role("carol", MemberRole::Owner))
        .await);
    ack(world
        .command(&carol, &group, role("bob", MemberRole::Member))
        .await);
    assert_eq!(
        refusal(world.command(&alice, &group, remove("carol")).await),
        ErrorCode::Forbidden
    );
    // The owner leaves: the admin inherits.
    ack(world.command(&carol, &group, leave()).await);
    ack(world
        .command(&alice, &group, role("bob", MemberRole::Admin))
        .await);
    ack(world.command(&alice, &group, leave()).await);
    ack(world.command(&bob, &group, add(&["erin"])).await);
    ack(world.command(&bob, &group, leave()).await);
    assert_eq!(
        refusal(world.command(&bob, &group, leave()).await),
        ErrorCode::NotAMember
    );
    world.stop().await;
}

#[tokio::test]
async fn a_command_repeated_is_answered_again_and_done_once() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let group = world.group(&alice, &["bob"]).await;
    let stream = Stream::Message(group.partition(PARTITIONS));
    for command in [leave(), rename("late")] {
        let (device, id) = match &command {
            Command::Leave(_) => (&alice, fresh_id()),
            _ => (&bob, fresh_id()),
        };
        let command = envelope::GroupCommand {
            conversation_id: group.to_string(),
            command_id: id_bytes(id),
            command: Some(command),
        };
        let mut answers = Vec::new();
        for _ in 0..2 {
            let body = up::Body::GroupCommand(command.clone());
            let request = world.gateway.append(|_| stream.clone(), device, body).await;
            answers.push(ack(world.gateway.answer(device, request).await));
        }
        assert_eq!(answers[0], answers[1]);
    }
    // Founded; bob made owner, alice left; renamed.
    assert_eq!(log(&mut world, &bob, &group).await.len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn a_change_takes_hold_for_what_comes_right_behind_it() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let group = world.group(&alice, &[]).await;
    let partition = group.partition(PARTITIONS);
    let stream = |_| Stream::Message(partition);
    let command = |command| {
        up::Body::GroupCommand(envelope::GroupCommand {
            conversation_id: group.to_string(),
            command_id: id_bytes(fresh_id()),
            command: Some(command),
        })
    };
    let gateway = &world.gateway;
    // Quick enough to be one batch.
    let mut requests = Vec::new();
    let send = |text| text_in(&group, fresh_id(), text);
    requests.push(gateway.send(&bob, send("too early")).await);
    gateway.append(stream, &alice, command(add(&["bob"]))).await;
    requests.push(gateway.send(&bob, send("in time")).await);
    gateway.append(stream, &alice, command(remove("bob"))).await;
    requests.push(gateway.send(&bob, send("too late")).await);
    let mut answers = Vec::new();
    for request in requests {
        answers.push(world.gateway.answer(&bob, request).await);
    }
    let [early, in_time, late] = answers.try_into().unwrap();
    assert_eq!(refusal(early), ErrorCode::NotAMember);
    assert_eq!(ack(in_time).seq, 3);
    assert_eq!(refusal(late), ErrorCode::NotAMember);
    world.stop().await;
}

#[tokio::test]
async fn a_group_has_a_bound() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let group = ConversationId::group(sluice_protocol::MessageId(7));
    let create = |members: Vec<String>| {
        Command::Create(envelope::CreateGroup {
            name: "crowd".into(),
            members,
        })
    };
    let many = (0..500).map(|n| format!("u{n}")).collect();
    let answer = world.command(&alice, &group, create(many)).await;
    assert_eq!(refusal(answer), ErrorCode::TooLarge);
    let answer = world
        .command(&alice, &group, create(vec!["nobody".into()]))
        .await;
    assert_eq!(refusal(answer), ErrorCode::UnknownUser);
    world.stop().await;
}

#[tokio::test]
async fn a_command_whose_id_is_taken_is_refused_as_a_whole() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    let group = world.group(&alice, &["bob"]).await;
    let (first, second) = (fresh_id(), fresh_id());
    ack(world
        .command_as(&alice, &group, first, rename("pals"))
        .await);

    // Both of them are two entries, of which only the last has the command's id.
    for command in [role("bob", MemberRole::Owner), leave()] {
        let answer = world.command_as(&alice, &group, first, command).await;
        assert_eq!(refusal(answer), ErrorCode::ClientMsgIdReused);
    }
    let entries = log(&mut world, &alice, &group).await;
    assert_eq!(entries.len(), 2, "founded and renamed: {entries:?}");

    // The id may be taken by what is read in the same batch.
    let partition = group.partition(PARTITIONS);
    let sent = world
        .gateway
        .send(&alice, text_in(&group, second, "hi"))
        .await;
    let command = envelope::GroupCommand {
        conversation_id: group.to_string(),
        command_id: id_bytes(second),
        command: Some(role("bob", MemberRole::Owner)),
    };
    let handed_over = world
        .gateway
        .append(
            |_| Stream::Message(partition),
            &alice,
            up::Body::GroupCommand(command),
        )
        .await;
    ack(world.gateway.answer(&alice, sent).await);
    let answer = world.gateway.answer(&alice, handed_over).await;
    assert_eq!(refusal(answer), ErrorCode::ClientMsgIdReused);
    // She is the owner still.
    ack(world
        .command(&alice, &group, role("bob", MemberRole::Admin))
        .await);
}

#[tokio::test]
async fn who_has_left_is_acked_for_a_repeat_only() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let group = world.group(&alice, &["bob"]).await;
    let (said, left) = (fresh_id(), fresh_id());
    let first = ack(world.send(&bob, text_in(&group, said, "hi")).await);
    ack(world.command_as(&bob, &group, left, leave()).await);

    let again = ack(world.send(&bob, text_in(&group, said, "hi")).await);
    assert_eq!((again.seq, again.message_id), (first.seq, first.message_id));
    ack(world.command_as(&bob, &group, left, leave()).await);
    // The same ids, but nothing of this is stored.
    let other = world.send(&bob, text_in(&group, said, "ho")).await;
    assert_eq!(refusal(other), ErrorCode::ClientMsgIdReused);
    let other = world.command_as(&bob, &group, left, rename("x")).await;
    assert_eq!(refusal(other), ErrorCode::ClientMsgIdReused);
}

#[tokio::test]
async fn a_refused_send_hides_no_other_of_its_batch() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    let group = world.group(&alice, &["bob"]).await;
    // The owner takes what is there when it wakes as one batch: sooner or later
    // both are in the same.
    for round in 0..20 {
        let mut early = text_in(&group, fresh_id(), "early");
        early.predecessor = id_bytes(fresh_id());
        let refused = world.gateway.send(&alice, early).await;
        let said = format!("{round}");
        let good = text_in(&group, fresh_id(), &said);
        let stored = world.gateway.send(&alice, good).await;
        let answer = world.gateway.answer(&alice, refused).await;
        assert_eq!(refusal(answer), ErrorCode::OutOfOrder);
        ack(world.gateway.answer(&alice, stored).await);
        while !is_text(&world.gateway.entry(&bob).await, &said) {}
    }
    world.stop().await;
}

#[tokio::test]
async fn nobody_is_put_into_a_group_by_whom_they_block() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob", "carol"]).await;
    let (bob, me) = (user("bob"), user("alice"));
    world.store.set_block(&bob, &me, true).await.unwrap();
    let group = world.group(&alice, &["carol"]).await;
    let answer = world.command(&alice, &group, add(&["bob"])).await;
    assert_eq!(refusal(answer), ErrorCode::Blocked);
    let create = Command::Create(envelope::CreateGroup {
        name: "trap".into(),
        members: vec!["bob".into()],
    });
    let trap = ConversationId::group(sluice_protocol::MessageId(8));
    let answer = world.command(&alice, &trap, create).await;
    assert_eq!(refusal(answer), ErrorCode::Blocked);
    world.store.set_block(&bob, &me, false).await.unwrap();
    ack(world.command(&alice, &group, add(&["bob"])).await);
    world.stop().await;
}

/// Groups founded by a user behind the owner's back, in a partition of its own
/// choice; bob is in all of them.
async fn found_behind(world: &World, founder: &str, first: u64, count: usize) {
    let partition = sluice_protocol::Partition(0);
    let ids = (first..).map(|n| ConversationId::group(sluice_protocol::MessageId(n)));
    let entries = ids.take(count).map(|conversation| NewEntry {
        conversation,
        sender: user(founder),
        client_msg_id: fresh_id(),
        predecessor: None,
        message_id: sluice_protocol::MessageId(1),
        server_time_ms: 1,
        content: sluice_store::Content::GroupCreated {
            name: "one of many".into(),
            members: vec![user("bob")],
        },
    });
    let commit = Commit {
        partition,
        epoch: world.store.take_partition(partition).await.unwrap(),
        entries: entries.collect(),
    };
    world.store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn others_fill_no_more_than_a_part_of_a_users_places() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    world.add_users(&["carol", "dan"]).await;
    let others_max = sluice_protocol::limits::GROUPS_BY_OTHERS_MAX;
    let max = sluice_protocol::limits::GROUPS_PER_USER_MAX;
    found_behind(&world, "carol", 100_000, others_max - 1).await;
    let last = world.group(&alice, &["bob"]).await;
    let full = world.group(&alice, &[]).await;
    let answer = world.command(&alice, &full, add(&["dan", "bob"])).await;
    assert_eq!(refusal(answer), ErrorCode::TooLarge);
    // What bob founds himself is nobody else's to use up.
    world.group(&bob, &["dan"]).await;
    // Leaving frees a place.
    let answer = world.command(&alice, &full, add(&["bob"])).await;
    assert_eq!(refusal(answer), ErrorCode::TooLarge);
    for id in [100_000, 100_001] {
        let id = ConversationId::group(sluice_protocol::MessageId(id));
        ack(world.command(&bob, &id, leave()).await);
    }
    ack(world.command(&alice, &full, add(&["bob"])).await);
    ack(world.command(&bob, &last, leave()).await);
    // For his own there is a bound too.
    found_behind(&world, "bob", 200_000, max - others_max + 1).await;
    let create = Command::Create(envelope::CreateGroup {
        name: "one too many".into(),
        members: vec![],
    });
    let group = ConversationId::group(sluice_protocol::MessageId(8));
    let answer = world.command(&bob, &group, create.clone()).await;
    assert_eq!(refusal(answer), ErrorCode::TooLarge);
    ack(world.command(&bob, &full, leave()).await);
    ack(world.command(&bob, &group, create).await);
    world.stop().await;
}

/// The id of the entry before a command's own as it was once made: a UUIDv7,
/// which anybody may use.
fn guessed_before(command_id: ClientMsgId) -> ClientMsgId {
    let digest = <[u8; 32]>::from(
        Sha256::new()
            .chain_update(b"before")
            .chain_update(command_id.as_bytes())
            .finalize(),
    );
    ClientMsgId::new(command_id.unix_ms(), digest[..10].try_into().unwrap())
}

#[tokio::test]
async fn a_group_has_one_owner_whatever_ids_its_members_choose() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    world.add_users(&["bob", "carol"]).await;
    let owners = async |world: &World, group: &ConversationId| {
        let found = world
            .store
            .conversation_members(std::slice::from_ref(group));
        let members = found.await.unwrap().remove(0).unwrap().members;
        let owners = members.into_iter().filter(|m| m.role == MemberRole::Owner);
        owners
            .map(|member| member.user.to_string())
            .collect::<Vec<_>>()
    };
    for command in [role("bob", MemberRole::Owner), leave()] {
        let group = world.group(&alice, &["bob", "carol"]).await;
        let id = fresh_id();
        let guess = text_in(&group, guessed_before(id), "taken");
        let sent = world.gateway.send(&alice, guess).await;
        ack(world.gateway.answer(&alice, sent).await);
        ack(world.command_as(&alice, &group, id, command).await);
        assert_eq!(owners(&world, &group).await, ["bob"]);
        // Nor may a client send under an id of the server's own.
        let entries = world
            .store
            .entries(&[(group.clone(), Seq(3))])
            .await
            .unwrap();
        let derived = entries[0].as_ref().unwrap().client_msg_id;
        let sent = world
            .gateway
            .send(&alice, text_in(&group, derived, "forged"));
        let sent = sent.await;
        let answer = world.gateway.answer(&alice, sent).await;
        assert_eq!(refusal(answer), ErrorCode::BadRequest);
    }
    world.stop().await;
}

#[tokio::test]
async fn an_addition_is_answered_again_after_one_has_left() {
    let mut world = World::new().await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    world.add_users(&["carol"]).await;
    let group = world.group(&alice, &[]).await;
    let id = fresh_id();
    let both = || add(&["bob", "carol"]);
    let first = ack(world.command_as(&alice, &group, id, both()).await);
    ack(world.command(&bob, &group, leave()).await);
    let again = ack(world.command_as(&alice, &group, id, both()).await);
    assert_eq!((again.seq, again.message_id), (first.seq, first.message_id));
    assert_eq!(log(&mut world, &alice, &group).await.len(), 3);
    world.stop().await;
}
