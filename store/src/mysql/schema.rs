//! The tables, made or checked before a server is used.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::{
    failure::{self, Failure},
    months::{Month, partition_list},
    placement,
    servers::{Place, Servers, Work},
};
use crate::{Migrated, StoreError};

/// Numbered from 1; `schema` in the table `meta` says how many are done. Their
/// rules are in `migrations/README.md`.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/mysql/0001_tables.sql"),
    include_str!("../../migrations/mysql/0002_past_membership.sql"),
    include_str!("../../migrations/mysql/0003_shards.sql"),
    include_str!("../../migrations/mysql/0004_recalls.sql"),
    include_str!("../../migrations/mysql/0005_archived.sql"),
    include_str!("../../migrations/mysql/0006_past_names.sql"),
    include_str!("../../migrations/mysql/0007_connect_times.sql"),
];

/// Months that have partitions of their own from the start, beside this one.
const MONTHS_BEHIND: u32 = 1;
const MONTHS_AHEAD: u32 = 6;

/// How long one waits for another that is changing the tables, in tries of a second.
const LOCK_TRIES_MAX: u32 = 300;
const LOCK_TRY_S: u32 = 1;

/// The server's error number.
const COLUMN_EXISTS: u16 = 1060;

/// Gives months ahead partitions.
struct AddMonths {
    ahead: u32,
}

/// Asked between two steps.
type Stop<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// Brings a server's tables to this program's version.
struct Migrate<'a> {
    shards: u16,
    is_stopped: Stop<'a>,
}

/// What [`Migrate`] did.
#[derive(Default)]
struct Done {
    from: u64,
    to: u64,
    months: Vec<Month>,
    is_stopped: bool,
}

/// Brings the tables of all servers to this program's version, or as far as it
/// gets until it is told to stop.
///
/// # Errors
/// [`StoreError::NewerSchema`], and [`StoreError::BadConfig`] when the data was
/// spread otherwise over shards or databases.
pub(super) async fn migrate(
    servers: &Servers,
    shards: u16,
    is_stopped: Stop<'_>,
) -> Result<Vec<Migrated>, StoreError> {
    let mut all = Vec::new();
    for place in servers.all() {
        let migrate = Migrate { shards, is_stopped };
        let done = servers.run_apart(place, &migrate).await?;
        all.push(Migrated {
            database: servers.name(place),
            from: u32::try_from(done.from).unwrap_or(u32::MAX),
            to: u32::try_from(done.to).unwrap_or(u32::MAX),
            is_stopped: done.is_stopped,
            months: done.months.iter().map(Month::to_string).collect(),
        });
        if done.is_stopped {
            return Ok(all);
        }
    }
    placement::check(servers).await?;
    Ok(all)
}

impl Work for Migrate<'_> {
    type Answer = Done;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Done, Failure> {
        let is_locked = lock_tables(connection, self.is_stopped).await?;
        let from = version(connection).await?;
        let mut done = Done {
            from,
            to: from,
            ..Done::default()
        };
        if !is_locked {
            done.is_stopped = true;
            return Ok(done);
        }
        let known = MIGRATIONS.len() as u64;
        if from > known {
            return Err(Failure::Store(StoreError::NewerSchema {
                found: u32::try_from(from).unwrap_or(u32::MAX),
                known: known as u32,
            }));
        }
        if from > 0 {
            self.check_shards(connection).await?;
        }
        for (number, file) in (1..).zip(MIGRATIONS).skip(from as usize) {
            if (self.is_stopped)() {
                done.is_stopped = true;
                return Ok(done);
            }
            let now = this_month(connection).await?;
            let first = now.back(MONTHS_BEHIND);
            let count = MONTHS_BEHIND + 1 + MONTHS_AHEAD;
            if file.contains("/*months*/") {
                done.months = (0..count).map(|ahead| first.forward(ahead)).collect();
            }
            self.apply(
                connection,
                number,
                &file.replace("/*months*/", &partition_list(first, count)),
            )
            .await?;
            done.to = number;
        }
        done.is_stopped = done.months.is_empty() && (self.is_stopped)();
        if done.months.is_empty() && !done.is_stopped {
            done.months = add_months(connection, MONTHS_AHEAD).await?;
        }
        Ok(done)
    }
}

