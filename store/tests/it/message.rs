//! Commits: numbers without gaps, repeats, predecessors, refusals, fences.

use sluice_protocol::{Partition, PartitionEpoch, Seq, UserSeq};
use sluice_store::{Commit, CommitRefusal, Content, Outcome, StoreError};

use crate::kit::{Bench, Engine, PAGE, PARTITION, client_id, entry, group, pair, say, user};

pub(crate) async fn a_private_message_goes_to_the_log_and_to_both_inboxes(engine: Engine) {
    let bench = Bench::with_users(engine, &["bob", "alice", "carol"]).await;
    let first = say(&pair("alice", "bob"), "bob", "hello");
    let outcomes = bench
        .commit(vec![
            first.clone(),
            say(&pair("alice", "carol"), "alice", "hi"),
            say(&pair("alice", "bob"), "alice", "how are you"),
        ])
        .await;
    let Outcome::Stored(stored) = &outcomes[0] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(stored.seq, Seq(1));
    assert_eq!(stored.message_id, first.message_id);
    assert_eq!(stored.server_time_ms, first.server_time_ms);
    assert_eq!(
        stored.inbox,
        vec![(user("alice"), UserSeq(1)), (user("bob"), UserSeq(1))]
    );
    let alice = [(1, "hello"), (2, "hi"), (3, "how are you")];
    let bench = bench.reopened().await;
    assert_eq!(
        bench.inbox_texts("alice").await,
        alice.map(|(seq, text)| (seq, text.to_owned()))
    );
    assert_eq!(bench.inbox_texts("bob").await.len(), 2);
    assert_eq!(bench.inbox_texts("carol").await.len(), 1);
    let last = bench
        .stored(say(&pair("bob", "alice"), "bob", "fine"))
        .await;
    assert_eq!(
        (last.seq, last.inbox[0].1, last.inbox[1].1),
        (Seq(3), UserSeq(4), UserSeq(3)),
        "the numbers go on after a restart"
    );
    let kept = &bench.store.inbox(&user("bob"), UserSeq(0), PAGE).await;
    let kept = &kept.as_ref().unwrap().entries[0].1;
    assert_eq!(kept.sender, user("bob"));
    assert_eq!(kept.client_msg_id, first.client_msg_id);
    assert_eq!(kept.conversation, first.conversation);
    assert_eq!(kept.content, first.content);
}

pub(crate) async fn a_repeat_gets_the_first_answer(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let conversation = pair("alice", "bob");
    let original = say(&conversation, "alice", "once");
    let mut repeat = original.clone();
    repeat.message_id.0 += 1_000_000;
    repeat.server_time_ms += 5_000;
    let outcomes = bench.commit(vec![original.clone(), repeat.clone()]).await;
    let Outcome::Stored(first) = outcomes[0].clone() else {
        panic!("{outcomes:?}");
    };
    assert_eq!(outcomes[1], Outcome::Duplicate(first.clone()), "same batch");
    bench.stored(say(&conversation, "bob", "between")).await;
    let bench = bench.reopened().await;
    assert_eq!(
        bench.commit_one(repeat.clone()).await,
        Outcome::Duplicate(first)
    );

    let mut other = say(&conversation, "alice", "something else");
    other.client_msg_id = original.client_msg_id;
    assert_eq!(
        bench.commit_one(other).await,
        Outcome::Refused(CommitRefusal::ClientMsgIdReused)
    );
    let mut by_bob = repeat;
    by_bob.sender = user("bob");
    assert!(
        matches!(bench.commit_one(by_bob).await, Outcome::Stored(_)),
        "another sender's id is another id"
    );
    assert_eq!(bench.inbox_texts("bob").await.len(), 3);
}

pub(crate) async fn a_message_waits_for_its_predecessor(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let conversation = pair("alice", "bob");
    let first = say(&conversation, "alice", "1");
    let mut second = say(&conversation, "alice", "2");
    second.predecessor = Some(first.client_msg_id);
    let mut by_bob = say(&conversation, "bob", "b");
    by_bob.predecessor = Some(first.client_msg_id);
    let out_of_order = Outcome::Refused(CommitRefusal::OutOfOrder);
    assert_eq!(bench.commit_one(second.clone()).await, out_of_order);
    assert!(
        bench
            .store
            .conversation_members(std::slice::from_ref(&conversation))
            .await
            .unwrap()[0]
            .is_none(),
        "a refused first entry makes no conversation"
    );
    let outcomes = bench
        .commit(vec![second.clone(), first, second.clone(), by_bob])
        .await;
    assert_eq!(outcomes[0], out_of_order);
    assert!(matches!(outcomes[1], Outcome::Stored(_)));
    assert!(matches!(&outcomes[2], Outcome::Stored(stored) if stored.seq == Seq(2)));
    assert_eq!(outcomes[3], out_of_order, "another sender's predecessor");
    second.predecessor = Some(client_id(u64::from(u32::MAX)));
    assert!(
        matches!(bench.commit_one(second).await, Outcome::Duplicate(_)),
        "what is stored is stored, whatever the repeat names"
    );
}

