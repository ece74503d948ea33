//! Reads from replicas: never older than what was answered, whatever the replica does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_engines::MariaDb;
use sluice_protocol::{PartitionEpoch, Seq, UserSeq};
use sluice_store::{Commit, MysqlConfig, MysqlStore, Range, Store};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use crate::kit::{PAGE, PARTITION, new_user, pair, say, user};

struct Scene {
    _primary: MariaDb,
    replica: MariaDb,
    store: Arc<MysqlStore>,
    epoch: PartitionEpoch,
    /// Messages sent so far.
    sent: u64,
}

impl Scene {
    async fn new() -> Self {
        let primary = MariaDb::start_primary().await.unwrap();
        let replica = MariaDb::start_replica_of(&primary).await.unwrap();
        let mut config = MysqlConfig::single(primary.url("sluice"));
        config.servers[0].replicas = vec![replica.url("sluice")];
        let store = MysqlStore::connect(&config).await.unwrap();
        for name in ["ann", "ben"] {
            store.create_user(new_user(name)).await.unwrap();
        }
        Self {
            epoch: store.take_partition(PARTITION).await.unwrap(),
            store: Arc::new(store),
            _primary: primary,
            replica,
            sent: 0,
        }
    }

    /// Sends messages, and looks for each as soon as it is stored, by every road.
    async fn write_and_read(&mut self, count: u64) {
        let ab = pair("ann", "ben");
        for _ in 0..count {
            self.sent += 1;
            let commit = Commit {
                partition: PARTITION,
                epoch: self.epoch,
                entries: vec![say(&ab, "ann", "x")],
            };
            self.store.commit(commit).await.unwrap();
            let (ben, after) = (user("ben"), self.sent - 1);
            let inbox = self.store.inbox(&ben, UserSeq(after), PAGE);
            let log = Range::After(Seq(after));
            let log = self.store.conversation_log(&ben, &ab, log, PAGE);
            let heads = self.store.heads(&ben, None, 10);
            let list = self.store.conversations(&ben, None, 10);
            let (inbox, log, heads, list) = tokio::join!(inbox, log, heads, list);
            assert_eq!(inbox.unwrap().entries.len(), 1);
            assert_eq!(log.unwrap().unwrap().entries.len(), 1);
            assert_eq!(heads.unwrap().inbox_seq, UserSeq(self.sent));
            let list = list.unwrap();
            assert_eq!(
                (list[0].last_seq, list[0].unread),
                (Seq(self.sent), self.sent)
            );
        }
    }

    /// How many statements the replica has answered that read.
    async fn answered(&self) -> u64 {
        let mut sql = self.sql().await;
        let row = sqlx::query("SHOW GLOBAL STATUS LIKE 'Com_select'")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        row.get::<String, _>(1).parse().unwrap()
    }

    async fn sql(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.replica.url("sluice"))
            .await
            .unwrap()
    }

    async fn tell_replica(&self, statement: &str) {
        sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&mut self.sql().await)
            .await
            .unwrap();
    }

    /// Writes and reads until the replica takes part.
    async fn until_the_replica_reads(&mut self) {
        let begin = Instant::now();
        loop {
            let before = self.answered().await;
            self.write_and_read(5).await;
            // Each of the reads is several statements, beside the one that waits.
            if self.answered().await > before + 20 {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "never read");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_written_before_it_wherever_it_goes() {
    let mut scene = Scene::new().await;
    scene.until_the_replica_reads().await;
    scene.write_and_read(20).await;

    // It gets everything, and applies nothing.
    scene.tell_replica("STOP SLAVE SQL_THREAD").await;
    scene.write_and_read(20).await;
    scene.tell_replica("START SLAVE SQL_THREAD").await;
    scene.until_the_replica_reads().await;

    // It hangs, then it is gone: the store goes on, after a bounded wait.
    scene.replica.pause().unwrap();
    let begin = Instant::now();
    scene.write_and_read(5).await;
    assert!(begin.elapsed() < Duration::from_secs(20));
    scene.replica.resume().unwrap();
    scene.until_the_replica_reads().await;
    scene.replica.kill().unwrap();
    let begin = Instant::now();
    scene.write_and_read(5).await;
    assert!(begin.elapsed() < Duration::from_secs(20));
    scene.replica.restart().await.unwrap();
    scene.until_the_replica_reads().await;
}
