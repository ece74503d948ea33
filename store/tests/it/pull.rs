//! Pages, conversation lists, unread numbers, cursors.

use sluice_protocol::{Seq, UserSeq};
use sluice_store::{Content, ConversationRow, Cursor, CursorAdvance, CursorKind, PageLimit, Range};

use crate::kit::{Bench, Engine, PAGE, entry, group, pair, say, seqs, user};

fn advance(name: &str, conversation: &str, kind: CursorKind, seq: u64) -> CursorAdvance {
    CursorAdvance {
        cursor: Cursor {
            user: user(name),
            conversation: sluice_protocol::ConversationId::parse(conversation).unwrap(),
            kind,
        },
        seq: Seq(seq),
    }
}

async fn list(bench: &Bench, name: &str) -> Vec<ConversationRow> {
    let rows = bench.store.conversations(&user(name), None, 100).await;
    rows.unwrap()
}

async fn unread(bench: &Bench, name: &str) -> Vec<u64> {
    let rows = list(bench, name).await;
    rows.iter().map(|row| row.unread).collect()
}

pub(crate) async fn pages_are_cut_by_entries_and_by_bytes(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let conversation = pair("alice", "bob");
    let long = "x".repeat(10_000);
    let entries = (0..10).map(|_| say(&conversation, "alice", &long));
    bench.commit(entries.collect()).await;
    let limit = |entries, bytes| PageLimit { entries, bytes };
    let log = async |range, limit| {
        let page = bench
            .store
            .conversation_log(&user("bob"), &conversation, range, limit)
            .await;
        let page = page.unwrap().unwrap();
        let found: Vec<Seq> = page.entries.iter().map(|entry| entry.seq).collect();
        (found, page.more)
    };
    let all = usize::MAX;
    assert_eq!(
        log(Range::After(Seq(0)), limit(4, all)).await,
        (seqs(1..=4), true)
    );
    assert_eq!(
        log(Range::After(Seq(6)), limit(4, all)).await,
        (seqs(7..=10), false)
    );
    assert_eq!(
        log(Range::After(Seq(10)), limit(4, all)).await,
        (seqs([]), false)
    );
    assert_eq!(
        log(Range::After(Seq(u64::MAX)), limit(4, all)).await,
        (seqs([]), false)
    );
    assert_eq!(
        log(Range::After(Seq(0)), limit(9, 25_000)).await,
        (seqs(1..=2), true)
    );
    assert_eq!(
        log(Range::After(Seq(0)), limit(9, 1)).await,
        (seqs([1]), true)
    );
    assert_eq!(
        log(Range::Before(Seq(0)), limit(3, all)).await,
        (seqs(8..=10), true)
    );
    assert_eq!(
        log(Range::Before(Seq(3)), limit(3, all)).await,
        (seqs(1..=2), false)
    );
    assert_eq!(
        log(Range::Before(Seq(1)), limit(3, all)).await,
        (seqs([]), false)
    );
    assert_eq!(
        log(Range::Before(Seq(u64::MAX)), limit(1, all)).await,
        (seqs([10]), true)
    );

    let inbox = async |name, after, limit| {
        let page = bench.store.inbox(&user(name), UserSeq(after), limit).await;
        page.unwrap()
    };
    let page = inbox("bob", 3, limit(9, 25_000)).await;
    assert_eq!(
        (page.entries.len(), page.inbox_seq, page.more),
        (2, UserSeq(10), true)
    );
    assert_eq!(page.entries[0].0, UserSeq(4));
    let page = inbox("bob", u64::MAX, PAGE).await;
    assert_eq!((page.entries.len(), page.more), (0, false));
    assert_eq!(inbox("nobody", 0, PAGE).await.inbox_seq, UserSeq(0));
}

