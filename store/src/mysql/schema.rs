//! The tables, made or checked before a server is used.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::{
    failure::Failure,
    months::{Month, partition_list},
    servers::{Servers, Work},
};
use crate::StoreError;

const TABLES: &str = include_str!("../../migrations/mysql/0001_tables.sql");
const VERSION: u64 = 1;

/// Months that have partitions of their own from the start, beside this one.
const MONTHS_BEHIND: u32 = 1;
const MONTHS_AHEAD: u32 = 6;

/// How long one waits for another that is making the tables.
const LOCK_WAIT_S: u32 = 30;

/// Brings a server's tables to this program's version.
struct Migrate {
    shards: u16,
}

/// Brings the tables of all servers to this program's version.
///
/// # Errors
/// [`StoreError::NewerSchema`], and [`StoreError::BadConfig`] when the data was
/// spread over another number of shards.
pub(super) async fn migrate(servers: &Servers, shards: u16) -> Result<(), StoreError> {
    for place in servers.all() {
        servers.run(place, &Migrate { shards }).await?;
    }
    Ok(())
}

impl Work for Migrate {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT GET_LOCK(CONCAT('sluice-', DATABASE()), ?)")
                .bind(LOCK_WAIT_S)
                .fetch_one(&mut *connection)
                .await?;
        if locked != Some(1) {
            let busy = "another process is changing the tables".to_owned();
            return Err(StoreError::Unavailable(busy).into());
        }
        let done = self.under_lock(connection).await;
        sqlx::query("DO RELEASE_LOCK(CONCAT('sluice-', DATABASE()))")
            .execute(&mut *connection)
            .await?;
        done
    }
}

// === impl Migrate ===

impl Migrate {
    async fn under_lock(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        if let Some(found) = self.version(connection).await? {
            return if found > VERSION {
                Err(Failure::Store(StoreError::NewerSchema {
                    found: u32::try_from(found).unwrap_or(u32::MAX),
                    known: VERSION as u32,
                }))
            } else {
                self.check_shards(connection).await?;
                add_months(connection).await
            };
        }
        let first = this_month(connection).await?.back(MONTHS_BEHIND);
        let months = partition_list(first, MONTHS_BEHIND + 1 + MONTHS_AHEAD);
        let tables = TABLES.replace("/*months*/", &months);
        for statement in statements(&tables) {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
        }
        // The version last: what was begun and not finished is begun anew.
        sqlx::query(
            "INSERT IGNORE INTO meta (name, value)
             VALUES ('shards', ?), ('incarnation', 0), ('worker_id', 1023), ('schema', ?)",
        )
        .bind(self.shards)
        .bind(VERSION)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    async fn version(&self, connection: &mut MySqlConnection) -> Result<Option<u64>, Failure> {
        let tables: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM information_schema.tables
             WHERE table_schema = DATABASE() AND table_name = 'meta'",
        )
        .fetch_one(&mut *connection)
        .await?;
        if tables == 0 {
            return Ok(None);
        }
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'schema'")
            .fetch_optional(&mut *connection)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn check_shards(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let stored: u64 = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'shards'")
            .fetch_one(&mut *connection)
            .await?;
        if stored == u64::from(self.shards) {
            return Ok(());
        }
        Err(Failure::Store(StoreError::BadConfig(format!(
            "the data is spread over {stored} shards, not {}",
            self.shards
        ))))
    }
}

/// Gives the months ahead partitions of their own, before rows come that would
/// have to be moved.
async fn add_months(connection: &mut MySqlConnection) -> Result<(), Failure> {
    let wanted = this_month(connection).await?.forward(MONTHS_AHEAD);
    for table in ["message", "dedup"] {
        let names: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT CAST(partition_name AS BINARY) FROM information_schema.partitions
             WHERE table_schema = DATABASE() AND table_name = ?",
        )
        .bind(table)
        .fetch_all(&mut *connection)
        .await?;
        let months = names
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok());
        let Some(newest) = months.filter_map(Month::of_partition).max() else {
            continue;
        };
        if newest < wanted {
            let months = partition_list(newest.forward(1), wanted.since(newest));
            let sql = format!("ALTER TABLE {table} REORGANIZE PARTITION pmax INTO ({months})");
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// By the server's clock.
async fn this_month(connection: &mut MySqlConnection) -> Result<Month, Failure> {
    let now_ms: u64 = sqlx::query_scalar("SELECT CAST(UNIX_TIMESTAMP() * 1000 AS UNSIGNED)")
        .fetch_one(connection)
        .await?;
    Ok(Month::of(now_ms))
}

/// The statements of a file, without its comments.
fn statements(file: &str) -> Vec<String> {
    let lines = file.lines().map(|line| match line.find("--") {
        Some(comment) => &line[..comment],
        None => line,
    });
    let bare: Vec<&str> = lines.collect();
    (bare.join("\n").split(';'))
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}
