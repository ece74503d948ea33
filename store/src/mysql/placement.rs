//! Which shards a database holds, as it remembers itself.
//!
//! The configuration says where shards are, and every process could be told
//! something else. So each database records its shards at the first start, and
//! a table that differs is refused as long as a shard that it moves has data.
//! The record goes with the database: a restored dump on another host is the
//! same server.

use std::collections::{BTreeMap, BTreeSet};

use sluice_protocol::partition_of;
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::Sql,
    servers::{Place, Servers, Work},
};
use crate::StoreError;

/// Ids that one statement reads in the search for data.
const SCAN_ROWS: u32 = 10_000;

/// What a database has recorded.
struct Recorded {
    shards: BTreeSet<u16>,
    is_home: bool,
}

struct ReadRecord;

/// Replaces the record.
struct WriteRecord<'r> {
    shards: &'r BTreeSet<u16>,
    is_home: bool,
}

/// The first of these shards that a database has a user or a conversation of.
struct FindData<'s> {
    shards: &'s BTreeSet<u16>,
    of: u16,
}

/// Holds the configured placement against the recorded one, and records it
/// where there is none.
///
/// # Errors
/// [`StoreError::BadConfig`] when a shard would be looked for where its data isn't.
pub(super) async fn check(servers: &Servers) -> Result<(), StoreError> {
    let mut recorded = Vec::new();
    for place in servers.all() {
        recorded.push((place, servers.run(place, &ReadRecord).await?));
    }
    let mut wanted: BTreeMap<Place, BTreeSet<u16>> = servers
        .all()
        .map(|place| (place, BTreeSet::new()))
        .collect();
    for (shard, place) in servers.placement() {
        wanted.entry(place).or_default().insert(shard);
    }
    check_home(servers, &recorded)?;
    // Home writes last: its record says that all others are written.
    let is_new = recorded.iter().all(|(_, record)| !record.is_home);
    for (place, record) in recorded.iter().rev() {
        let shards = &wanted[place];
        let lost: BTreeSet<u16> = record.shards.difference(shards).copied().collect();
        check_lost(servers, *place, &lost).await?;
    }
    if !is_new {
        check_gained(servers, &recorded, &wanted)?;
    }
    for (place, record) in recorded.iter().rev() {
        let is_home = *place == servers.home();
        let shards = &wanted[place];
        if record.shards != *shards || record.is_home != is_home {
            let write = WriteRecord { shards, is_home };
            servers.transact(*place, &write).await?;
        }
    }
    Ok(())
}

/// Numbers would be issued again from another home.
fn check_home(servers: &Servers, recorded: &[(Place, Recorded)]) -> Result<(), StoreError> {
    let strange =
        (recorded.iter()).find(|(place, record)| record.is_home && *place != servers.home());
    match strange {
        None => Ok(()),
        Some((place, _)) => Err(StoreError::BadConfig(format!(
            "{} issues the store's numbers and must stay the first of the servers",
            servers.name(*place)
        ))),
    }
}

/// A database gives away what it has no data of, and nothing else.
async fn check_lost(
    servers: &Servers,
    place: Place,
    lost: &BTreeSet<u16>,
) -> Result<(), StoreError> {
    if lost.is_empty() {
        return Ok(());
    }
    let find = FindData {
        shards: lost,
        of: servers.placement().len() as u16,
    };
    match servers.run_apart(place, &find).await? {
        None => Ok(()),
        Some(shard) => {
            let holder = servers.name(place);
            Err(StoreError::BadConfig(format!(
                "shard {shard} has data on {holder}: give it back to {holder} in the list of \
                 servers. A shard stays in its database; a database as a whole may move to \
                 another host (dump, restore, and only the url changes)"
            )))
        }
    }
}

/// Whoever held a shard before must be there to say that it is empty.
fn check_gained(
    servers: &Servers,
    recorded: &[(Place, Recorded)],
    wanted: &BTreeMap<Place, BTreeSet<u16>>,
) -> Result<(), StoreError> {
    let known: BTreeSet<u16> = (recorded.iter())
        .flat_map(|(_, record)| record.shards.iter().copied())
        .collect();
    for (place, shards) in wanted {
        if let Some(shard) = shards.difference(&known).next() {
            return Err(StoreError::BadConfig(format!(
                "shard {shard} is not in {} nor in another of the configured databases: the one \
                 that holds it is missing from the list of servers",
                servers.name(*place)
            )));
        }
    }
    Ok(())
}

impl Work for ReadRecord {
    type Answer = Recorded;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Recorded, Failure> {
        // First, as both are written at once: a home of which this is read has its
        // shards by then.
        let home: Option<u64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'home'")
            .fetch_optional(&mut *connection)
            .await?;
        let shards: Vec<u16> = sqlx::query_scalar("SELECT number FROM shard")
            .fetch_all(&mut *connection)
            .await?;
        Ok(Recorded {
            shards: shards.into_iter().collect(),
            is_home: home == Some(1),
        })
    }
}

impl Work for WriteRecord<'_> {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        // Two processes that start at once write the same, one after the other.
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('home', ?)
             ON DUPLICATE KEY UPDATE value = VALUES(value)",
        )
        .bind(u64::from(self.is_home))
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM shard")
            .execute(&mut *connection)
            .await?;
        if self.shards.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("INSERT INTO shard (number) ");
        sql.push_values(self.shards, |mut row, shard| {
            row.push_bind(*shard);
        });
        sql.build().execute(&mut *connection).await?;
        Ok(())
    }
}

impl Work for FindData<'_> {
    type Answer = Option<u16>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Option<u16>, Failure> {
        for page in [
            "SELECT user_id FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?",
            "SELECT conversation_id FROM conversation WHERE conversation_id > ?
             ORDER BY conversation_id LIMIT ?",
        ] {
            let mut after = Vec::new();
            loop {
                let rows = sqlx::query(page)
                    .bind(&after)
                    .bind(SCAN_ROWS)
                    .fetch_all(&mut *connection)
                    .await?;
                for row in &rows {
                    after = row.try_get(0)?;
                    let shard = partition_of(&after, self.of).0;
                    if self.shards.contains(&shard) {
                        return Ok(Some(shard));
                    }
                }
                if rows.len() < SCAN_ROWS as usize {
                    break;
                }
            }
        }
        Ok(None)
    }
}
