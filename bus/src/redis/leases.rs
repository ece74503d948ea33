//! Which gateways live: one hash of gateway → end of its lease and holder,
//! and a snapshot of it in this process.
//!
//! A route is valid while its gateway's lease is, but the lease lies in another
//! slot of the cluster than the route, so no script sees both. Who reads routes
//! goes by the snapshot instead. It may be a second old for gateways that it
//! says live: what is pushed to a dead one is dropped there. A gateway is not
//! taken for dead by an old snapshot, or messages to the first users of a new
//! gateway would be lost: a stranger costs a fresh look, at most ten a second
//! once it is known to be dead.
//!
//! Redis' own clock decides over the end of leases. Each lease names its
//! holder, a random number of this process, so that a second process with the
//! same gateway id (a store put back to an older state) gets an error instead
//! of the first one's messages.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use sluice_protocol::Incarnation;
use tokio::time::Instant;

use super::{
    link::{Lua, RedisLink},
    record::{decode_gateway, encode_gateway},
};
use crate::BusError;

/// The lives of gateways.
pub(super) struct Leases {
    link: Arc<RedisLink>,
    key: String,
    holder: String,
    /// What this process has leased, so that it notices when Redis forgets it.
    held: Mutex<HashSet<Incarnation>>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// One refresh at a time; who waited uses what the other found.
    refreshing: tokio::sync::Mutex<()>,
    /// Strangers that were looked for and not found.
    void: Mutex<HashSet<Incarnation>>,
}

/// Who lived at one moment, and until when unless renewed.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// When it was asked for; the answer came later.
    taken: Option<Instant>,
    ends: HashMap<Incarnation, Instant>,
}

/// How old a snapshot may be that says that a gateway lives.
pub(super) const LIVE_MAX_AGE: Duration = Duration::from_secs(1);
/// How old, if it says that a gateway is dead that was dead before.
const VOID_MAX_AGE: Duration = Duration::from_millis(100);
const VOID_MAX_GATEWAYS: usize = 4096;

static LEASE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/lease.lua")));
static RELEASE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/release.lua")));
static ANNOUNCE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/announce.lua")));
static GATEWAYS: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/gateways.lua")));

// === impl Leases ===

impl Leases {
    pub(super) fn new(link: Arc<RedisLink>) -> Self {
        Self {
            key: link.key("gateways"),
            link,
            holder: format!("{:032x}", rand::random::<u128>()),
            held: Mutex::default(),
            snapshot: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
            void: Mutex::default(),
        }
    }

    pub(super) async fn renew(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError> {
        let name = encode_gateway(gateway);
        let ttl_ms = ttl.as_millis().clamp(1, u128::from(u32::MAX)) as u64;
        let held = self.held.lock().contains(&gateway);
        let answer: String = self
            .link
            .script(&LEASE, &[&self.key], |call| {
                call.arg(&name).arg(ttl_ms).arg(&self.holder);
                call.arg(u8::from(held));
            })
            .await?;
        if answer == "taken" {
            self.held.lock().remove(&gateway);
            return Err(BusError::Taken(format!("gateway {gateway}")));
        }
        self.held.lock().insert(gateway);
        self.void.lock().remove(&gateway);
        if answer == "lapsed" {
            return Err(BusError::LeaseLost(format!("gateway {gateway}")));
        }
        Ok(())
    }

    pub(super) async fn release(&self, gateway: Incarnation) -> Result<(), BusError> {
        let name = encode_gateway(gateway);
        let _: i64 = self
            .link
            .script(&RELEASE, &[&self.key], |call| {
                call.arg(&name).arg(&self.holder);
            })
            .await?;
        self.held.lock().remove(&gateway);
        self.refresh(Instant::now(), Duration::ZERO).await?;
        Ok(())
    }

    /// Says that `node` does this work for a while. All that do, ascending.
    pub(super) async fn announce(
        &self,
        work: &str,
        node: u64,
        ttl: Duration,
    ) -> Result<Vec<u64>, BusError> {
        let key = self.link.key(format_args!("work:{work}"));
        let ttl_ms = ttl.as_millis().min(u128::from(u32::MAX)) as u64;
        let mut nodes: Vec<u64> = self
            .link
            .script(&ANNOUNCE, &[&key], |call| {
                call.arg(node).arg(ttl_ms);
            })
            .await?;
        nodes.sort_unstable();
        Ok(nodes)
    }

    /// Who lives now.
    pub(super) async fn alive(&self) -> Result<Vec<Incarnation>, BusError> {
        let now = Instant::now();
        let snapshot = self.refresh(now, Duration::ZERO).await?;
        Ok(snapshot.alive(Instant::now()))
    }

    /// A snapshot to judge these gateways by: fresh enough for each of them.
    pub(super) async fn judge(
        &self,
        gateways: impl Iterator<Item = Incarnation>,
    ) -> Result<Arc<Snapshot>, BusError> {
        let now = Instant::now();
        let snapshot = self.refresh(now, LIVE_MAX_AGE).await?;
        let strangers: HashSet<_> = gateways
            .filter(|gateway| !snapshot.is_alive(*gateway, now))
            .collect();
        if strangers.is_empty() {
            return Ok(snapshot);
        }
        let known_void = strangers.is_subset(&self.void.lock());
        let max_age = if known_void {
            VOID_MAX_AGE
        } else {
            Duration::ZERO
        };
        let snapshot = self.refresh(now, max_age).await?;
        let mut void = self.void.lock();
        if void.len() > VOID_MAX_GATEWAYS {
            void.clear();
        }
        for stranger in strangers {
            if snapshot.is_alive(stranger, now) {
                void.remove(&stranger);
            } else {
                void.insert(stranger);
            }
        }
        Ok(snapshot)
    }

    /// A snapshot that was asked for at most `max_age` before `now`.
    pub(super) async fn refresh(
        &self,
        now: Instant,
        max_age: Duration,
    ) -> Result<Arc<Snapshot>, BusError> {
        if let Some(snapshot) = self.snapshot_since(now, max_age) {
            return Ok(snapshot);
        }
        let _alone = self.refreshing.lock().await;
        if let Some(snapshot) = self.snapshot_since(now, max_age) {
            return Ok(snapshot);
        }
        let taken = Instant::now();
        let lives: Vec<(String, u64)> = self.link.script(&GATEWAYS, &[&self.key], |_| {}).await?;
        let ends = lives.iter().filter_map(|(gateway, rest_ms)| {
            let end = taken.checked_add(Duration::from_millis(*rest_ms))?;
            Some((decode_gateway(gateway)?, end))
        });
        let snapshot = Arc::new(Snapshot {
            taken: Some(taken),
            ends: ends.collect(),
        });
        *self.snapshot.write() = Arc::clone(&snapshot);
        Ok(snapshot)
    }

    fn snapshot_since(&self, now: Instant, max_age: Duration) -> Option<Arc<Snapshot>> {
        let snapshot = self.snapshot.read();
        let fresh = now.saturating_duration_since(snapshot.taken?) <= max_age;
        fresh.then(|| Arc::clone(&snapshot))
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn is_alive(&self, gateway: Incarnation, now: Instant) -> bool {
        self.ends.get(&gateway).is_some_and(|end| *end > now)
    }

    fn alive(&self, now: Instant) -> Vec<Incarnation> {
        let alive = self.ends.iter().filter(|(_, end)| **end > now);
        let mut alive: Vec<_> = alive.map(|(gateway, _)| *gateway).collect();
        alive.sort_unstable();
        alive
    }
}