pub(crate) async fn unknown_users_are_named_and_harm_nobody(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol"]).await;
    let outcomes = bench
        .commit(vec![
            say(&pair("alice", "bob"), "alice", "a"),
            say(&pair("alice", "ghost"), "alice", "b"),
            say(&pair("alice", "ghost"), "ghost", "c"),
            say(&pair("alice", "bob"), "carol", "d"),
            entry(&pair("alice", "bob"), "alice", Content::Left),
            say(&pair("alice", "bob"), "bob", "e"),
        ])
        .await;
    assert!(matches!(&outcomes[0], Outcome::Stored(stored) if stored.seq == Seq(1)));
    let ghost = Outcome::Refused(CommitRefusal::UnknownUser(user("ghost")));
    let unknown = Outcome::Refused(CommitRefusal::UnknownConversation);
    assert_eq!(outcomes[1..3], [ghost.clone(), ghost]);
    assert_eq!(outcomes[3..5], [unknown.clone(), unknown]);
    assert!(matches!(&outcomes[5], Outcome::Stored(stored) if stored.seq == Seq(2)));
}

pub(crate) async fn only_the_newest_owner_commits(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let commit = |epoch: PartitionEpoch, partition: Partition| Commit {
        partition,
        epoch,
        entries: vec![say(&pair("alice", "bob"), "alice", "x")],
    };
    let newer = bench.store.take_partition(PARTITION).await.unwrap();
    assert!(newer > bench.epoch);
    let (old, new, unowned) = tokio::join!(
        bench.store.commit(commit(bench.epoch, PARTITION)),
        bench.store.commit(commit(newer, PARTITION)),
        bench.store.commit(commit(PartitionEpoch(0), Partition(9))),
    );
    assert!(matches!(
        old,
        Err(StoreError::Fenced { partition: 3, held, newest }) if held < newest
    ));
    assert!(matches!(&new.unwrap()[0], Outcome::Stored(stored) if stored.seq == Seq(1)));
    assert!(matches!(unowned, Err(StoreError::Fenced { .. })));
}

pub(crate) async fn a_recall_wipes_the_body_and_is_an_entry_of_its_own(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let conversation = pair("alice", "bob");
    let secret = say(&conversation, "alice", "secret");
    let recall_of = |seq| entry(&conversation, "alice", Content::Recall { seq: Seq(seq) });
    let first_recall = recall_of(1);
    assert_eq!(
        bench.commit_one(recall_of(1)).await,
        Outcome::Refused(CommitRefusal::UnknownMessage)
    );
    let outcomes = bench
        .commit(vec![
            secret.clone(),
            first_recall.clone(),
            recall_of(2),
            recall_of(9),
        ])
        .await;
    assert!(matches!(&outcomes[1], Outcome::Stored(stored)
        if stored.seq == Seq(2) && stored.inbox.len() == 2));
    let unknown = Outcome::Refused(CommitRefusal::UnknownMessage);
    assert_eq!(outcomes[2..], [unknown.clone(), unknown]);
    let entries = bench
        .store
        .entries(&[(conversation.clone(), Seq(1)), (conversation, Seq(3))])
        .await
        .unwrap();
    let wiped = entries[0].as_ref().unwrap();
    assert!(wiped.recalled);
    assert!(matches!(&wiped.content, Content::Message { body, .. } if body.is_empty()));
    assert_eq!(entries[1], None);
    assert!(matches!(
        bench.commit_one(secret).await,
        Outcome::Duplicate(_)
    ));
    assert!(matches!(
        bench.commit_one(first_recall).await,
        Outcome::Duplicate(_)
    ));
}

pub(crate) async fn a_second_recall_is_told_of_the_first(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let conversation = group(1);
    let members = vec![user("bob")];
    let name = "g".to_owned();
    bench
        .stored(entry(
            &conversation,
            "alice",
            Content::GroupCreated { name, members },
        ))
        .await;
    for _ in 2..=3 {
        bench.stored(say(&conversation, "bob", "oops")).await;
    }
    let recall = |who: &str, seq| entry(&conversation, who, Content::Recall { seq: Seq(seq) });
    let first = bench.stored(recall("bob", 2)).await;
    assert_eq!(first.seq, Seq(4));
    // By another name, by another member, in a batch with the first, after a restart.
    let second = recall("bob", 2);
    let by_alice = recall("alice", 2);
    for again in [&second, &by_alice, &second] {
        let outcome = bench.commit_one(again.clone()).await;
        assert_eq!(outcome, Outcome::Duplicate(first.clone()));
    }
    let outcomes = bench
        .commit(vec![recall("bob", 3), recall("alice", 3)])
        .await;
    let Outcome::Stored(stored) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(outcomes[1], Outcome::Duplicate(stored.clone()));
    assert_eq!(stored.seq, Seq(5));
    let bench = bench.reopened().await;
    let outcome = bench.commit_one(recall("alice", 2)).await;
    assert_eq!(outcome, Outcome::Duplicate(first.clone()));
    // A retry is known by its own name, and nothing was added to the log.
    let key = (conversation.clone(), user("bob"), second.client_msg_id);
    let answers = bench.store.first_answers(&[key]).await.unwrap();
    assert_eq!(answers, [Some(first)]);
    let next = bench.stored(say(&conversation, "bob", "next")).await;
    assert_eq!(next.seq, Seq(6));
}

pub(crate) async fn first_answers_are_found_by_the_senders_name_for_them(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let entry = say(&pair("alice", "bob"), "alice", "once");
    let stored = bench.stored(entry.clone()).await;
    let key = |sender: &str, id| (entry.conversation.clone(), user(sender), id);
    let answers = bench
        .store
        .first_answers(&[
            key("bob", entry.client_msg_id),
            key("alice", entry.client_msg_id),
            key("nobody", entry.client_msg_id),
        ])
        .await
        .unwrap();
    assert_eq!(answers, vec![None, Some(stored), None]);
}
