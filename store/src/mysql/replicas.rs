//! Reads from replicas that have caught up.
//!
//! A read that was asked for after a commit was answered must see it. So before
//! a replica is read, the primary is asked how far it is (its GTID position), and
//! the replica whether it has come as far; if not soon, the primary is read. One
//! question to the primary serves all reads that were waiting when it was put: a
//! busy node asks once a round trip, not once a read.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{MySqlPool, Row};

use super::{MysqlConfig, failure::Failure, servers::Work};

/// A replica that failed or lags is left alone for so long.
const BENCH: Duration = Duration::from_secs(1);

/// The replicas of one server.
#[derive(Debug)]
pub(super) struct Replicas {
    replicas: Vec<Replica>,
    next: AtomicUsize,
    /// How many reads have asked for the position.
    asked: AtomicU64,
    position: tokio::sync::Mutex<Position>,
    wait: Duration,
    timeout: Duration,
}

#[derive(Debug)]
struct Replica {
    pool: MySqlPool,
    benched_until: Mutex<Option<Instant>>,
}

/// How far the primary was.
#[derive(Debug, Default)]
struct Position {
    /// Good for those who had asked by then.
    covers: u64,
    gtid: Vec<u8>,
}

/// Why a replica wasn't read.
#[derive(Debug, Clone, Copy)]
enum Unread {
    /// It hasn't come so far.
    Behind,
    /// It, or the primary, failed.
    Failed,
    /// It, or the primary, took too long.
    TimedOut,
    /// The primary keeps no binary log, or has no GTIDs.
    NoPosition,
}

// === impl Replicas ===

impl Replicas {
    pub(super) fn new(config: &MysqlConfig, pools: Vec<MySqlPool>) -> Self {
        let replicas = pools.into_iter().map(|pool| Replica {
            pool,
            benched_until: Mutex::new(None),
        });
        Self {
            replicas: replicas.collect(),
            next: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            position: tokio::sync::Mutex::default(),
            wait: Duration::from_millis(config.replica_wait_ms),
            timeout: Duration::from_millis(config.replica_timeout_ms),
        }
    }

    /// Runs a read on a replica; `None`: it has to be run on the primary.
    pub(super) async fn read<W: Work>(&self, primary: &MySqlPool, work: &W) -> Option<W::Answer> {
        let replica = self.choose()?;
        let until = tokio::time::Instant::now() + self.timeout;
        let unread = match self.read_by(primary, replica, work, until).await {
            Ok(answer) => {
                metrics::counter!("sluice_store_replica_reads_total", "outcome" => "read")
                    .increment(1);
                return Some(answer);
            }
            Err(unread) => unread,
        };
        metrics::counter!("sluice_store_replica_reads_total", "outcome" => unread.label())
            .increment(1);
        *replica.benched_until.lock() = Some(Instant::now() + BENCH);
        None
    }

    /// One after the other, but for those on the bench.
    fn choose(&self) -> Option<&Replica> {
        let count = self.replicas.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        (0..count)
            .filter_map(|step| self.replicas.get(first.wrapping_add(step) % count))
            .find(|replica| {
                let until = *replica.benched_until.lock();
                until.is_none_or(|until| until <= now)
            })
    }

    async fn read_by<W: Work>(
        &self,
        primary: &MySqlPool,
        replica: &Replica,
        work: &W,
        until: tokio::time::Instant,
    ) -> Result<W::Answer, Unread> {
        let late = |_| Unread::TimedOut;
        let position = tokio::time::timeout_at(until, self.position(primary));
        let gtid = position.await.map_err(late)??;
        let acquired = tokio::time::timeout_at(until, replica.pool.acquire()).await;
        let mut connection = acquired.map_err(late)?.map_err(|_| Unread::Failed)?;
        let read = async {
            let caught_up: Option<i64> = sqlx::query("SELECT MASTER_GTID_WAIT(?, ?)")
                .bind(&gtid)
                .bind(self.wait.as_secs_f64())
                .fetch_one(&mut *connection)
                .await?
                .try_get(0)?;
            match caught_up {
                Some(0) => work.run(&mut connection, 1).await.map(Some),
                _ => Ok(None),
            }
        };
        match tokio::time::timeout_at(until, read).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Unread::Behind),
            Ok(Err(failure)) => Err(Unread::of(&failure)),
            Err(_) => {
                // An answer may still come, or never: nobody else gets this one.
                drop(connection.detach());
                Err(Unread::TimedOut)
            }
        }
    }

    /// How far the primary is, at this moment or later.
    async fn position(&self, primary: &MySqlPool) -> Result<Vec<u8>, Unread> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut position = self.position.lock().await;
        if position.covers < number {
            // Whoever has a number by now asked before this question is put.
            let covers = self.asked.load(Ordering::SeqCst);
            let gtid: Vec<u8> = sqlx::query_scalar("SELECT CAST(@@gtid_binlog_pos AS BINARY)")
                .fetch_one(primary)
                .await
                .map_err(|_| Unread::Failed)?;
            *position = Position { covers, gtid };
        }
        match position.gtid.is_empty() {
            true => Err(Unread::NoPosition),
            false => Ok(position.gtid.clone()),
        }
    }
}

// === impl Unread ===

impl Unread {
    fn of(failure: &Failure) -> Self {
        tracing::debug!(?failure, "a replica failed");
        Self::Failed
    }

    /// A bounded label for metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NoPosition => "no_position",
        }
    }
}
