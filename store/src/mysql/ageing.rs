//! Months come and go: partitions are added ahead, a month that is over is
//! archived to a file, and the oldest is dropped.
//!
//! Dropping leaves no hole. First every log and inbox that had entries in the
//! month is told where it begins from now on (`archived_log`, `archived_inbox`),
//! then its places are taken out of the inboxes, and last the partition goes. Cut
//! short at any point, it can be begun anew.

use std::{collections::HashMap, path::Path};

use sluice_protocol::limits::DEDUP_HORIZON_MS;
use sqlx::{AssertSqlSafe, MySqlConnection, Row, mysql::MySqlRow};

use super::{
    MysqlConfig,
    failure::Failure,
    leaving::{Leaving, leave_inboxes},
    months::Month,
    partitions::{drop_partition, has, partitions},
    rows::{ROWS_MAX, client_msg_id, conversation_id, user_id},
    schema,
    servers::{Place, Servers},
};
use crate::{
    ArchiveError, ArchiveReader, StoreError,
    archive::{ArchiveWriter, Fingerprint},
    archived_row::ArchivedRow,
};

/// Rows that one statement reads; bodies are at most 60 KiB.
const PAGE_ROWS: u32 = 256;

/// What a repeat is told must be there for the horizon, and clocks differ.
const KEPT_MS: u64 = DEDUP_HORIZON_MS + 24 * 3600 * 1000;

/// The months of a store on servers.
#[derive(Debug)]
pub struct MysqlMonths {
    servers: Servers,
}

/// A month's partition in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthState {
    /// Which database: `host:port/name`.
    pub database: String,
    /// Which month.
    pub month: Month,
    /// Entries in it, roughly; the oldest month holds all that is older, too.
    pub entries: u64,
    /// Bytes of its rows, roughly.
    pub bytes: u64,
    /// How it stands to the present.
    pub age: MonthAge,
}

/// How a month stands to the present, by the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthAge {
    /// It has not begun.
    Ahead,
    /// It is now.
    Current,
    /// It is over, but repeats of its messages may still come.
    Recent,
    /// It may be dropped.
    Old,
}

/// Why a month can't be archived or dropped.
#[derive(Debug, thiserror::Error)]
pub enum MonthError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file fails.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It can't be done, or must not be.
    #[error("{0}")]
    Refused(String),
}

/// Where a scan stands.
#[derive(Default)]
struct After {
    conversation: Vec<u8>,
    seq: u64,
}

// === impl MysqlMonths ===

impl MysqlMonths {
    /// Connects to all servers and makes or checks their tables.
    ///
    /// # Errors
    /// As of [`MysqlStore::connect`](super::MysqlStore::connect).
    pub async fn open(config: &MysqlConfig) -> Result<Self, StoreError> {
        let servers = Servers::new(config, config.connections_max)?;
        schema::migrate(&servers, config.shards, &|| false).await?;
        Ok(Self { servers })
    }

