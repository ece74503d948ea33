//! [`MemoryDirectory`]: the port [`Directory`] within one process.
//!
//! Users are spread over shards by a keyed hash of their name; a shard is one
//! lock, its [`UserRecords`] and the watchers of its users. A user with one device
//! costs the two names and some 20 to 50 bytes, as far as the shard has grown.
//!
//! Leases run by `tokio::time`. A route is live while its gateway's lease is;
//! void routes are not seen from that moment on, and are removed (and their
//! users' watchers told) by the next call that has to do with leases.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};
use tokio::{sync::mpsc, time::Instant};

use super::{
    leases::Leases,
    presence::{Watcher, Watchers},
    user_records::{Bound, UserRecords},
};
use crate::{Bind, BindOutcome, BusError, DevicePolicy, Directory, PresenceWatch, Route};

/// Bounds of the in-process directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryDirectoryConfig {
    /// Changes that one presence watch holds before it overflows.
    pub watch_queue_max_changes: usize,
}

/// Routes, presence and gateway leases in the memory of this process.
#[derive(Debug)]
pub struct MemoryDirectory {
    config: MemoryDirectoryConfig,
    /// Keyed, since users choose their names and could aim at one shard.
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    leases: RwLock<Leases>,
    /// Nodes by the work they have announced, and until when.
    announced: Mutex<BTreeMap<(String, u64), Instant>>,
}

#[derive(Debug, Default)]
struct Shard {
    users: UserRecords,
    watchers: Watchers,
}

const SHARDS: usize = 16;

// === impl MemoryDirectoryConfig ===

impl Default for MemoryDirectoryConfig {
    fn default() -> Self {
        Self {
            watch_queue_max_changes: 1024,
        }
    }
}

// === impl MemoryDirectory ===

impl MemoryDirectory {
    /// An empty directory.
    pub fn new(config: MemoryDirectoryConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            leases: RwLock::default(),
            announced: Mutex::default(),
        })
    }

    /// Users with a route, live or void.
    pub fn users(&self) -> usize {
        self.shards.iter().map(|s| s.lock().users.len()).sum()
    }

    fn shard(&self, user: &UserId) -> (&Mutex<Shard>, u64) {
        let hash = self.hash(user.as_str().as_bytes());
        // The table goes by the low and the topmost bits.
        let index = (hash >> 32) as usize % self.shards.len();
        (&self.shards[index], hash)
    }

    fn hash(&self, user: &[u8]) -> u64 {
        self.hasher.hash_one(user)
    }

    /// Reads the user's routes, lets `change` work on them, stores them again
    /// if it says so, and tells the watchers when presence changed.
    fn change<T>(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut Vec<Bound>, &dyn Fn(&Bound) -> bool) -> (bool, T),
    ) -> T {
        let now = Instant::now();
        let leases = self.leases.read();
        let is_live = |bound: &Bound| leases.is_alive(bound.route.connection.incarnation, now);
        let (shard, hash) = self.shard(user);
        let mut shard = shard.lock();
        let shard = &mut *shard;
        let mut routes: Vec<Bound> = shard.users.routes(hash, user.as_str()).collect();
        let was_online = routes.iter().any(is_live);
        let (changed, answer) = change(&mut routes, &is_live);
        if !changed {
            return answer;
        }
        let hash_of = |user: &[u8]| self.hash(user);
        shard.users.set(hash, user.as_str(), &routes, hash_of);
        let is_online = routes.iter().any(is_live);
        if was_online != is_online {
            shard.watchers.tell(user, is_online);
        }
        answer
    }

    /// Removes the routes of gateways whose lease has run out.
    fn lapse(&self, now: Instant) {
        if !self.leases.read().has_run_out(now) {
            return;
        }
        let lapsed = self.leases.write().lapse(now);
        self.remove_routes_of(&lapsed, now);
    }

    fn remove_routes_of(&self, gateways: &[Incarnation], now: Instant) {
        if gateways.is_empty() {
            return;
        }
        let is_void = |bound: &Bound| gateways.contains(&bound.route.connection.incarnation);
        for shard in &self.shards {
            let leases = self.leases.read();
            let mut shard = shard.lock();
            let Shard { users, watchers } = &mut *shard;
            for (user, kept) in users.parted_by(is_void) {
                let name = user.as_str();
                let hash = self.hash(name.as_bytes());
                users.set(hash, name, &kept, |user| self.hash(user));
                let mut gateways_left = kept.iter().map(|b| b.route.connection.incarnation);
                if !gateways_left.any(|gateway| leases.is_alive(gateway, now)) {
                    watchers.tell(&user, false);
                }
            }
        }
    }
}

