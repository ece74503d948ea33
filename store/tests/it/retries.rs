//! Deadlocks and lost connections: the store tries again, and nothing is done twice.

use std::{sync::Arc, time::Duration};

use sluice_protocol::UserSeq;
use sluice_store::{Commit, MysqlConfig, MysqlStore, Outcome, Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::task::JoinHandle;

use crate::kit::{PAGE, PARTITION, fresh_database, new_user, pair, say, text_of, user};

/// A store with a message from amy to zed in it, and somebody else's connection.
struct Scene {
    store: Arc<MysqlStore>,
    other: MySqlConnection,
    watch: MySqlConnection,
}

impl Scene {
    async fn new() -> Self {
        let url = fresh_database().await;
        let store = Arc::new(
            MysqlStore::connect(&MysqlConfig::single(&url))
                .await
                .unwrap(),
        );
        for name in ["amy", "zed"] {
            store.create_user(new_user(name)).await.unwrap();
        }
        let scene = Self {
            store,
            other: MySqlConnection::connect(&url).await.unwrap(),
            watch: MySqlConnection::connect(&url).await.unwrap(),
        };
        scene.commit("before").await.unwrap().unwrap();
        scene
    }

    fn commit(&self, words: &str) -> JoinHandle<Result<Vec<Outcome>, StoreError>> {
        let store = Arc::clone(&self.store);
        let entry = say(&pair("amy", "zed"), "amy", words);
        tokio::spawn(async move {
            let commit = Commit {
                partition: PARTITION,
                epoch: store.take_partition(PARTITION).await?,
                entries: vec![entry],
            };
            store.commit(commit).await
        })
    }

    async fn other(&mut self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement)
            .execute(&mut self.other)
            .await
            .unwrap();
    }

    /// The connection of the store that waits for a lock.
    async fn waiting(&mut self) -> u64 {
        let waits = "SELECT p.id FROM information_schema.innodb_trx t
            JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
            WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()";
        for _ in 0..100 {
            // InnoDB shows an old picture to who looks more often.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let waiting: Option<i64> = sqlx::query_scalar(waits)
                .fetch_optional(&mut self.watch)
                .await
                .unwrap();
            if let Some(id) = waiting {
                return id as u64;
            }
        }
        panic!("the store doesn't wait for a lock");
    }

    async fn check(&self, commit: JoinHandle<Result<Vec<Outcome>, StoreError>>) {
        let outcomes = commit.await.unwrap().unwrap();
        assert!(matches!(outcomes[0], Outcome::Stored(_)), "{outcomes:?}");
        for name in ["amy", "zed"] {
            let page = self.store.inbox(&user(name), UserSeq(0), PAGE).await;
            let texts: Vec<_> = (page.unwrap().entries.iter())
                .map(|(_, entry)| text_of(&entry.content))
                .collect();
            assert_eq!(texts, ["before", "after"]);
        }
    }
}

#[tokio::test]
async fn the_victim_of_a_deadlock_goes_on() {
    let mut scene = Scene::new().await;
    // The one that has written most lives: not the store.
    scene
        .other(
            "CREATE TABLE weight (n INT PRIMARY KEY);
             BEGIN; INSERT INTO weight SELECT seq FROM seq_1_to_5000;
             SELECT max_seq FROM inbox WHERE user = 'zed' FOR UPDATE",
        )
        .await;
    let commit = scene.commit("after");
    scene.waiting().await;
    // The store has amy's lock and waits for zed's. It must lose amy's for this.
    scene
        .other("SELECT max_seq FROM inbox WHERE user = 'amy' FOR UPDATE; ROLLBACK")
        .await;
    scene.check(commit).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_commit_is_replaced() {
    for lock in [
        // In the first step, and in the second.
        "SELECT epoch FROM partition_epoch FOR UPDATE",
        "SELECT max_seq FROM inbox WHERE user = 'zed' FOR UPDATE",
    ] {
        let mut scene = Scene::new().await;
        let epoch = scene.store.take_partition(PARTITION).await.unwrap();
        scene.other(&format!("BEGIN; {lock}")).await;
        let (store, entry) = (
            Arc::clone(&scene.store),
            say(&pair("amy", "zed"), "amy", "after"),
        );
        let commit = tokio::spawn(async move {
            let commit = Commit {
                partition: PARTITION,
                epoch,
                entries: vec![entry],
            };
            store.commit(commit).await
        });
        for _ in 0..2 {
            let id = scene.waiting().await;
            sqlx::query(AssertSqlSafe(format!("KILL {id}")))
                .execute(&mut scene.watch)
                .await
                .unwrap();
        }
        scene.waiting().await;
        scene.other("ROLLBACK").await;
        scene.check(commit).await;
    }
}

#[tokio::test]
async fn connections_that_died_idle_harm_nobody() {
    let mut scene = Scene::new().await;
    let idle: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND command = 'Sleep'",
    )
    .fetch_all(&mut scene.watch)
    .await
    .unwrap();
    let own: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()")
        .fetch_one(&mut scene.other)
        .await
        .unwrap();
    for id in idle.into_iter().filter(|id| *id as u64 != own) {
        sqlx::query(AssertSqlSafe(format!("KILL {id}")))
            .execute(&mut scene.watch)
            .await
            .unwrap();
    }
    let commit = scene.commit("after");
    scene.check(commit).await;
}

/// Who waits for the store to come back would wait for ever.
#[tokio::test]
async fn what_no_server_can_keep_is_no_outage() {
    let url = fresh_database().await;
    let config = MysqlConfig::single(&url);
    let store = MysqlStore::connect(&config).await.unwrap();
    store.create_user(new_user("amy")).await.unwrap();
    let hash = "a".repeat(70_000);
    let refused = store.revoke_tokens(&user("amy"), Some(hash)).await;
    let refused = refused.unwrap_err();
    assert!(!refused.may_pass(), "{refused}");
}