    /// All months, oldest first, of every database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<MonthState>, StoreError> {
        let mut all = Vec::new();
        for place in self.servers.all() {
            let mut connection = self.servers.connection_apart(place).await?;
            let now_ms = schema::now_ms(&mut connection).await?;
            for (month, entries, bytes) in partitions(&mut connection).await? {
                all.push(MonthState {
                    database: self.servers.name(place),
                    month,
                    entries,
                    bytes,
                    age: MonthAge::of(month, now_ms),
                });
            }
        }
        Ok(all)
    }

    /// Gives that many months ahead partitions of their own. Returns, by
    /// database, those that it added.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn add(&self, ahead: u32) -> Result<Vec<(String, Vec<Month>)>, StoreError> {
        let mut added = Vec::new();
        for place in self.servers.all() {
            let months = schema::add_months_apart(&self.servers, place, ahead).await?;
            added.push((self.servers.name(place), months));
        }
        Ok(added)
    }

    /// Writes a month that is over to a file, and reads that again. Returns how
    /// many entries it has.
    ///
    /// # Errors
    /// [`MonthError`]; there is no file then.
    pub async fn archive(&self, month: Month, file: &Path) -> Result<u64, MonthError> {
        let names = self.servers.all().map(|place| self.servers.name(place));
        let mut writer = ArchiveWriter::create(file, month.to_string(), names.collect())?;
        let mut found = false;
        for (number, place) in self.servers.all().enumerate() {
            let mut connection = self.servers.connection_apart(place).await?;
            if !has(&mut connection, month).await? {
                continue;
            }
            found = true;
            let now_ms = schema::now_ms(&mut connection).await?;
            if matches!(
                MonthAge::of(month, now_ms),
                MonthAge::Ahead | MonthAge::Current
            ) {
                return Err(refused(format!("{month} is not over")));
            }
            let mut after = After::default();
            loop {
                let rows = page(&mut connection, month, number, &mut after).await?;
                if rows.is_empty() {
                    break;
                }
                rows.iter().try_for_each(|row| writer.put(row))?;
            }
        }
        if !found {
            return Err(refused(format!("there is no month {month}")));
        }
        let entries = writer.finish()?;
        self.fingerprints(month, file)?;
        Ok(entries)
    }

    /// Drops the oldest month from all databases. With `archive`, only if that
    /// file holds exactly what they hold. Returns how many entries went.
    ///
    /// # Errors
    /// [`MonthError`]; may be tried again.
    pub async fn drop_month(
        &self,
        month: Month,
        archive: Option<&Path>,
    ) -> Result<u64, MonthError> {
        let archived = archive
            .map(|file| self.fingerprints(month, file))
            .transpose()?;
        let mut holders = Vec::new();
        for (number, place) in self.servers.all().enumerate() {
            let mut connection = self.servers.connection_apart(place).await?;
            if has(&mut connection, month).await? {
                check_droppable(&mut connection, month).await?;
                holders.push((number, place, connection));
            }
        }
        if holders.is_empty() {
            return Err(refused(format!("there is no month {month}")));
        }
        if let Some(archived) = &archived {
            for (number, place, connection) in &mut holders {
                self.verify(connection, month, (*number, *place), archived)
                    .await?;
            }
        }
        let mut dropped = 0;
        for (number, place, connection) in &mut holders {
            dropped += self.take_leave(connection, month).await?;
            // A message may have been recalled meanwhile.
            if let Some(archived) = &archived {
                self.verify(connection, month, (*number, *place), archived)
                    .await?;
            }
            for table in ["message", "dedup"] {
                drop_partition(connection, table, month).await?;
            }
        }
        Ok(dropped)
    }

    /// What an archive holds of each database; checks it on the way.
    fn fingerprints(&self, month: Month, file: &Path) -> Result<Vec<Fingerprint>, MonthError> {
        let mut reader = ArchiveReader::open(file)?;
        if reader.month() != month.to_string() {
            return Err(refused(format!(
                "{} holds {}, not {month}",
                file.display(),
                reader.month()
            )));
        }
        let mut found = vec![Fingerprint::default(); self.servers.all().count()];
        if reader.databases() != found.len() {
            return Err(refused(format!(
                "{} is of {} databases, the configuration has {}",
                file.display(),
                reader.databases(),
                found.len()
            )));
        }
        while let Some(row) = reader.next_row()? {
            let Some(fingerprint) = found.get_mut(row.database) else {
                return Err(refused(format!(
                    "{} names a strange database",
                    file.display()
                )));
            };
            fingerprint.add(&row).map_err(|cause| ArchiveError::Io {
                path: file.to_owned(),
                cause,
            })?;
        }
        Ok(found)
    }

    async fn verify(
        &self,
        connection: &mut MySqlConnection,
        month: Month,
        (number, place): (usize, Place),
        archived: &[Fingerprint],
    ) -> Result<(), MonthError> {
        let mut found = Fingerprint::default();
        let mut after = After::default();
        loop {
            let rows = page(connection, month, number, &mut after).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                found.add(row).map_err(|error| refused(error.to_string()))?;
            }
        }
        if archived.get(number) == Some(&found) {
            return Ok(());
        }
        Err(refused(format!(
            "the archive is not what {} holds of {month} ({} entries; a recall changes one): \
             archive it again",
            self.servers.name(place),
            found.entries
        )))
    }

    /// Tells all logs and inboxes with entries in the month that they begin
    /// behind them, and takes those out of the inboxes.
    async fn take_leave(
        &self,
        connection: &mut MySqlConnection,
        month: Month,
    ) -> Result<u64, StoreError> {
        let mut users: HashMap<Place, MySqlConnection> = HashMap::new();
        for place in self.servers.all() {
            users.insert(place, self.servers.connection_apart(place).await?);
        }
        let (mut after, mut entries) = (After::default(), 0);
        loop {
            let rows = keys(connection, month, &mut after).await?;
            if rows.is_empty() {
                return Ok(entries);
            }
            entries += rows.len() as u64;
            let leaving = Leaving::of(&rows)?;
            leaving.raise_logs(connection).await?;
            let letters = Servers::sort(leaving.letters, |(user, _)| self.servers.of_user(user));
            for (place, letters) in letters {
                if let Some(connection) = users.get_mut(&place) {
                    for letters in letters.chunks(ROWS_MAX) {
                        leave_inboxes(connection, letters).await?;
                    }
                }
            }
        }
    }
}

