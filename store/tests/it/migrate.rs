//! Schemas: what was released stays as it is, and every database gets there.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use sha2::{Digest, Sha256};
use sluice_store::{
    Migrated, MysqlConfig, MysqlStore, SqliteConfig, SqliteStore, Store, StoreError,
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::kit::{fresh_database, new_user};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");

fn sql_files(folder: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(Path::new(FOLDER).join(folder)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    (names.filter(|name| name.ends_with(".sql")))
        .map(|name| format!("{folder}{name}"))
        .collect()
}

#[test]
fn a_released_migration_is_never_edited() {
    let sums = std::fs::read_to_string(format!("{FOLDER}/SHA256SUMS")).unwrap();
    let mut listed = BTreeSet::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let content = std::fs::read(format!("{FOLDER}/{name}")).unwrap();
        let found = Sha256::digest(content)
            .iter()
            .fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
        assert_eq!(
            found, sum,
            "{name} was changed after its release: put it back, and add a migration"
        );
        listed.insert(name.to_owned());
    }
    let (sqlite, mysql) = (sql_files(""), sql_files("mysql/"));
    assert!(sqlite.is_disjoint(&mysql));
    let there: BTreeSet<String> = sqlite.union(&mysql).cloned().collect();
    assert_eq!(there, listed, "every migration has its line in SHA256SUMS");
    for (number, name) in (1..).zip(&sqlite) {
        assert!(name.starts_with(&format!("{number:04}_")), "{name}");
    }
    for (number, name) in (1..).zip(&mysql) {
        assert!(name.starts_with(&format!("mysql/{number:04}_")), "{name}");
    }
}

/// The schema version of the program, by how many files there are.
fn newest(folder: &str) -> u32 {
    sql_files(folder).len() as u32
}

async fn execute(url: &str, statements: &[&str]) {
    let mut sql = MySqlConnection::connect(url).await.unwrap();
    for statement in statements {
        sqlx::query(AssertSqlSafe((*statement).to_owned()))
            .execute(&mut sql)
            .await
            .unwrap();
    }
}

async fn migrated(config: &MysqlConfig) -> Migrated {
    let done = MysqlStore::migrate(config, &|| false).await;
    done.unwrap().remove(0)
}

/// Told to stop, it stops before the next step, and goes on from there.
#[tokio::test]
async fn migrations_that_are_stopped_go_on_later() {
    let config = MysqlConfig::single(fresh_database().await);
    let to = newest("mysql/");
    let mut from = 0;
    // Asked for the lock, before each file, and before the months.
    for steps in [0, 1, 2, 4] {
        let asked = AtomicU32::new(0);
        let is_stopped = || asked.fetch_add(1, Ordering::Relaxed) >= steps;
        let done = MysqlStore::migrate(&config, &is_stopped).await;
        let done = done.unwrap().remove(0);
        let reached = (from + steps.saturating_sub(1)).min(to);
        assert_eq!(
            (done.from, done.to, done.is_stopped),
            (from, reached, true),
            "{steps}"
        );
        from = reached;
    }
    let done = migrated(&config).await;
    assert_eq!((done.from, done.to, done.is_stopped), (from, to, false));
    let store = MysqlStore::connect(&config).await.unwrap();
    store.create_user(new_user("ann")).await.unwrap();
}

#[tokio::test]
async fn migrations_at_once_are_done_once() {
    let config = MysqlConfig::single(fresh_database().await);
    let (a, b, c) = tokio::join!(migrated(&config), migrated(&config), migrated(&config));
    let to = newest("mysql/");
    let mut from: Vec<_> = [&a, &b, &c]
        .map(|done| (done.from, done.months.len()))
        .into();
    from.sort_unstable();
    assert_eq!(from, [(0, 8), (to, 0), (to, 0)]);
    assert!([&a, &b, &c].iter().all(|done| done.to == to), "{a:?}");
    let database = config.servers[0].url.rsplit_once('@').unwrap().1;
    assert_eq!(a.database, database);
    let store = MysqlStore::connect(&config).await.unwrap();
    store.create_user(new_user("ann")).await.unwrap();
}

/// Version 1 was out in two forms, one of which had `past_membership` already.
#[tokio::test]
async fn both_forms_of_version_1_are_brought_up() {
    for drop in [&["DROP TABLE past_membership"][..], &[]] {
        let config = MysqlConfig::single(fresh_database().await);
        migrated(&config).await;
        let url = &config.servers[0].url;
        execute(url, &["UPDATE meta SET value = 1 WHERE name = 'schema'"]).await;
        execute(url, drop).await;
        let done = migrated(&config).await;
        assert_eq!((done.from, done.to), (1, newest("mysql/")));
        execute(url, &["SELECT COUNT(*) FROM past_membership"]).await;
    }
}

#[tokio::test]
async fn a_newer_schema_on_a_server_is_left_alone() {
    let config = MysqlConfig::single(fresh_database().await);
    migrated(&config).await;
    let newer = "UPDATE meta SET value = 99 WHERE name = 'schema'";
    execute(&config.servers[0].url, &[newer]).await;
    let refused = MysqlStore::connect(&config).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::NewerSchema { found: 99, known } if *known == newest("mysql/")),
        "{refused}"
    );
    assert!(refused.to_string().contains("sluice migrate"), "{refused}");
}

#[test]
fn a_folder_is_migrated_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::default();
    let migrate = || SqliteStore::migrate(folder.path(), &config);
    let to = newest("");
    let first = migrate().unwrap();
    assert_eq!((first.from, first.to), (0, to));
    let again = migrate().unwrap();
    assert_eq!((again.from, again.to), (to, to));
    let _open = SqliteStore::open(folder.path(), &config).unwrap();
    assert!(matches!(migrate(), Err(StoreError::InUse { .. })));
}
