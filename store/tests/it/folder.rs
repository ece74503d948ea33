//! Opening: one process a folder, known schemas, numbers issued once.

use std::collections::HashSet;

use sluice_protocol::LayoutEpoch;
use sluice_store::{SqliteConfig, SqliteStore, Store, StoreError};

use crate::kit::{Bench, Engine, pair, say};

#[tokio::test]
async fn a_folder_is_open_once() {
    let bench = Bench::with_users(Engine::Sqlite, &[]).await;
    let path = bench.folder().to_owned();
    let second = SqliteStore::open(&path, &SqliteConfig::default());
    assert!(matches!(
        second,
        Err(StoreError::InUse { path: named, holder: Some(holder) })
            if named == path.display().to_string() && holder == std::process::id()
    ));
    bench.reopened().await;
}

#[tokio::test]
async fn a_newer_schema_and_a_strange_file_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("er");
    drop(SqliteStore::open(&path, &SqliteConfig::default()).unwrap());
    let database = rusqlite::Connection::open(path.join("sluice.db")).unwrap();
    let page: i64 = database
        .pragma_query_value(None, "page_size", |row| row.get(0))
        .unwrap();
    assert_eq!(page, 4_096);
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    assert!(matches!(
        SqliteStore::open(&path, &SqliteConfig::default()),
        Err(StoreError::NewerSchema {
            found: 99,
            known: 5
        })
    ));
    let strange = folder.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("sluice.db"), "not a database".repeat(100)).unwrap();
    assert!(matches!(
        SqliteStore::open(&strange, &SqliteConfig::default()),
        Err(StoreError::Damaged(_))
    ));
}

#[tokio::test]
async fn numbers_are_issued_once() {
    let mut bench = Bench::with_users(Engine::Sqlite, &["alice", "bob"]).await;
    assert_eq!(bench.store.open_layout(64).await.unwrap(), LayoutEpoch(1));
    let mut incarnations = HashSet::new();
    let mut workers = HashSet::new();
    let mut epoch = bench.epoch;
    assert_eq!(bench.store.newest_message_id().await.unwrap(), 0);
    let message = say(&pair("alice", "bob"), "bob", "hi");
    bench.stored(message.clone()).await;
    for _ in 0..3 {
        assert!(incarnations.insert(bench.store.issue_incarnation().await.unwrap()));
        assert!(workers.insert(bench.store.issue_worker_id().await.unwrap()));
        bench = bench.reopened().await;
        assert!(bench.epoch > epoch);
        epoch = bench.epoch;
        let newest = bench.store.newest_message_id().await.unwrap();
        assert_eq!(newest, message.message_id.0);
    }
    assert_eq!(bench.store.open_layout(64).await.unwrap(), LayoutEpoch(1));
    assert!(matches!(
        bench.store.open_layout(32).await,
        Err(StoreError::OtherLayout {
            stored: 64,
            asked: 32
        })
    ));
    let all = (0..1_024).map(|_| bench.store.issue_worker_id());
    let issued = all_at_once(all.collect()).await;
    let issued: HashSet<_> = issued.into_iter().map(Result::unwrap).collect();
    assert_eq!(issued.len(), 1_024);
    assert!(matches!(
        bench.store.issue_worker_id().await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_answers_overloaded() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig {
        queue_max_requests: 1,
        ..SqliteConfig::default()
    };
    let store = SqliteStore::open(folder.path(), &config).unwrap();
    let writes: Vec<_> = (0..200).map(|_| store.issue_incarnation()).collect();
    let outcomes = all_at_once(writes).await;
    let overloaded = |outcome: &&Result<_, StoreError>| matches!(outcome, Err(StoreError::Overloaded { waiting }) if *waiting <= 1);
    let refused = outcomes.iter().filter(overloaded).count();
    let issued = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(refused + issued, 200);
    assert!(
        refused > 0 && issued > 0,
        "{refused} refused, {issued} issued"
    );
}

/// Runs all at once on this task.
async fn all_at_once<F: Future + Unpin>(mut waiting: Vec<F>) -> Vec<F::Output> {
    let mut outputs = Vec::new();
    std::future::poll_fn(move |context| {
        waiting.retain_mut(|future| match std::pin::Pin::new(future).poll(context) {
            std::task::Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        match waiting.is_empty() {
            true => std::task::Poll::Ready(std::mem::take(&mut outputs)),
            false => std::task::Poll::Pending,
        }
    })
    .await
}