// === impl MonthAge ===

impl MonthAge {
    fn of(month: Month, now_ms: u64) -> Self {
        let end_ms = month.forward(1).start_ms();
        if month.start_ms() > now_ms {
            Self::Ahead
        } else if end_ms > now_ms {
            Self::Current
        } else if end_ms.saturating_add(KEPT_MS) > now_ms {
            Self::Recent
        } else {
            Self::Old
        }
    }
}

/// The next rows of a month, as they are archived.
async fn page(
    connection: &mut MySqlConnection,
    month: Month,
    database: usize,
    after: &mut After,
) -> Result<Vec<ArchivedRow>, StoreError> {
    let columns = "conversation, seq, send_ms, msg_id, sender, client_msg_id, kind, content_type, \
         recalled, counting, counting_first, body";
    let rows = scan(connection, month, columns, after).await?;
    let rows = rows.iter().map(|row| archived(row, database));
    Ok(rows.collect::<Result<_, Failure>>()?)
}

/// The next rows of a month, as far as they concern who drops it.
async fn keys(
    connection: &mut MySqlConnection,
    month: Month,
    after: &mut After,
) -> Result<Vec<MySqlRow>, StoreError> {
    let columns = "conversation, seq, msg_id, counting, counting_first";
    Ok(scan(connection, month, columns, after).await?)
}

async fn scan(
    connection: &mut MySqlConnection,
    month: Month,
    columns: &str,
    after: &mut After,
) -> Result<Vec<MySqlRow>, Failure> {
    let partition = month.partition();
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT {columns} FROM message PARTITION ({partition})
         WHERE conversation > ? OR (conversation = ? AND seq > ?)
         ORDER BY conversation, seq LIMIT {PAGE_ROWS}"
    )))
    .bind(&after.conversation)
    .bind(&after.conversation)
    .bind(after.seq)
    .fetch_all(connection)
    .await?;
    if let Some(last) = rows.last() {
        *after = After {
            conversation: last.try_get(0)?,
            seq: last.try_get(1)?,
        };
    }
    Ok(rows)
}

fn archived(row: &MySqlRow, database: usize) -> Result<ArchivedRow, Failure> {
    Ok(ArchivedRow {
        database,
        conversation: conversation_id(row, 0)?.to_string(),
        seq: row.try_get(1)?,
        server_time_ms: row.try_get(2)?,
        message_id: row.try_get(3)?,
        sender: user_id(row, 4)?.to_string(),
        client_msg_id: client_msg_id(row, 5)?.to_string(),
        kind: row.try_get(6)?,
        content_type: row.try_get(7)?,
        recalled: row.try_get::<u8, _>(8)? != 0,
        counting: row.try_get(9)?,
        counting_first: row.try_get(10)?,
        body: row.try_get(11)?,
    })
}

/// Only the oldest goes: logs and inboxes begin somewhere, and have no holes.
async fn check_droppable(connection: &mut MySqlConnection, month: Month) -> Result<(), MonthError> {
    let now_ms = schema::now_ms(connection).await?;
    match MonthAge::of(month, now_ms) {
        MonthAge::Old => {}
        MonthAge::Ahead | MonthAge::Current => {
            return Err(refused(format!("{month} is not over")));
        }
        MonthAge::Recent => {
            return Err(refused(format!(
                "{month} is within the 30 days in which clients may repeat their sends (and a day \
                 for clocks that differ)"
            )));
        }
    }
    match partitions(connection).await?.first() {
        Some((oldest, ..)) if *oldest != month => Err(refused(format!(
            "{oldest} is older than {month}: drop the oldest month first"
        ))),
        _ => Ok(()),
    }
}

fn refused(why: String) -> MonthError {
    MonthError::Refused(why)
}
