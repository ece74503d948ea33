//! Connections, and the schema that they find.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::SqliteConfig;
use crate::StoreError;

/// Numbered from 1; the database's `user_version` says how many are done. Their
/// rules are in `migrations/README.md`.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_tables.sql"),
    include_str!("../../migrations/0002_past_membership.sql"),
    include_str!("../../migrations/0003_recalls.sql"),
    include_str!("../../migrations/0004_past_names.sql"),
    include_str!("../../migrations/0005_connect_times.sql"),
];

/// Rows of different users and conversations lie on different pages, and a page
/// is written whole: at batches of 16 and 256 messages, pages of 4 KiB write a
/// third of what pages of 16 KiB do (22 KB instead of 70 KB a message) and take
/// two thirds of the time; at 2,048 they are equal.
const PAGE_BYTES: u32 = 4 * 1024;

/// Distinct statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;

/// Only a checkpoint's last step ever makes anybody wait.
const BUSY_TIMEOUT_MS: u64 = 10_000;

/// The one connection that writes. Makes the database if there is none and
/// brings its schema up to date.
pub(super) fn open_writer(path: &Path, config: &SqliteConfig) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    prepare(&connection, config.writer_cache_mib)?;
    // Before anything is written, or it has no effect.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unavailable(format!(
            "{} cannot keep a write-ahead log (journal mode {mode})",
            path.display()
        )));
    }
    // FULL: the log is synced at every commit. That is what makes an ack a promise.
    connection.pragma_update(None, "synchronous", "full")?;
    let checkpoint_pages =
        (u64::from(config.checkpoint_at_mib) * 1024 * 1024 / u64::from(PAGE_BYTES)).max(1);
    connection.pragma_update(None, "wal_autocheckpoint", checkpoint_pages as i64)?;
    // A log that a long read or a huge batch has lengthened shrinks again.
    let log_bytes = i64::from(config.checkpoint_at_mib) * 1024 * 1024;
    connection.pragma_update(None, "journal_size_limit", log_bytes)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// The schema version of a database; 0 for an empty one.
pub(super) fn version(path: &Path) -> Result<u32, StoreError> {
    let connection = Connection::open(path)?;
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// The schema version of this program.
pub(super) fn known_version() -> u32 {
    MIGRATIONS.len() as u32
}

/// A connection that reads. The database must be there.
pub(super) fn open_reader(path: &Path, config: &SqliteConfig) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection, config.reader_cache_mib)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn prepare(connection: &Connection, cache_mib: u32) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else the planner looks at bound values, for statistics that nobody gathers, and a cached
    // statement with another value is parsed and planned anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_mib) * 1024)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let done: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known_version();
    if done > known {
        return Err(StoreError::NewerSchema { found: done, known });
    }
    for (number, sql) in (1..).zip(MIGRATIONS).skip(done as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