pub(crate) async fn unread_counts_messages_of_others_above_the_read_cursor(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol"]).await;
    let id = pair("alice", "bob");
    bench
        .commit(vec![
            say(&id, "alice", "1"),
            say(&id, "bob", "2"),
            say(&id, "alice", "3"),
            entry(&id, "alice", Content::Recall { seq: Seq(1) }),
            say(&id, "alice", "5"),
        ])
        .await;
    assert_eq!(
        unread(&bench, "bob").await,
        [3],
        "the recall itself does not count"
    );
    assert_eq!(unread(&bench, "alice").await, [1]);
    let read = |name: &str, seq| advance(name, "p:5:alice:bob", CursorKind::Read, seq);
    let risen = bench
        .store
        .advance_cursors(vec![read("bob", 3), read("alice", 1)]);
    assert_eq!(risen.await.unwrap(), [Some(Seq(3)), Some(Seq(1))]);
    assert_eq!(unread(&bench, "bob").await, [1]);
    assert_eq!(unread(&bench, "alice").await, [1]);
    assert_eq!(list(&bench, "alice").await[0].peer_read_seq, Seq(3));

    let id = group(5);
    let members = vec![user("bob"), user("carol")];
    let name = "g".to_owned();
    bench
        .commit(vec![
            entry(&id, "alice", Content::GroupCreated { name, members }), // 1
            say(&id, "alice", "2"),
            say(&id, "bob", "3"),
            say(&id, "alice", "4"),
            say(&id, "bob", "5"),
            entry(&id, "carol", Content::Left), // 6
            say(&id, "alice", "7"),
        ])
        .await;
    assert_eq!(unread(&bench, "carol").await, [4]);
    assert_eq!(unread(&bench, "bob").await, [3, 1]);
    let read = |name: &str, seq| advance(name, "g:5", CursorKind::Read, seq);
    let risen =
        bench
            .store
            .advance_cursors(vec![read("bob", 3), read("carol", 100), read("alice", 3)]);
    assert_eq!(
        risen.await.unwrap(),
        [Some(Seq(3)), Some(Seq(6)), Some(Seq(3))],
        "clamped to what one may see"
    );
    assert_eq!(unread(&bench, "carol").await, [0]);
    assert_eq!(unread(&bench, "bob").await, [2, 1]);
    assert_eq!(unread(&bench, "alice").await, [1, 1]);
    // Whoever comes back starts with what follows.
    let users = vec![user("carol")];
    bench
        .stored(entry(&id, "alice", Content::Joined { users }))
        .await;
    bench.stored(say(&id, "bob", "welcome")).await;
    assert_eq!(unread(&bench, "carol").await, [1]);
}

pub(crate) async fn cursors_only_rise(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol"]).await;
    let id = pair("alice", "bob");
    bench
        .commit((0..5).map(|_| say(&id, "alice", "x")).collect())
        .await;
    let delivered = |name: &str, seq| advance(name, id.as_str(), CursorKind::Delivered, seq);
    let risen = bench
        .store
        .advance_cursors(vec![
            delivered("bob", 3),
            delivered("bob", 2),
            delivered("bob", 3),
            delivered("bob", 9),
            delivered("carol", 1),
            delivered("nobody", 1),
            advance("bob", "g:1", CursorKind::Delivered, 1),
        ])
        .await
        .unwrap();
    assert_eq!(
        risen,
        [Some(Seq(3)), None, None, Some(Seq(5)), None, None, None]
    );
    // A flood in vain, more than goes into one write, costs the rest nothing.
    let mut flood: Vec<_> = (0..2_000)
        .map(|n| advance("carol", &format!("g:{n}"), CursorKind::Delivered, 1))
        .collect();
    flood.insert(1_500, delivered("alice", 4));
    let risen = bench.store.advance_cursors(flood).await.unwrap();
    assert_eq!(risen.len(), 2_001);
    assert_eq!(risen[1_500], Some(Seq(4)));
    assert_eq!(risen.iter().flatten().count(), 1);
    let row = list(&bench, "alice").await.remove(0);
    assert_eq!(
        (row.peer_delivered_seq, row.peer_read_seq),
        (Seq(5), Seq(0))
    );
}

pub(crate) async fn the_list_is_newest_first_and_paged(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob", "carol", "dave"]).await;
    let founding = Content::GroupCreated {
        name: "tea".to_owned(),
        members: vec![user("alice")],
    };
    let mut same_time = say(&pair("alice", "dave"), "dave", "d");
    let older = say(&pair("alice", "carol"), "carol", "c");
    same_time.server_time_ms = older.server_time_ms;
    bench
        .commit(vec![
            say(&pair("alice", "bob"), "bob", "b"),
            older,
            same_time,
            entry(&group(1), "bob", founding),
            say(&group(1), "bob", "in the group"),
            say(&pair("alice", "bob"), "bob", "again"),
        ])
        .await;
    let whole = list(&bench, "alice").await;
    let names: Vec<&str> = whole.iter().map(|row| row.conversation.as_str()).collect();
    assert_eq!(
        names,
        ["p:5:alice:bob", "g:1", "p:5:alice:dave", "p:5:alice:carol"]
    );
    let last = whole[0].last_entry.as_ref().unwrap();
    assert_eq!((last.seq, whole[0].last_seq), (Seq(2), Seq(2)));
    assert_eq!(
        (whole[1].name.as_str(), whole[0].name.as_str()),
        ("tea", "")
    );

    let mut paged = Vec::new();
    let mut cursor = None;
    loop {
        let page = bench.store.conversations(&user("alice"), cursor, 1).await;
        let Some(row) = page.unwrap().pop() else {
            break;
        };
        cursor = Some(row.cursor);
        paged.push(row);
    }
    assert_eq!(paged, whole);
    assert!(list(&bench, "nobody").await.is_empty());
}
