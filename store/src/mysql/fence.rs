//! Epochs and numbers that are issued once.

use std::collections::{BTreeMap, BTreeSet};

use sluice_protocol::{Incarnation, LayoutEpoch, Partition, PartitionEpoch, WorkerId};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Sql, padded},
    servers::{Servers, Work},
};
use crate::StoreError;

/// Worker ids have ten bits.
const WORKER_IDS: u64 = 1_024;

/// A worker id that nobody renewed for so long is free again. Longer than a
/// process lives on that cannot reach the home server.
const WORKER_LEASE_MS: u64 = 600_000;

/// See [`Store::open_layout`](crate::Store::open_layout).
pub(super) struct OpenLayout {
    pub(super) partitions: u16,
}

/// See [`Store::issue_incarnation`](crate::Store::issue_incarnation).
pub(super) struct IssueIncarnation;

/// See [`Store::issue_worker_id`](crate::Store::issue_worker_id).
pub(super) struct IssueWorkerId {
    /// A number of this process's own.
    pub(super) holder: u64,
}

/// Keeps the worker ids of this process.
pub(super) struct RenewWorkerIds {
    pub(super) holder: u64,
}

struct RaiseEpoch(Partition);

struct AdoptEpoch {
    partition: Partition,
    epoch: u64,
}

struct NewestMessageId;

/// See [`Store::take_partition`](crate::Store::take_partition).
///
/// The home server issues the epoch; then every server learns it. Whoever was
/// overtaken in between finds a newer one there and is fenced.
pub(super) async fn take_partition(
    servers: &Servers,
    partition: Partition,
) -> Result<PartitionEpoch, StoreError> {
    let home = servers.home();
    let epoch = servers.transact(home, &RaiseEpoch(partition)).await?;
    for place in servers.all().filter(|place| *place != home) {
        let adopt = AdoptEpoch { partition, epoch };
        servers.transact(place, &adopt).await?;
    }
    Ok(PartitionEpoch(epoch))
}

/// See [`Store::newest_message_id`](crate::Store::newest_message_id).
pub(super) async fn newest_message_id(servers: &Servers) -> Result<u64, StoreError> {
    let mut newest = 0;
    for place in servers.all() {
        newest = newest.max(servers.run(place, &NewestMessageId).await?);
    }
    Ok(newest)
}

impl Work for OpenLayout {
    type Answer = LayoutEpoch;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<LayoutEpoch, Failure> {
        sqlx::query(
            "INSERT IGNORE INTO meta (name, value) VALUES ('partitions', ?), ('layout_epoch', 1)",
        )
        .bind(self.partitions)
        .execute(&mut *connection)
        .await?;
        let stored = number(connection, "partitions").await?;
        if stored != u64::from(self.partitions) {
            return Err(Failure::Store(StoreError::OtherLayout {
                stored: u16::try_from(stored).unwrap_or(u16::MAX),
                asked: self.partitions,
            }));
        }
        Ok(LayoutEpoch(number(connection, "layout_epoch").await?))
    }
}

impl Work for IssueIncarnation {
    type Answer = Incarnation;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Incarnation, Failure> {
        let next = next_number(connection, "incarnation").await?;
        let incarnation = u32::try_from(next)
            .map_err(|_| StoreError::Unavailable("all incarnations are used up".to_owned()))?;
        Ok(Incarnation(incarnation))
    }
}

impl Work for IssueWorkerId {
    type Answer = WorkerId;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<WorkerId, Failure> {
        // This row is the lock of all who look for an id.
        let last = next_number(connection, "worker_id").await?;
        let now_ms = now_ms(connection).await?;
        let held: Vec<u16> = sqlx::query_scalar("SELECT id FROM worker WHERE seen_ms > ?")
            .bind(now_ms.saturating_sub(WORKER_LEASE_MS))
            .fetch_all(&mut *connection)
            .await?;
        // The longest unused first, by going round.
        let free = (0..WORKER_IDS)
            .map(|step| ((last + step) % WORKER_IDS) as u16)
            .find(|id| !held.contains(id));
        let Some(id) = free else {
            let none = "all 1,024 worker ids are in use".to_owned();
            return Err(StoreError::Unavailable(none).into());
        };
        sqlx::query(
            "INSERT INTO worker (id, holder, seen_ms) VALUES (?, ?, ?)
             ON DUPLICATE KEY UPDATE holder = VALUES(holder), seen_ms = VALUES(seen_ms)",
        )
        .bind(id)
        .bind(self.holder)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
        sqlx::query("UPDATE meta SET value = ? WHERE name = 'worker_id'")
            .bind(id)
            .execute(&mut *connection)
            .await?;
        Ok(WorkerId(id))
    }
}

