//! Epochs and numbers that are issued once.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{Incarnation, LayoutEpoch, Partition, PartitionEpoch, WorkerId};

use super::{
    integer::{from_sql, to_sql},
    memory::WriterMemory,
    readers::Read,
    writer::Write,
};
use crate::StoreError;

const PARTITIONS: &str = "partitions";
const LAYOUT_EPOCH: &str = "layout_epoch";
const INCARNATION: &str = "incarnation";
const WORKER_ID: &str = "worker_id";
/// Written by every commit that stores something.
pub(super) const NEWEST_MESSAGE_ID: &str = "newest_message_id";

/// Worker ids have ten bits.
const WORKER_IDS: u16 = 1_024;

/// See [`Store::open_layout`](crate::Store::open_layout).
pub(super) struct OpenLayout {
    pub(super) partitions: u16,
}

/// See [`Store::issue_incarnation`](crate::Store::issue_incarnation).
pub(super) struct IssueIncarnation;

/// See [`Store::issue_worker_id`](crate::Store::issue_worker_id).
pub(super) struct IssueWorkerId;

/// See [`Store::take_partition`](crate::Store::take_partition).
pub(super) struct TakePartition(pub(super) Partition);

/// See [`Store::newest_message_id`](crate::Store::newest_message_id).
pub(super) struct NewestMessageId;

impl Write for OpenLayout {
    type Answer = LayoutEpoch;

    fn apply(
        &self,
        connection: &Connection,
        _: &mut WriterMemory,
    ) -> Result<LayoutEpoch, StoreError> {
        match number(connection, PARTITIONS)? {
            None => {
                set_number(connection, PARTITIONS, u64::from(self.partitions))?;
                set_number(connection, LAYOUT_EPOCH, 1)?;
                Ok(LayoutEpoch(1))
            }
            Some(stored) if stored == u64::from(self.partitions) => {
                Ok(LayoutEpoch(number(connection, LAYOUT_EPOCH)?.unwrap_or(1)))
            }
            Some(stored) => Err(StoreError::OtherLayout {
                stored: u16::try_from(stored).unwrap_or(u16::MAX),
                asked: self.partitions,
            }),
        }
    }
}

impl Write for IssueIncarnation {
    type Answer = Incarnation;

    fn apply(
        &self,
        connection: &Connection,
        _: &mut WriterMemory,
    ) -> Result<Incarnation, StoreError> {
        let next = number(connection, INCARNATION)?.unwrap_or(0) + 1;
        let incarnation = u32::try_from(next)
            .map_err(|_| StoreError::Unavailable("all incarnations are used up".to_owned()))?;
        set_number(connection, INCARNATION, next)?;
        Ok(Incarnation(incarnation))
    }
}

impl Write for IssueWorkerId {
    type Answer = WorkerId;

    /// The folder's lock keeps other processes out, so an id is in use only if
    /// it was issued in this process's life.
    fn apply(
        &self,
        connection: &Connection,
        memory: &mut WriterMemory,
    ) -> Result<WorkerId, StoreError> {
        if memory.worker_ids_issued >= WORKER_IDS {
            return Err(StoreError::Unavailable(
                "all 1,024 worker ids are in use".to_owned(),
            ));
        }
        let last = number(connection, WORKER_ID)?;
        let next = last.map_or(0, |last| (last + 1) % u64::from(WORKER_IDS));
        set_number(connection, WORKER_ID, next)?;
        memory.worker_ids_issued += 1;
        // Below 1,024.
        Ok(WorkerId(next as u16))
    }
}

impl Write for TakePartition {
    type Answer = PartitionEpoch;

    fn apply(
        &self,
        connection: &Connection,
        _: &mut WriterMemory,
    ) -> Result<PartitionEpoch, StoreError> {
        let epoch = connection
            .prepare_cached(
                "INSERT INTO partition (number, epoch) VALUES (?1, 1)
                 ON CONFLICT (number) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
            )?
            .query_row([self.0.0], |row| row.get(0))?;
        Ok(PartitionEpoch(from_sql(epoch)))
    }
}

impl Read for NewestMessageId {
    type Answer = u64;

    fn read(&self, connection: &Connection) -> Result<u64, StoreError> {
        Ok(number(connection, NEWEST_MESSAGE_ID)?.unwrap_or(0))
    }
}

/// Refuses all but the newest owner of a partition.
pub(super) fn check_epoch(
    connection: &Connection,
    partition: Partition,
    held: PartitionEpoch,
) -> Result<(), StoreError> {
    let newest = connection
        .prepare_cached("SELECT epoch FROM partition WHERE number = ?1")?
        .query_row([partition.0], |row| row.get(0))
        .optional()?;
    let newest = from_sql(newest.unwrap_or(0));
    if newest == held.0 && newest != 0 {
        return Ok(());
    }
    Err(StoreError::Fenced {
        partition: partition.0,
        held: held.0,
        newest,
    })
}

/// A number of the store as a whole.
pub(super) fn number(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let value = connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.map(from_sql))
}

/// Sets it.
pub(super) fn set_number(
    connection: &Connection,
    name: &str,
    value: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![name, to_sql(value)])?;
    Ok(())
}
