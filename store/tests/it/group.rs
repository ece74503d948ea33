//! Groups: membership by log entries.

use sluice_protocol::{ConversationId, Seq, limits::LEFT_GROUPS_MAX, packet::MemberRole};
use sluice_store::{CommitRefusal, Content, Outcome, Range};

use crate::kit::{Bench, Engine, PAGE, entry, group, say, seqs, user};

fn founded(members: &[&str]) -> Content {
    Content::GroupCreated {
        name: "tea".to_owned(),
        members: members.iter().map(|name| user(name)).collect(),
    }
}

fn joined(name: &str) -> Content {
    Content::Joined {
        users: vec![user(name)],
    }
}

async fn members_of(bench: &Bench, number: u64) -> Vec<(String, MemberRole, u64)> {
    let found = bench.store.conversation_members(&[group(number)]).await;
    (found.unwrap().remove(0).unwrap().members.into_iter())
        .map(|member| (member.user.to_string(), member.role, member.first_seq.0))
        .collect()
}

/// The seqs that a user can pull, with the bounds that the page names.
async fn visible(bench: &Bench, name: &str, number: u64) -> Option<(Vec<Seq>, u64, u64)> {
    let page = bench
        .store
        .conversation_log(&user(name), &group(number), Range::After(Seq(0)), PAGE)
        .await
        .unwrap()?;
    assert!(!page.more);
    let found = page.entries.iter().map(|entry| entry.seq).collect();
    Some((found, page.first_seq.0, page.last_seq.0))
}

pub(crate) async fn a_group_is_founded_once(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol"]).await;
    let unknown = Outcome::Refused(CommitRefusal::UnknownConversation);
    assert_eq!(
        bench.commit_one(say(&group(1), "alice", "too early")).await,
        unknown
    );
    let ghost = entry(&group(1), "alice", founded(&["bob", "ghost"]));
    assert_eq!(
        bench.commit_one(ghost).await,
        Outcome::Refused(CommitRefusal::UnknownUser(user("ghost")))
    );
    let founding = entry(&group(1), "alice", founded(&["bob", "alice"]));
    let stored = bench.stored(founding.clone()).await;
    assert_eq!((stored.seq, stored.inbox.len()), (Seq(1), 0));
    assert_eq!(
        bench.commit_one(founding).await,
        Outcome::Duplicate(stored),
        "a retry of the founding"
    );
    let again = entry(&group(1), "bob", founded(&["carol"]));
    assert_eq!(bench.commit_one(again).await, unknown);
    assert_eq!(
        members_of(&bench, 1).await,
        [
            ("alice".to_owned(), MemberRole::Owner, 1),
            ("bob".to_owned(), MemberRole::Member, 1)
        ]
    );
    assert!(bench.inbox_texts("alice").await.is_empty());
}

pub(crate) async fn members_see_what_lies_between_joining_and_leaving(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol", "dave"]).await;
    let id = group(2);
    bench
        .commit(vec![
            entry(&id, "alice", founded(&["bob"])), // 1
            say(&id, "alice", "before carol"),      // 2
            entry(&id, "alice", joined("carol")),   // 3
            say(&id, "carol", "hi"),                // 4
            entry(&id, "bob", Content::Left),       // 5
            entry(
                &id,
                "alice",
                Content::Removed {
                    user: user("carol"),
                },
            ), // 6
            say(&id, "alice", "alone"),             // 7
        ])
        .await;
    assert_eq!(visible(&bench, "alice", 2).await, Some((seqs(1..=7), 1, 7)));
    assert_eq!(visible(&bench, "bob", 2).await, Some((seqs(1..=5), 1, 5)));
    assert_eq!(visible(&bench, "carol", 2).await, Some((seqs(3..=6), 3, 6)));
    assert_eq!(visible(&bench, "dave", 2).await, None);
    assert_eq!(visible(&bench, "nobody", 2).await, None);

    // Carol comes back: what happened in between stays hidden, what she saw
    // before is hers, and a page doesn't reach over what is hidden.
    bench.stored(entry(&id, "alice", joined("carol"))).await; // 8
    bench.stored(entry(&id, "alice", joined("carol"))).await; // 9: no effect
    let windows = async |bench: &Bench| {
        let mut found = Vec::new();
        for range in [
            Range::After(Seq(0)),
            Range::After(Seq(6)),
            Range::After(Seq(7)),
            Range::Before(Seq(0)),
            Range::Before(Seq(8)),
            Range::Before(Seq(3)),
        ] {
            let carol = user("carol");
            let page = bench.store.conversation_log(&carol, &id, range, PAGE);
            let page = page.await.unwrap().unwrap();
            let found_seqs: Vec<Seq> = page.entries.iter().map(|entry| entry.seq).collect();
            found.push((found_seqs, page.first_seq.0, page.last_seq.0, page.more));
        }
        found
    };
    let expected = [
        (seqs(3..=6), 3, 6, true),
        (seqs(8..=9), 8, 9, false),
        (seqs(8..=9), 8, 9, false),
        (seqs(8..=9), 8, 9, true),
        (seqs(3..=6), 3, 6, false),
        (seqs([]), 3, 6, false),
    ];
    assert_eq!(windows(&bench).await, expected);
    let heads = bench.store.heads(&user("carol"), None, 10).await.unwrap();
    assert_eq!(heads.groups, [(id.clone(), Seq(3), Seq(9))]);
    let heads = bench.store.heads(&user("bob"), None, 10).await.unwrap();
    assert_eq!(heads.groups, [(id.clone(), Seq(1), Seq(5))]);
    let bench = bench.reopened().await;
    assert_eq!(windows(&bench).await, expected);
}