impl Work for RenewWorkerIds {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        let now_ms = now_ms(connection).await?;
        sqlx::query("UPDATE worker SET seen_ms = ? WHERE holder = ?")
            .bind(now_ms)
            .bind(self.holder)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}

impl Work for RaiseEpoch {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<u64, Failure> {
        sqlx::query(
            "INSERT INTO partition_epoch (number, epoch, newest_message_id) VALUES (?, 1, 0)
             ON DUPLICATE KEY UPDATE epoch = epoch + 1",
        )
        .bind(self.0.0)
        .execute(&mut *connection)
        .await?;
        Ok(epoch_in_force(connection, self.0).await?)
    }
}

impl Work for AdoptEpoch {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        sqlx::query(
            "INSERT INTO partition_epoch (number, epoch, newest_message_id) VALUES (?, ?, 0)
             ON DUPLICATE KEY UPDATE epoch = GREATEST(epoch, VALUES(epoch))",
        )
        .bind(self.partition.0)
        .bind(self.epoch)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }
}

impl Work for NewestMessageId {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<u64, Failure> {
        let newest: Option<u64> =
            sqlx::query_scalar("SELECT MAX(newest_message_id) FROM partition_epoch")
                .fetch_one(connection)
                .await?;
        Ok(newest.unwrap_or(0))
    }
}

/// Holds partitions for commits, as of these epochs, and notes the newest message
/// id: within their transaction, so that nobody takes one of them before its end.
/// Returns the epochs in force of all of them if there is one that is overtaken.
pub(super) async fn hold_partitions(
    connection: &mut MySqlConnection,
    held: &BTreeSet<(Partition, PartitionEpoch)>,
    newest_message_id: u64,
) -> Result<Option<BTreeMap<Partition, PartitionEpoch>>, Failure> {
    let mut rows = 0;
    let held: Vec<_> = held.iter().collect();
    for held in held.chunks(ROWS_MAX) {
        let mut sql = Sql::new(
            "UPDATE partition_epoch FORCE INDEX (PRIMARY)
             SET newest_message_id = GREATEST(newest_message_id, ",
        );
        sql.push_bind(newest_message_id).push(") WHERE");
        for (at, (partition, epoch)) in padded(held).into_iter().enumerate() {
            sql.push(if at == 0 {
                " (number = "
            } else {
                " OR (number = "
            });
            sql.push_bind(partition.0);
            sql.push(" AND epoch = ").push_bind(epoch.0).push(")");
        }
        // Rows found, not rows changed: the connection asks for it to be so.
        rows += sql.build().execute(&mut *connection).await?.rows_affected();
    }
    if rows == held.len() as u64 {
        return Ok(None);
    }
    let mut in_force = BTreeMap::new();
    for held in held.chunks(ROWS_MAX) {
        let mut sql = Sql::new(
            "SELECT number, epoch FROM partition_epoch FORCE INDEX (PRIMARY) WHERE number IN (",
        );
        let mut list = sql.separated(", ");
        for (partition, _) in padded(held) {
            list.push_bind(partition.0);
        }
        sql.push(") ORDER BY number FOR UPDATE");
        for row in sql.build().fetch_all(&mut *connection).await? {
            in_force.insert(Partition(row.try_get(0)?), PartitionEpoch(row.try_get(1)?));
        }
    }
    Ok(Some(in_force))
}

async fn epoch_in_force(
    connection: &mut MySqlConnection,
    partition: Partition,
) -> Result<u64, sqlx::Error> {
    let epoch: Option<u64> =
        sqlx::query_scalar("SELECT epoch FROM partition_epoch WHERE number = ?")
            .bind(partition.0)
            .fetch_optional(connection)
            .await?;
    Ok(epoch.unwrap_or(0))
}

async fn number(connection: &mut MySqlConnection, name: &str) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
        .bind(name.as_bytes())
        .fetch_one(connection)
        .await
}

/// Raises a number and locks it until the transaction's end.
async fn next_number(connection: &mut MySqlConnection, name: &str) -> Result<u64, sqlx::Error> {
    sqlx::query("UPDATE meta SET value = value + 1 WHERE name = ?")
        .bind(name.as_bytes())
        .execute(&mut *connection)
        .await?;
    number(connection, name).await
}

async fn now_ms(connection: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)")
        .fetch_one(connection)
        .await
}
