//! MySQL only: commits of several partitions as one transaction, and what one of
//! them may not do to the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_engines::MariaDb;
use sluice_protocol::{Partition, PartitionEpoch, UserSeq};
use sluice_store::{Commit, MysqlConfig, MysqlStore, NewEntry, Outcome, Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::task::JoinHandle;

use crate::kit::{PAGE, fresh_database, new_user, pair, say, text_of, user};

const USERS: [&str; 6] = ["ann", "ben", "cat", "dan", "eve", "fay"];

/// Its commit stands in the way of those behind it while the row is locked.
const PLUG: Partition = Partition(9);

type Answer = Result<Vec<Outcome>, StoreError>;

/// A store and somebody else's connection.
struct Scene {
    store: Arc<MysqlStore>,
    other: MySqlConnection,
}

impl Scene {
    async fn new() -> Self {
        Self::on(MysqlConfig::single(fresh_database().await)).await
    }

    async fn on(config: MysqlConfig) -> Self {
        let store = Arc::new(MysqlStore::connect(&config).await.unwrap());
        for name in USERS {
            store.create_user(new_user(name)).await.unwrap();
        }
        let url = &config.servers[0].url;
        let other = MySqlConnection::connect(url).await.unwrap();
        let mut scene = Self { store, other };
        // What the store does is seen at once, within a transaction too.
        let sees = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        scene.other(sees).await;
        scene
    }

    async fn take(&self, number: u16) -> PartitionEpoch {
        self.store.take_partition(Partition(number)).await.unwrap()
    }

    fn commit(&self, number: u16, epoch: PartitionEpoch, entry: NewEntry) -> JoinHandle<Answer> {
        let store = Arc::clone(&self.store);
        let commit = Commit {
            partition: Partition(number),
            epoch,
            entries: vec![entry],
        };
        tokio::spawn(async move { store.commit(commit).await })
    }

    async fn other(&mut self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement)
            .execute(&mut self.other)
            .await
            .unwrap();
    }

    /// From now on commits wait in the line, behind this one.
    async fn plug(&mut self) -> JoinHandle<Answer> {
        let epoch = self.take(PLUG.0).await;
        let lock = "BEGIN; SELECT epoch FROM partition_epoch WHERE number = 9 FOR UPDATE";
        self.other(lock).await;
        let plug = self.commit(PLUG.0, epoch, say(&pair("eve", "fay"), "eve", "plug"));
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist
            WHERE db = DATABASE() AND info LIKE 'UPDATE partition_epoch%'";
        while sqlx::query_scalar::<_, i64>(waiting)
            .fetch_one(&mut self.other)
            .await
            .unwrap()
            == 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        plug
    }

    /// Those that were handed in are in the line; now it moves.
    async fn unplug(&mut self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.other("ROLLBACK").await;
    }

    async fn inbox(&self, name: &str) -> Vec<String> {
        let page = self.store.inbox(&user(name), UserSeq(0), PAGE).await;
        let entries = page.unwrap().entries.into_iter().zip(1..);
        entries
            .map(|((seq, entry), expected)| {
                assert_eq!(seq.0, expected, "no gap in the inbox of {name}");
                text_of(&entry.content)
            })
            .collect()
    }
}

fn is_stored(answer: &Answer) -> bool {
    matches!(answer.as_deref(), Ok([Outcome::Stored(_)]))
}

#[tokio::test]
async fn what_waits_goes_as_one_transaction() {
    let server = MariaDb::start().await.unwrap();
    let mut scene = Scene::on(MysqlConfig::single(server.url("sluice"))).await;
    let mut epochs = Vec::new();
    for number in 16..48 {
        epochs.push((number, scene.take(number).await));
    }
    // Of all users, so that commits know them.
    for names in USERS.chunks(2) {
        let entry = say(&pair(names[0], names[1]), names[0], "first");
        let answer = scene.commit(16, epochs[0].1, entry).await.unwrap();
        assert!(is_stored(&answer));
    }
    let plug = scene.plug().await;
    let commits = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status
        WHERE variable_name = 'Com_commit'";
    let before: i64 = sqlx::query_scalar(commits)
        .fetch_one(&mut scene.other)
        .await
        .unwrap();
    let all: Vec<_> = (epochs.iter())
        .map(|(number, epoch)| {
            let at = usize::from(*number) % 4;
            let entry = say(&pair(USERS[at], USERS[at + 1]), USERS[at], "x");
            scene.commit(*number, *epoch, entry)
        })
        .collect();
    scene.unplug().await;
    assert!(is_stored(&plug.await.unwrap()));
    for commit in all {
        assert!(is_stored(&commit.await.unwrap()));
    }
    let after: i64 = sqlx::query_scalar(commits)
        .fetch_one(&mut scene.other)
        .await
        .unwrap();
    assert!(after - before <= 12, "{} for 33 commits", after - before);
    assert_eq!(scene.inbox("ben").await.len(), 1 + 8 + 8);
}

