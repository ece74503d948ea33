//! The servers: pools of connections, which of them holds what, and how a piece
//! of work is run on one of them, again if need be.

use std::{collections::BTreeMap, future::Future, str::FromStr, time::Duration};

use sluice_protocol::{ConversationId, UserId, partition_of};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection, Executor as _, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
};

use super::{
    MysqlConfig,
    failure::{self, Failure},
    replicas::Replicas,
};
use crate::StoreError;

/// Statements kept prepared by a connection. Batches of all sizes make many.
const STATEMENTS_KEPT: usize = 512;

/// The first pause before another try; each one more is longer.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Between two statements of a transaction; below the leases of owners.
const IDLE_TRANSACTION_MAX_S: u32 = 3;
/// How long owners wait for a lock before they try again, or apart from others
/// who would wait with them.
const OWNERS_LOCK_WAIT_S: u32 = 1;
/// For one more try to connect, which shows why others failed.
const CAUSE_WAIT: Duration = Duration::from_secs(1);
/// The server's error number.
const UNKNOWN_VARIABLE: u16 = 1193;

/// A server's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(usize);

// === impl Place ===

impl Place {
    pub(super) fn number(self) -> usize {
        self.0
    }
}

/// Something to be done on one server.
pub(super) trait Work: Sync {
    /// What it finds out.
    type Answer: Send;

    /// Whether it may be done once more when nobody knows whether it was done.
    const REPEATABLE: bool;

    /// Does it. `attempt` counts from 1.
    fn run(
        &self,
        connection: &mut MySqlConnection,
        attempt: u32,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// All servers and what lies where.
#[derive(Debug)]
pub(super) struct Servers {
    pools: Vec<MySqlPool>,
    /// As many as pools, or none.
    replicas: Vec<Replicas>,
    placement: Vec<usize>,
    attempts_max: u32,
    request_timeout: Duration,
}

// === impl Servers ===

impl Servers {
    /// Sets the pools up; connects when they are used. Each call makes
    /// pools apart.
    pub(super) fn new(config: &MysqlConfig, connections_max: u32) -> Result<Self, StoreError> {
        Self::waiting(config, connections_max, None)
    }

    /// Pools of connections that wait for locks but shortly.
    pub(super) fn for_owners(config: &MysqlConfig) -> Result<Self, StoreError> {
        Self::waiting(
            config,
            config.owner_connections_max,
            Some(OWNERS_LOCK_WAIT_S),
        )
    }

    fn waiting(
        config: &MysqlConfig,
        connections_max: u32,
        lock_wait_s: Option<u32>,
    ) -> Result<Self, StoreError> {
        let placement = config.placement()?;
        let pools = (config.servers.iter())
            .map(|server| pool(config, connections_max, lock_wait_s, &server.url))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            pools,
            replicas: Vec::new(),
            placement,
            attempts_max: config.attempts_max.max(1),
            request_timeout: Duration::from_millis(config.request_timeout_ms),
        })
    }

    /// With the replicas for [`Servers::read`].
    pub(super) fn with_replicas(mut self, config: &MysqlConfig) -> Result<Self, StoreError> {
        for server in &config.servers {
            let pools = (server.replicas.iter())
                .map(|url| pool(config, config.connections_max, None, url))
                .collect::<Result<Vec<_>, _>>()?;
            self.replicas.push(Replicas::new(config, pools));
        }
        Ok(self)
    }

    /// The one that issues numbers.
    pub(super) fn home(&self) -> Place {
        Place(0)
    }