#[async_trait]
impl Directory for MemoryDirectory {
    async fn bind(
        &self,
        bind: Bind,
        policy: DevicePolicy,
        devices_max: usize,
    ) -> Result<BindOutcome, BusError> {
        let Bind { user, route, login } = bind;
        Ok(self.change(&user, |routes, is_live| {
            place(routes, Bound { login, route }, is_live, policy, devices_max)
        }))
    }

    async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError> {
        Ok(self.change(user, |routes, _| {
            let before = routes.len();
            routes.retain(|bound| {
                bound.route.connection != connection || bound.route.device != *device
            });
            let removed = routes.len() < before;
            (removed, removed)
        }))
    }

    async fn reassert(&self, binds: Vec<Bind>) -> Result<Vec<Bind>, BusError> {
        let mut displaced = Vec::new();
        for bind in binds {
            let bound = Bound {
                login: bind.login,
                route: bind.route.clone(),
            };
            let stands = self.change(&bind.user, |routes, is_live| {
                put_back(routes, bound, is_live)
            });
            if !stands {
                displaced.push(bind);
            }
        }
        Ok(displaced)
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError> {
        let now = Instant::now();
        let leases = self.leases.read();
        let routes_of = |user: &UserId| {
            let (shard, hash) = self.shard(user);
            let shard = shard.lock();
            let bound = shard.users.routes(hash, user.as_str());
            bound
                .filter(|b| leases.is_alive(b.route.connection.incarnation, now))
                .map(|b| b.route)
                .collect()
        };
        Ok(users.iter().map(routes_of).collect())
    }

    async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError> {
        self.lapse(Instant::now());
        let (sender, changes) = mpsc::channel(self.config.watch_queue_max_changes.max(1));
        let overflowed = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            changes: sender,
            overflowed: Arc::clone(&overflowed),
        };
        for user in users {
            self.shard(user).0.lock().watchers.add(user, &watcher);
        }
        Ok(PresenceWatch {
            changes,
            overflowed,
        })
    }

    async fn lease(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError> {
        let now = Instant::now();
        // Before the renewal, so that void routes can't come to life again by it.
        self.lapse(now);
        if self.leases.write().renew(gateway, now, ttl) {
            Ok(())
        } else {
            Err(BusError::LeaseLost(format!("gateway {gateway}")))
        }
    }

    async fn release(&self, gateway: Incarnation) -> Result<(), BusError> {
        self.leases.write().release(gateway);
        self.remove_routes_of(&[gateway], Instant::now());
        Ok(())
    }

    async fn gateways(&self) -> Result<Vec<Incarnation>, BusError> {
        let now = Instant::now();
        self.lapse(now);
        Ok(self.leases.read().alive(now))
    }

    async fn announce(&self, work: &str, node: u64, ttl: Duration) -> Result<Vec<u64>, BusError> {
        let now = Instant::now();
        let mut announced = self.announced.lock();
        announced.insert((work.to_owned(), node), now + ttl);
        announced.retain(|_, until| *until > now);
        let nodes = announced.keys().filter(|(other, _)| other == work);
        Ok(nodes.map(|(_, node)| *node).collect())
    }
}

/// Puts a new login among the routes, in place of those that the policy says.
/// Answers whether anything was changed.
fn place(
    routes: &mut Vec<Bound>,
    new: Bound,
    is_live: &dyn Fn(&Bound) -> bool,
    policy: DevicePolicy,
    devices_max: usize,
) -> (bool, BindOutcome) {
    let in_its_way = |old: &Bound| policy.replaces(&new.route, &old.route);
    if routes
        .iter()
        .any(|old| in_its_way(old) && old.login > new.login)
    {
        return (false, BindOutcome::Stale);
    }
    let stays = |old: &Bound| !in_its_way(old) && is_live(old);
    if routes.iter().filter(|old| stays(old)).count() >= devices_max {
        return (false, BindOutcome::TooManyDevices);
    }
    let (kept, out): (Vec<_>, Vec<_>) = routes.drain(..).partition(|old| stays(old));
    let replaced = out
        .into_iter()
        .filter(|old| in_its_way(old) && old.route.connection != new.route.connection)
        .map(|old| old.route)
        .collect();
    *routes = kept;
    routes.push(new);
    (true, BindOutcome::Bound { replaced })
}

/// Sets a device's route again unless a later login of it is bound. Answers
/// whether anything was changed, and whether the route stands.
fn put_back(
    routes: &mut Vec<Bound>,
    again: Bound,
    is_live: &dyn Fn(&Bound) -> bool,
) -> (bool, bool) {
    let there = routes
        .iter_mut()
        .find(|old| old.route.device == again.route.device);
    match there {
        None => routes.push(again),
        Some(old) if old.route.connection == again.route.connection => {
            let newer = again.login > old.login;
            if newer {
                *old = again;
            }
            return (newer, true);
        }
        Some(old) if old.login >= again.login && is_live(old) => return (false, false),
        Some(old) => *old = again,
    }
    (true, true)
}