#[tokio::test]
async fn one_that_is_fenced_harms_no_other() {
    let mut scene = Scene::new().await;
    let (slept, awake) = (scene.take(3).await, scene.take(4).await);
    let newest = scene.take(3).await;
    let plug = scene.plug().await;
    let fenced = scene.commit(3, slept, say(&pair("ann", "ben"), "ann", "late"));
    let never = scene.commit(
        5,
        PartitionEpoch(0),
        say(&pair("ann", "cat"), "ann", "never"),
    );
    let stored = scene.commit(4, awake, say(&pair("ben", "cat"), "ben", "in time"));
    scene.unplug().await;
    let fenced = fenced.await.unwrap();
    assert!(
        matches!(fenced, Err(StoreError::Fenced { partition: 3, held, newest: now })
            if held == slept.0 && now == newest.0),
        "{fenced:?}"
    );
    let never = never.await.unwrap();
    assert!(
        matches!(never, Err(StoreError::Fenced { newest: 0, .. })),
        "{never:?}"
    );
    assert!(is_stored(&stored.await.unwrap()));
    assert!(is_stored(&plug.await.unwrap()));
    assert_eq!(scene.inbox("ben").await, ["in time"]);
    assert!(scene.inbox("ann").await.is_empty());
}

#[tokio::test]
async fn one_whose_data_is_damaged_harms_no_other() {
    let mut scene = Scene::new().await;
    let (third, fourth) = (scene.take(3).await, scene.take(4).await);
    let damaged = say(&pair("ann", "ben"), "ann", "damaged");
    assert!(is_stored(
        &scene.commit(3, third, damaged.clone()).await.unwrap()
    ));
    scene.other("UPDATE message SET kind = 99").await;
    let plug = scene.plug().await;
    let repeat = scene.commit(3, third, damaged);
    let stored = scene.commit(4, fourth, say(&pair("ben", "cat"), "ben", "whole"));
    scene.unplug().await;
    let repeat = repeat.await.unwrap();
    assert!(matches!(repeat, Err(StoreError::Damaged(_))), "{repeat:?}");
    assert!(is_stored(&stored.await.unwrap()));
    assert!(is_stored(&plug.await.unwrap()));
    assert_eq!(scene.inbox("cat").await, ["whole"]);
    // In the second step: there is nowhere to number a letter.
    scene.other("DELETE FROM inbox WHERE user = 'dan'").await;
    let plug = scene.plug().await;
    let nowhere = scene.commit(3, third, say(&pair("ann", "dan"), "ann", "nowhere"));
    let stored = scene.commit(4, fourth, say(&pair("ann", "cat"), "ann", "whole"));
    scene.unplug().await;
    let nowhere = nowhere.await.unwrap();
    assert!(
        matches!(nowhere, Err(StoreError::Damaged(_))),
        "{nowhere:?}"
    );
    assert!(is_stored(&stored.await.unwrap()));
    assert!(is_stored(&plug.await.unwrap()));
    assert_eq!(scene.inbox("cat").await, ["whole", "whole"]);
}