    /// Every one, home first.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.pools.len()).map(Place)
    }

    /// Every shard and where it is.
    pub(super) fn placement(&self) -> impl ExactSizeIterator<Item = (u16, Place)> {
        let places = self.placement.iter().enumerate();
        places.map(|(shard, place)| (shard as u16, Place(*place)))
    }

    /// Where a user's rows are.
    pub(super) fn of_user(&self, user: &UserId) -> Place {
        self.of_key(user.as_str())
    }

    /// Where a conversation's rows are.
    pub(super) fn of_conversation(&self, conversation: &ConversationId) -> Place {
        self.of_key(conversation.as_str())
    }

    /// Things by the server that they are on, each server's in their order.
    pub(super) fn sort<T>(
        things: impl IntoIterator<Item = T>,
        place: impl Fn(&T) -> Place,
    ) -> BTreeMap<Place, Vec<T>> {
        let mut by_place: BTreeMap<Place, Vec<T>> = BTreeMap::new();
        for thing in things {
            by_place.entry(place(&thing)).or_default().push(thing);
        }
        by_place
    }

    fn of_key(&self, key: &str) -> Place {
        // As many places as shards, of which there are at most 4,096.
        let shard = partition_of(key.as_bytes(), self.placement.len() as u16);
        Place(self.placement[usize::from(shard.0)])
    }

    /// Runs work as one transaction. Deadlocks, locks held too long and
    /// connections lost before the commit are tried again; a commit whose
    /// outcome nobody knows only if the work is repeatable.
    pub(super) async fn transact<W: Work>(
        &self,
        place: Place,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        self.attempt(place, work, true).await
    }

    /// Runs work as one transaction, once.
    pub(super) async fn try_once<W: Work>(
        &self,
        place: Place,
        work: &W,
        number: u32,
    ) -> Result<W::Answer, Failure> {
        self.in_time(place, work, true, number).await
    }

    /// How often work is tried.
    pub(super) fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    /// Runs work each of whose statements stands alone.
    pub(super) async fn run<W: Work>(
        &self,
        place: Place,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        self.attempt(place, work, false).await
    }

    /// Runs work that only reads, on a replica if one is there that has caught up
    /// with what is committed by now.
    pub(super) async fn read<W: Work>(
        &self,
        place: Place,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        if let Some(replicas) = self.replicas.get(place.0)
            && let Some(answer) = replicas.read(&self.pools[place.0], work).await
        {
            return Ok(answer);
        }
        self.run(place, work).await
    }

    /// Runs work that may take its time, once, on a connection of its own, which
    /// is closed afterwards with all locks that it holds.
    pub(super) async fn run_apart<W: Work>(
        &self,
        place: Place,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        let mut connection = self.connection_apart(place).await?;
        let done = work.run(&mut connection, 1).await;
        // What was done is done, whether or not the goodbye arrives.
        let _ = connection.close().await;
        done.map_err(|failure| self.named(place, failure.into()))
    }

    /// A connection that no pool gets back.
    pub(super) async fn connection_apart(
        &self,
        place: Place,
    ) -> Result<MySqlConnection, StoreError> {
        match self.pools[place.0].acquire().await {
            Ok(connection) => Ok(connection.detach()),
            Err(error) => {
                let error = self.cause(place, error).await;
                Err(self.named(place, Failure::Engine(error).into()))
            }
        }
    }

    /// A failure with the name of its server, of which there may be several.
    fn named(&self, place: Place, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(why) => {
                StoreError::Unavailable(format!("{}: {why}", self.name(place)))
            }
            error => error,
        }
    }

    /// Why a pool had no connection in time: it tries again and again where none
    /// can be made, and then doesn't say what was in the way.
    async fn cause(&self, place: Place, error: sqlx::Error) -> sqlx::Error {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return error;
        }
        let options = self.pools[place.0].connect_options();
        match tokio::time::timeout(CAUSE_WAIT, options.connect()).await {
            Ok(Err(cause)) => cause,
            Ok(Ok(_)) | Err(_) => error,
        }
    }

    /// `host:port/database`, for people.
    pub(super) fn name(&self, place: Place) -> String {
        let options = self.pools[place.0].connect_options();
        let database = options.get_database().unwrap_or_default();
        format!("{}:{}/{database}", options.get_host(), options.get_port())
    }

    async fn attempt<W: Work>(
        &self,
        place: Place,
        work: &W,
        as_one: bool,
    ) -> Result<W::Answer, StoreError> {
        let mut number = 1;
        loop {
            let failure = match self.in_time(place, work, as_one, number).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if number >= self.attempts_max || !failure.may_be_tried_again(W::REPEATABLE) {
                return Err(self.named(place, failure.into()));
            }
            metrics::counter!("sluice_store_retries_total", "reason" => failure.label())
                .increment(1);
            tokio::time::sleep(RETRY_PAUSE * number).await;
            number += 1;
        }
    }

    async fn in_time<W: Work>(
        &self,
        place: Place,
        work: &W,
        as_one: bool,
        number: u32,
    ) -> Result<W::Answer, Failure> {
        let once = self.once(place, work, as_one, number);
        let done = tokio::time::timeout(self.request_timeout, once).await;
        done.unwrap_or(Err(Failure::Late))
    }

    async fn once<W: Work>(
        &self,
        place: Place,
        work: &W,
        as_one: bool,
        number: u32,
    ) -> Result<W::Answer, Failure> {
        let pool = &self.pools[place.0];
        if !as_one {
            let mut connection = pool.acquire().await?;
            return work.run(&mut connection, number).await;
        }
        let mut transaction = pool.begin().await?;
        match work.run(&mut transaction, number).await {
            Ok(answer) => {
                transaction.commit().await.map_err(Failure::Unknown)?;
                Ok(answer)
            }
            Err(failure) => {
                // Should the connection be gone, so is the transaction.
                let _ = transaction.rollback().await;
                Err(failure)
            }
        }
    }
}

