//! Months are archived and dropped, and nobody takes what is gone for lost.

use std::path::Path;

use sluice_protocol::{Seq, UserSeq, packet::MemberRole};
use sluice_store::{
    ArchiveReader, Commit, Content, Month, MonthAge, MonthError, MysqlConfig, MysqlMonths,
    MysqlServer, MysqlStore, NewEntry, PageLimit, Range, Store, StoredEntry,
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::kit::{
    PAGE, PARTITION, entry, fresh_database, group, new_user, pair, say, seqs, text_of, user,
};

/// A store over two databases whose first months are four months back.
struct Past {
    store: MysqlStore,
    config: MysqlConfig,
    folder: tempfile::TempDir,
    /// How many months ago → that month, and when it began.
    months: Vec<(Month, u64)>,
}

impl Past {
    async fn new(users: &[&str]) -> Self {
        let (a, b) = (fresh_database().await, fresh_database().await);
        let server = |url: &str, shards: &str| MysqlServer {
            url: url.to_owned(),
            shards: shards.to_owned(),
            replicas: Vec::new(),
        };
        let config = MysqlConfig {
            servers: vec![server(&a, "0-31"), server(&b, "32-63")],
            ..MysqlConfig::default()
        };
        let store = MysqlStore::connect(&config).await.unwrap();
        for name in users {
            store.create_user(new_user(name)).await.unwrap();
        }
        let mut months = Vec::new();
        for url in [&a, &b] {
            months = age(url).await;
        }
        Self {
            store,
            config,
            folder: tempfile::tempdir().unwrap(),
            months,
        }
    }

    async fn months(&self) -> MysqlMonths {
        MysqlMonths::open(&self.config).await.unwrap()
    }

    /// Stores entries so many months ago.
    async fn commit(&self, months_ago: usize, entries: Vec<NewEntry>) {
        let start_ms = self.months[months_ago].1;
        let entries = (0..).zip(entries).map(|(nth, entry)| NewEntry {
            server_time_ms: start_ms + nth,
            ..entry
        });
        let commit = Commit {
            partition: PARTITION,
            epoch: self.store.take_partition(PARTITION).await.unwrap(),
            entries: entries.collect(),
        };
        for outcome in self.store.commit(commit).await.unwrap() {
            assert!(
                matches!(outcome, sluice_store::Outcome::Stored(_)),
                "{outcome:?}"
            );
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Where the inbox begins, what it holds, and where it ends.
    async fn inbox(&self, name: &str, after: u64) -> (u64, Vec<(u64, String)>, u64) {
        let page = self.store.inbox(&user(name), UserSeq(after), PAGE).await;
        let page = page.unwrap();
        assert!(!page.more);
        let entries = page.entries.iter();
        let entries = entries.map(|(seq, entry)| (seq.0, text_of(&entry.content)));
        (page.first_seq.0, entries.collect(), page.inbox_seq.0)
    }
}

/// Gives a database partitions of four months ago; tells the months and their beginnings.
async fn age(url: &str) -> Vec<(Month, u64)> {
    let mut sql = MySqlConnection::connect(url).await.unwrap();
    let mut months = Vec::new();
    for ago in 0..5 {
        let query = "SELECT CAST(DATE_FORMAT(UTC_DATE() - INTERVAL ? MONTH, '%Y-%m') AS BINARY),
            CAST(TIMESTAMPDIFF(SECOND, '1970-01-01',
                DATE_FORMAT(UTC_DATE() - INTERVAL ? MONTH, '%Y-%m-01')) * 1000 AS UNSIGNED)";
        let (name, start_ms): (Vec<u8>, u64) = sqlx::query_as(query)
            .bind(ago)
            .bind(ago)
            .fetch_one(&mut sql)
            .await
            .unwrap();
        let month: Month = std::str::from_utf8(&name).unwrap().parse().unwrap();
        months.push((month, start_ms));
    }
    let name = |ago: usize| format!("p{}", months[ago].0.to_string().replace('-', ""));
    let list: Vec<String> = (1..5)
        .rev()
        .map(|ago| {
            format!(
                "PARTITION {} VALUES LESS THAN ({})",
                name(ago),
                months[ago - 1].1
            )
        })
        .collect();
    for table in ["message", "dedup"] {
        let first = name(1);
        let split = format!(
            "ALTER TABLE {table} REORGANIZE PARTITION {first} INTO ({})",
            list.join(", ")
        );
        sqlx::query(AssertSqlSafe(split))
            .execute(&mut sql)
            .await
            .unwrap();
    }
    months
}

fn read(file: &Path) -> Vec<StoredEntry> {
    (ArchiveReader::open(file).unwrap())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn refusal(result: Result<u64, MonthError>) -> String {
    match result {
        Err(MonthError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn founding(name: &str) -> Content {
    Content::GroupCreated {
        name: name.to_owned(),
        members: vec![user("ben"), user("cat")],
    }
}

#[tokio::test]
async fn a_month_goes_when_its_archive_is_exact() {
    let past = Past::new(&["ann", "ben", "cat"]).await;
    let (ab, team) = (pair("ann", "ben"), group(77));
    let old = vec![
        say(&ab, "ann", "old 1"),
        say(&ab, "ben", "old 2"),
        entry(&team, "ann", founding("team")),
        say(&team, "ann", "team old"),
        say(&pair("ann", "cat"), "cat", "only old"),
    ];
    past.commit(4, old).await;
    past.commit(
        3,
        vec![say(&ab, "ann", "middle"), say(&team, "ben", "team middle")],
    )
    .await;
    past.commit(
        0,
        vec![say(&ab, "ben", "new"), say(&team, "ben", "team new")],
    )
    .await;
    let months = past.months().await;
    let month = |ago: usize| past.months[ago].0;
    let list = months.list().await.unwrap();
    let ages: Vec<_> = list[..5].iter().map(|it| (it.month, it.age)).collect();
    use MonthAge::{Current, Old, Recent};
    assert_eq!(ages[0], (month(4), Old));
    assert_eq!(ages[1], (month(3), Old));
    assert_eq!(
        (ages[3], ages[4]),
        ((month(1), Recent), (month(0), Current))
    );

    // Only the oldest, only behind the horizon, only what an archive holds.
    let first = past.file("first");
    assert_eq!(months.archive(month(4), &first).await.unwrap(), 5);
    for (ago, why) in [(3, "oldest"), (1, "30 days"), (0, "not over")] {
        let refused = refusal(months.drop_month(month(ago), None).await);
        assert!(refused.contains(why), "{refused}");
    }
    assert!(refusal(months.archive(month(0), &past.file("now")).await).contains("not over"));
    assert!(refusal(months.drop_month(month(3), Some(&first)).await).contains("holds"));
    let mut archived = read(&first);
    archived.sort_by_key(|entry| entry.message_id);
    let positions: Vec<_> = archived
        .iter()
        .map(|e| (e.conversation.clone(), e.seq))
        .collect();
    let stored = past.store.entries(&positions).await.unwrap();
    assert_eq!(archived, stored.into_iter().flatten().collect::<Vec<_>>());

    // A recall since then: what the archive still says must not stay behind.
    past.commit(0, vec![entry(&ab, "ann", Content::Recall { seq: Seq(1) })])
        .await;
    let changed = refusal(months.drop_month(month(4), Some(&first)).await);
    assert!(changed.contains("archive it again"), "{changed}");
    let second = past.file("second");
    months.archive(month(4), &second).await.unwrap();
    assert!(
        !read(&second)
            .iter()
            .any(|entry| text_of(&entry.content) == "old 1")
    );
    let before = past.inbox("ann", 0).await;
    assert_eq!((before.0, before.1.len(), before.2), (1, 6, 6));
    assert_eq!(months.drop_month(month(4), Some(&second)).await.unwrap(), 5);
    assert!(refusal(months.drop_month(month(4), None).await).contains("no month"));

    let recall = format!("{:?}", Content::Recall { seq: Seq(1) });
    let left = |texts: &[(u64, &str)]| -> Vec<_> {
        texts
            .iter()
            .map(|(seq, text)| (*seq, (*text).to_owned()))
            .collect()
    };
    let ann = left(&[(4, "middle"), (5, "new"), (6, recall.as_str())]);
    assert_eq!(past.inbox("ann", 0).await, (4, ann.clone(), 6));
    assert_eq!(past.inbox("ann", 2).await, (4, ann.clone(), 6));
    assert_eq!(past.inbox("ann", 4).await, (4, ann[1..].to_vec(), 6));
    // All of cat's is gone.
    assert_eq!(past.inbox("cat", 0).await, (2, Vec::new(), 1));
    past.commit(0, vec![say(&pair("ann", "cat"), "ann", "again")])
        .await;
    assert_eq!(past.inbox("cat", 0).await, (2, left(&[(2, "again")]), 2));
}

#[tokio::test]
async fn logs_lists_and_counts_begin_behind_what_is_gone() {
    let past = Past::new(&["ann", "ben", "cat"]).await;
    let (ab, team) = (pair("ann", "ben"), group(78));
    let old = vec![
        entry(&team, "ann", founding("team")),
        say(&team, "ann", "1"),
        say(&team, "ben", "2"),
        entry(&team, "cat", Content::Left),
        say(&ab, "ann", "a"),
        say(&ab, "ben", "b"),
    ];
    past.commit(4, old).await;
    past.commit(
        0,
        vec![
            say(&team, "ben", "3"),
            say(&team, "ann", "4"),
            say(&ab, "ann", "c"),
        ],
    )
    .await;
    let months = past.months().await;
    months.drop_month(past.months[4].0, None).await.unwrap();

    let store = &past.store;
    let limit = PageLimit {
        entries: 1,
        bytes: usize::MAX,
    };
    for (range, found, more) in [
        (Range::After(Seq(0)), 5, true),
        (Range::After(Seq(2)), 5, true),
        (Range::After(Seq(5)), 6, false),
        (Range::Before(Seq(0)), 6, true),
        (Range::Before(Seq(6)), 5, false),
    ] {
        let page = store
            .conversation_log(&user("ben"), &team, range, limit)
            .await;
        let page = page.unwrap().unwrap();
        let entries: Vec<_> = page.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(entries, seqs([found]), "{range:?}");
        assert_eq!(
            (page.first_seq, page.last_seq, page.more),
            (Seq(5), Seq(6), more)
        );
    }
    // Who left before has nothing left, and knows.
    let all = Range::After(Seq(0));
    let page = store.conversation_log(&user("cat"), &team, all, PAGE).await;
    let page = page.unwrap().unwrap();
    assert_eq!(
        (page.first_seq, page.last_seq, page.more),
        (Seq(5), Seq(4), false)
    );
    assert!(page.entries.is_empty());
    let heads = |name| async move { store.heads(&user(name), None, 10).await.unwrap().groups };
    assert_eq!(heads("ben").await, [(team.clone(), Seq(5), Seq(6))]);
    assert_eq!(heads("cat").await, [(team.clone(), Seq(5), Seq(4))]);

    for (name, conversation, unread) in [
        ("ben", &team, 1),
        ("ann", &team, 1),
        ("ben", &ab, 1),
        ("ann", &ab, 0),
        ("cat", &team, 0),
    ] {
        let list = store.conversations(&user(name), None, 10).await.unwrap();
        let row = list
            .iter()
            .find(|row| row.conversation == *conversation)
            .unwrap();
        assert_eq!(row.unread, unread, "{name} {conversation}");
        assert_eq!(row.last_entry.is_none(), name == "cat");
    }
    // Members stay members, with the roles that they have, and can go on.
    let members = store
        .conversation_members(std::slice::from_ref(&team))
        .await
        .unwrap();
    let members = members[0].clone().unwrap().members;
    let owner = members
        .iter()
        .find(|member| member.user == user("ann"))
        .unwrap();
    assert_eq!((members.len(), owner.role), (2, MemberRole::Owner));
    let recall = entry(&team, "ann", Content::Recall { seq: Seq(2) });
    let commit = Commit {
        partition: PARTITION,
        epoch: store.take_partition(PARTITION).await.unwrap(),
        entries: vec![recall, say(&team, "ann", "5")],
    };
    let outcomes = store.commit(commit).await.unwrap();
    assert!(matches!(
        outcomes[0],
        sluice_store::Outcome::Refused(sluice_store::CommitRefusal::UnknownMessage)
    ));
    assert!(matches!(&outcomes[1], sluice_store::Outcome::Stored(it) if it.seq == Seq(7)));
}

#[tokio::test]
async fn months_ahead_are_added_once() {
    let past = Past::new(&[]).await;
    let months = past.months().await;
    let count = months.list().await.unwrap().len();
    let added = months.add(9).await.unwrap();
    assert_eq!(
        added
            .iter()
            .map(|(_, months)| months.len())
            .collect::<Vec<_>>(),
        [3, 3]
    );
    assert_eq!(months.list().await.unwrap().len(), count + 6);
    assert!(
        months
            .add(9)
            .await
            .unwrap()
            .iter()
            .all(|(_, months)| months.is_empty())
    );
    assert!(
        refusal(
            months
                .archive("1999-12".parse().unwrap(), &past.file("x"))
                .await
        )
        .contains("no month")
    );
    assert_eq!(std::fs::read_dir(past.folder.path()).unwrap().count(), 0);
}