/// Commits between two users, one after the other; the longest one.
async fn longest(
    scene: &Scene,
    number: u16,
    names: [&str; 2],
    until: Instant,
) -> (Duration, usize) {
    let epoch = scene.take(number).await;
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while Instant::now() < until {
        let started = Instant::now();
        let entry = say(&pair(names[0], names[1]), names[0], "x");
        let answer = scene.commit(number, epoch, entry).await.unwrap();
        assert!(is_stored(&answer), "{answer:?}");
        longest = longest.max(started.elapsed());
        count += 1;
    }
    (longest, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_stops_those_who_want_it_and_no_others() {
    for lock in [
        "SELECT max_seq FROM inbox WHERE user = 'fay' FOR UPDATE",
        "SELECT epoch FROM partition_epoch WHERE number = 3 FOR UPDATE",
    ] {
        let mut scene = Scene::new().await;
        let epoch = scene.take(3).await;
        scene.other(&format!("BEGIN; {lock}")).await;
        let stopped = scene.commit(3, epoch, say(&pair("eve", "fay"), "eve", "stopped"));
        let until = Instant::now() + Duration::from_millis(3_500);
        let (one, other) = tokio::join!(
            longest(&scene, 4, ["ann", "ben"], until),
            longest(&scene, 5, ["cat", "dan"], until)
        );
        for (longest, count) in [one, other] {
            // At most one transaction waits with the one that is stopped.
            assert!(longest < Duration::from_millis(2_800), "{longest:?}");
            assert!(count >= 10, "{count}");
        }
        assert!(!stopped.is_finished());
        scene.other("ROLLBACK").await;
        assert!(is_stored(&stopped.await.unwrap()));
        assert_eq!(scene.inbox("fay").await, ["stopped"]);
    }
}

#[tokio::test]
async fn a_server_that_dies_is_told_to_all_and_doubles_nothing() {
    let mut server = MariaDb::start().await.unwrap();
    let config = MysqlConfig {
        acquire_timeout_ms: 300,
        ..MysqlConfig::single(server.url("sluice"))
    };
    let mut scene = Scene::on(config).await;
    let mut batches = Vec::new();
    for (number, names) in (3..).zip([["ann", "ben"], ["ben", "cat"], ["cat", "dan"]]) {
        let entry = say(&pair(names[0], names[1]), names[0], &format!("{names:?}"));
        batches.push((number, scene.take(number).await, entry));
    }
    // One that has passed the first step, the others before it.
    scene
        .other("BEGIN; SELECT max_seq FROM inbox WHERE user = 'ann' FOR UPDATE")
        .await;
    let (number, epoch, entry) = &batches[0];
    let mut commits = vec![scene.commit(*number, *epoch, entry.clone())];
    let logged = "SELECT COUNT(*) FROM conversation";
    while sqlx::query_scalar::<_, i64>(logged)
        .fetch_one(&mut scene.other)
        .await
        .unwrap()
        == 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (number, epoch, entry) in &batches[1..] {
        commits.push(scene.commit(*number, *epoch, entry.clone()));
    }
    tokio::task::yield_now().await;
    server.kill().unwrap();
    let mut acked = Vec::new();
    for commit in commits {
        match commit.await.unwrap() {
            Err(StoreError::Unavailable(_)) => acked.push(false),
            // It was faster than the kill.
            stored => acked.push(is_stored(&stored)),
        }
    }
    assert!(!acked[0], "nobody has numbered ann's");
    server.restart().await.unwrap();
    for (number, _, entry) in &batches {
        let epoch = scene.take(*number).await;
        let again = scene.commit(*number, epoch, entry.clone()).await.unwrap();
        let outcomes = again.unwrap();
        let (Outcome::Stored(stored) | Outcome::Duplicate(stored)) = &outcomes[0] else {
            panic!("{outcomes:?}");
        };
        assert_eq!((stored.seq.0, stored.inbox.len()), (1, 2));
    }
    for (name, count) in [("ann", 1), ("ben", 2), ("cat", 2), ("dan", 1)] {
        assert_eq!(scene.inbox(name).await.len(), count, "{name}");
    }
}

#[tokio::test]
async fn the_line_is_bounded() {
    let config = MysqlConfig {
        queue_max_requests: 3,
        ..MysqlConfig::single(fresh_database().await)
    };
    let mut scene = Scene::on(config).await;
    let mut epochs = Vec::new();
    for number in 3..8 {
        epochs.push((number, scene.take(number).await));
    }
    let plug = scene.plug().await;
    let mut commits = Vec::new();
    for (number, epoch) in epochs {
        let entry = say(&pair("ann", "ben"), "ann", &number.to_string());
        commits.push(scene.commit(number, epoch, entry));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.unplug().await;
    assert!(is_stored(&plug.await.unwrap()));
    let (mut stored, mut refused) = (0, 0);
    for commit in commits {
        match commit.await.unwrap() {
            Err(StoreError::Overloaded { waiting: 3 }) => refused += 1,
            answer => stored += usize::from(is_stored(&answer)),
        }
    }
    assert_eq!((stored, refused), (2, 3));
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_nobody() {
    let mut scene = Scene::new().await;
    let (third, fourth) = (scene.take(3).await, scene.take(4).await);
    let plug = scene.plug().await;
    let gone = scene.commit(3, third, say(&pair("ann", "ben"), "ann", "gone"));
    let stays = scene.commit(4, fourth, say(&pair("ben", "cat"), "ben", "stays"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    plug.abort();
    gone.abort();
    scene.unplug().await;
    assert!(is_stored(&stays.await.unwrap()));
    assert!(gone.await.unwrap_err().is_cancelled());
    // What was begun is finished; the partition's next commit comes after it.
    let next = say(&pair("ann", "ben"), "ann", "next");
    assert!(is_stored(&scene.commit(3, third, next).await.unwrap()));
    assert_eq!(scene.inbox("ann").await, ["gone", "next"]);
    while scene.inbox("eve").await != ["plug"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