// === impl Migrate ===

impl Migrate<'_> {
    /// One file, then the version: what was begun and not finished is begun anew.
    async fn apply(
        &self,
        connection: &mut MySqlConnection,
        number: u64,
        file: &str,
    ) -> Result<(), Failure> {
        for statement in statements(file) {
            let done = sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await;
            match done {
                // From the time before, which ended before the version was noted.
                Err(error) if failure::number(&error) == Some(COLUMN_EXISTS) => {}
                done => {
                    done?;
                }
            }
        }
        if number == 1 {
            sqlx::query(
                "INSERT IGNORE INTO meta (name, value)
                 VALUES ('shards', ?), ('incarnation', 0), ('worker_id', 1023)",
            )
            .bind(self.shards)
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('schema', ?)
             ON DUPLICATE KEY UPDATE value = VALUES(value)",
        )
        .bind(number)
        .execute(&mut *connection)
        .await?;
        Ok(())
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

/// Adds months ahead, up to so many; see [`Migrate`] for how many there are anyway.
pub(super) async fn add_months_apart(
    servers: &Servers,
    place: Place,
    ahead: u32,
) -> Result<Vec<Month>, StoreError> {
    servers.run_apart(place, &AddMonths { ahead }).await
}

impl Work for AddMonths {
    type Answer = Vec<Month>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Vec<Month>, Failure> {
        lock_tables(connection, &|| false).await?;
        add_months(connection, self.ahead).await
    }
}

/// One at a time. The lock ends with the connection. False: told to stop first.
async fn lock_tables(
    connection: &mut MySqlConnection,
    is_stopped: Stop<'_>,
) -> Result<bool, Failure> {
    for _ in 0..LOCK_TRIES_MAX {
        if is_stopped() {
            return Ok(false);
        }
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT GET_LOCK(CONCAT('sluice-', DATABASE()), ?)")
                .bind(LOCK_TRY_S)
                .fetch_one(&mut *connection)
                .await?;
        if locked == Some(1) {
            return Ok(true);
        }
    }
    let busy = "another process is changing the tables".to_owned();
    Err(StoreError::Unavailable(busy).into())
}

/// The version of the tables; 0 where there are none.
async fn version(connection: &mut MySqlConnection) -> Result<u64, Failure> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables
         WHERE table_schema = DATABASE() AND table_name = 'meta'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if tables == 0 {
        return Ok(0);
    }
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'schema'")
        .fetch_optional(&mut *connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}

/// Gives the months ahead partitions of their own, before rows come that would
/// have to be moved.
async fn add_months(connection: &mut MySqlConnection, ahead: u32) -> Result<Vec<Month>, Failure> {
    let mut added = Vec::new();
    let wanted = this_month(connection).await?.forward(ahead);
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
            added = (1..=wanted.since(newest))
                .map(|ahead| newest.forward(ahead))
                .collect();
            let months = partition_list(newest.forward(1), wanted.since(newest));
            let sql = format!("ALTER TABLE {table} REORGANIZE PARTITION pmax INTO ({months})");
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(added)
}

/// By the server's clock.
async fn this_month(connection: &mut MySqlConnection) -> Result<Month, Failure> {
    Ok(Month::of(server_ms(connection).await?))
}

/// The server's clock.
pub(super) async fn now_ms(connection: &mut MySqlConnection) -> Result<u64, StoreError> {
    Ok(server_ms(connection).await?)
}

async fn server_ms(connection: &mut MySqlConnection) -> Result<u64, Failure> {
    let sql = "SELECT CAST(UNIX_TIMESTAMP() * 1000 AS UNSIGNED)";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
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