pub(crate) async fn roles_and_names_change(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let id = group(3);
    let promoted = Content::RoleChanged {
        user: user("bob"),
        role: MemberRole::Admin,
    };
    let renamed = Content::GroupRenamed {
        name: "coffee".to_owned(),
    };
    bench
        .commit(vec![
            entry(&id, "alice", founded(&["bob"])),
            entry(&id, "alice", promoted.clone()),
            entry(&id, "bob", renamed.clone()),
        ])
        .await;
    let found = bench
        .store
        .conversation_members(&[group(99), id.clone()])
        .await
        .unwrap();
    assert_eq!(found[0], None);
    let found = found[1].as_ref().unwrap();
    assert_eq!((found.name.as_str(), found.max_seq), ("coffee", Seq(3)));
    assert_eq!(found.members[1].role, MemberRole::Admin);
    let positions = [(id.clone(), Seq(2)), (id, Seq(3))];
    let kept = bench.store.entries(&positions).await.unwrap();
    assert_eq!(kept[0].as_ref().unwrap().content, promoted);
    assert_eq!(kept[1].as_ref().unwrap().content, renamed);
}

/// A group's name as a user's list shows it.
async fn shown_name(bench: &Bench, name: &str) -> String {
    let rows = bench.store.conversations(&user(name), None, 10).await;
    rows.unwrap().remove(0).name
}

pub(crate) async fn who_is_out_sees_the_name_that_was(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol"]).await;
    let id = group(4);
    let rename = |name: &str| {
        let name = name.to_owned();
        entry(&id, "alice", Content::GroupRenamed { name })
    };
    let removed = |name: &str| entry(&id, "alice", Content::Removed { user: user(name) });
    bench
        .commit(vec![
            entry(&id, "alice", founded(&["bob", "carol"])),
            removed("bob"),
            rename("tea"),
            rename("coffee"),
            removed("carol"),
            rename("wine"),
        ])
        .await;
    bench.stored(rename("of bob and carol")).await;
    assert_eq!(shown_name(&bench, "alice").await, "of bob and carol");
    assert_eq!(shown_name(&bench, "bob").await, "tea");
    assert_eq!(shown_name(&bench, "carol").await, "coffee");
    bench.stored(entry(&id, "alice", joined("bob"))).await;
    let bench = bench.reopened().await;
    assert_eq!(shown_name(&bench, "bob").await, "of bob and carol");
    assert_eq!(shown_name(&bench, "carol").await, "coffee");
}

/// The ids of all heads, page by page.
async fn all_heads(bench: &Bench, name: &str) -> Vec<ConversationId> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let heads = bench.store.heads(&user(name), after.as_ref(), 999).await;
        let heads = heads.unwrap();
        assert!(heads.groups.len() <= 999);
        seen.extend(heads.groups.into_iter().map(|(id, ..)| id));
        if !heads.more {
            return seen;
        }
        after = seen.last().cloned();
    }
}

pub(crate) async fn heads_name_all_present_groups_and_those_left_last(engine: Engine) {
    const LEFT: u64 = LEFT_GROUPS_MAX as u64;
    let bob = user("bob");
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    // In order of their ids, and founded in another order than left.
    let group = |number: u64| group(10_000 + number);
    let numbers: Vec<u64> = (1..=LEFT + 3).collect();
    for some in numbers.chunks(500) {
        let entries = some.iter();
        let entries = entries.map(|number| entry(&group(*number), "alice", founded(&["bob"])));
        bench.commit(entries.collect()).await;
    }
    let counts = bench
        .store
        .group_counts(&[bob.clone(), user("ghost")])
        .await;
    assert_eq!(counts.unwrap(), [numbers.len(), 0]);
    assert_eq!(all_heads(&bench, "bob").await.len(), numbers.len());
    // All but number 2 are left, the highest first, each at a time of its own.
    let left: Vec<u64> = numbers.iter().copied().filter(|n| *n != 2).rev().collect();
    for some in left.chunks(500) {
        let entries = some.iter();
        let entries = entries.map(|number| entry(&group(*number), "bob", Content::Left));
        bench.commit(entries.collect()).await;
    }
    let counts = bench
        .store
        .group_counts(&[bob.clone(), user("alice")])
        .await;
    assert_eq!(counts.unwrap(), [1, numbers.len()]);
    let expected: Vec<_> = (1..=LEFT + 1).map(group).collect();
    let seen = all_heads(&bench, "bob").await;
    assert_eq!(seen, expected, "without the two that were left first");
    assert_eq!(all_heads(&bench, "alice").await.len(), numbers.len());
    // What is not among the heads can be pulled all the same.
    let (first_left, all) = (group(LEFT + 3), Range::After(Seq(0)));
    let page = bench.store.conversation_log(&bob, &first_left, all, PAGE);
    assert_eq!(page.await.unwrap().unwrap().entries.len(), 2);
}

pub(crate) async fn heads_go_over_all_groups_page_by_page(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    for number in 1..=7 {
        bench
            .stored(entry(&group(number), "alice", founded(&["bob"])))
            .await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let heads = bench
            .store
            .heads(&user("bob"), after.as_ref(), 3)
            .await
            .unwrap();
        assert!(heads.groups.len() <= 3);
        seen.extend(heads.groups.iter().map(|(id, ..)| id.clone()));
        if !heads.more {
            break;
        }
        after = seen.last().cloned();
    }
    assert_eq!(seen, (1..=7).map(group).collect::<Vec<_>>());
}