/// A process that is stopped in the middle of a transaction, or cut off, would
/// keep its locks: nobody could take its partitions over, nor write to the
/// inboxes it was at. MariaDB rolls back what stands still for this long;
/// MySQL and TiDB know no such bound, and wait until the connection is given up.
async fn bound_idle_transactions(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let bound = format!("SET SESSION idle_transaction_timeout = {IDLE_TRANSACTION_MAX_S}");
    match connection.execute(AssertSqlSafe(bound)).await {
        Err(error) if failure::number(&error) == Some(UNKNOWN_VARIABLE) => Ok(()),
        done => done.map(drop),
    }
}

/// What a URL says. It isn't shown where it is wrong: it holds a password.
fn connect_options(url: &str) -> Result<MySqlConnectOptions, StoreError> {
    let bad = |why: &str| {
        Err(StoreError::BadConfig(format!(
            "a server's url: {why}; say mysql://user:password@host:3306/database, with \
             %40 for @, %2F for / and %23 for # in a password"
        )))
    };
    if !url.starts_with("mysql://") && !url.starts_with("mariadb://") {
        return bad("it doesn't begin with mysql://");
    }
    let options = match MySqlConnectOptions::from_str(url) {
        Ok(options) => options.statement_cache_capacity(STATEMENTS_KEPT),
        Err(error) => return bad(&error.to_string()),
    };
    if options.get_database().is_none() {
        return bad("it names no database");
    }
    // Encrypted only when told: a server's certificate that nobody checks would
    // cost time and protect from nothing.
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let is_told = ["ssl-mode=", "sslmode="];
    if is_told.iter().any(|mode| parameters.contains(mode)) {
        return Ok(options);
    }
    Ok(options.ssl_mode(MySqlSslMode::Disabled))
}

fn pool(
    config: &MysqlConfig,
    connections_max: u32,
    lock_wait_s: Option<u32>,
    url: &str,
) -> Result<MySqlPool, StoreError> {
    let options = connect_options(url)?;
    let pool = MySqlPoolOptions::new()
        .max_connections(connections_max.max(1))
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                // Rows are locked by name; gaps between them, which REPEATABLE
                // READ locks too, would only make deadlocks.
                sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    .execute(&mut *connection)
                    .await?;
                bound_idle_transactions(connection).await?;
                if let Some(seconds) = lock_wait_s {
                    let bound = format!("SET SESSION innodb_lock_wait_timeout = {seconds}");
                    connection.execute(AssertSqlSafe(bound)).await?;
                }
                connection.ping().await
            })
        })
        .connect_lazy_with(options);
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        connect_options(url).unwrap_err().to_string()
    }

    #[test]
    fn a_url_that_no_server_can_be_behind_is_refused_and_not_shown() {
        for (url, told) in [
            ("postgres://me:hush@db/sluice", "mysql://"),
            ("db:3306/sluice", "mysql://"),
            ("mysql://me:hush@db:3306", "names no database"),
            ("mysql://me:hush@db:3306/", "names no database"),
            ("mysql://me:hu/sh@db:3306/sluice", "%2F for /"),
            ("mysql://me:hush@db/sluice?ssl-mode=perhaps", "perhaps"),
        ] {
            let error = refused(url);
            assert!(error.contains(told) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn both_names_of_the_ssl_mode_are_heard() {
        let mode = |parameters: &str| {
            let url = format!("mysql://me:hush@db/sluice{parameters}");
            let options = connect_options(&url).unwrap();
            format!("{:?}", options.get_ssl_mode())
        };
        assert_eq!(mode(""), "Disabled");
        assert_eq!(mode("?ssl-mode=VERIFY_IDENTITY"), "VerifyIdentity");
        assert_eq!(mode("?sslmode=VERIFY_IDENTITY"), "VerifyIdentity");
    }
}
