//! What is known of users' standing: may they speak, and to whom.
//!
//! Every send asks for it, so it is kept: the caches of users and of blocks,
//! each bounded (`standings_cached_max`). Who changes a user tells all service
//! nodes (`peers`), and this one forgets; should it not be told, what it keeps
//! ends after `standing_ttl_ms`. It keeps nothing while the others don't know
//! of it. Unknown users are not kept: they may register any moment.

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use sluice_protocol::UserId;
use sluice_store::{Store, StoreError, UserStatus};
use tokio::time::Instant;

use crate::cache_metrics::{self, Cached};

/// Statuses and blocks of a batch's people.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    statuses: HashMap<UserId, UserStatus>,
    /// (blocker, blocked) pairs that stand.
    blocked: HashSet<(UserId, UserId)>,
}

/// The kept part; shared by all partitions of a process.
pub(crate) struct Standings {
    kept: Mutex<Kept>,
    ttl_ms: u64,
}

/// Values with the time until which they hold.
struct Kept {
    statuses: Cache<UserId, (UserStatus, u64)>,
    blocks: Blocks,
    /// Raised by every change: what was read before it must not be kept.
    changes: u64,
    /// Until then changes elsewhere are told to this node.
    told_until: Instant,
}

/// The kept blocks. To forget a blocker costs the same, however many are kept:
/// their blocks stay where they are, and hold no more since they are older.
struct Blocks {
    /// By (blocker, blocked).
    kept: Cache<(UserId, UserId), Block>,
    /// When blockers were last forgotten.
    forgotten: HashMap<UserId, u64>,
    forgotten_max: usize,
    /// What was kept before this holds for nobody.
    since: u64,
    /// Raised by all that is forgotten.
    now: u64,
}

/// Whether a pair's block stands.
struct Block {
    on: bool,
    until_ms: u64,
    /// [`Blocks::now`] when it was kept.
    kept_at: u64,
}

/// Blockers that are known to be forgotten, as a part of the blocks that may be
/// kept; past it all are.
const FORGOTTEN_PER_KEPT: usize = 8;

// === impl Standing ===

impl Standing {
    /// `None`: there is no such user.
    pub(crate) fn status(&self, user: &UserId) -> Option<UserStatus> {
        self.statuses.get(user).copied()
    }

    pub(crate) fn is_blocked(&self, blocker: &UserId, blocked: &UserId) -> bool {
        self.blocked.contains(&(blocker.clone(), blocked.clone()))
    }
}

// === impl Standings ===

impl Standings {
    /// With a `ttl_ms` of 0 nothing is kept.
    pub(crate) fn new(max: usize, ttl_ms: u64) -> Self {
        Self {
            kept: Mutex::new(Kept {
                statuses: Cache::new(max.max(1)),
                blocks: Blocks::new(max.max(1)),
                changes: 0,
                told_until: Instant::now(),
            }),
            ttl_ms,
        }
    }

    /// Standing of the users and of the pairs (blocker, blocked); asks the
    /// store at most once for each kind.
    pub(crate) async fn of(
        &self,
        store: &dyn Store,
        users: &HashSet<UserId>,
        pairs: &HashSet<(UserId, UserId)>,
        now_ms: u64,
    ) -> Result<Standing, StoreError> {
        let mut standing = Standing::default();
        let (mut ask_users, mut ask_pairs) = (Vec::new(), Vec::new());
        let seen_changes = {
            let kept = self.kept.lock();
            let told = kept.is_told();
            for user in users {
                match kept.statuses.get(user) {
                    Some((status, until_ms)) if told && *until_ms > now_ms => {
                        standing.statuses.insert(user.clone(), *status);
                    }
                    _ => ask_users.push(user.clone()),
                }
            }
            for pair in pairs {
                match kept.blocks.find(pair, now_ms).filter(|_| told) {
                    Some(true) => {
                        standing.blocked.insert(pair.clone());
                    }
                    Some(false) => {}
                    None => ask_pairs.push(pair.clone()),
                }
            }
            kept.changes
        };
        cache_metrics::count(Cached::User, users.len(), ask_users.len());
        cache_metrics::count(Cached::Block, pairs.len(), ask_pairs.len());
        let users = match ask_users.is_empty() {
            true => Vec::new(),
            false => store.users(&ask_users).await?,
        };
        let blocks = match ask_pairs.is_empty() {
            true => Vec::new(),
            false => store.blocks(&ask_pairs).await?,
        };
        let until_ms = now_ms.saturating_add(self.ttl_ms);
        let mut kept = self.kept.lock();
        let keep = self.ttl_ms > 0 && kept.is_told() && kept.changes == seen_changes;
        for user in users.into_iter().flatten() {
            if keep {
                kept.statuses
                    .insert(user.id.clone(), (user.status, until_ms));
            }
            standing.statuses.insert(user.id, user.status);
        }
        for (pair, on) in ask_pairs.into_iter().zip(blocks) {
            if keep {
                kept.blocks.keep(pair.clone(), on, until_ms);
            }
            if on {
                standing.blocked.insert(pair);
            }
        }
        Ok(standing)
    }

    /// The user's status or blocks were changed.
    pub(crate) fn forget(&self, user: &UserId) {
        let mut kept = self.kept.lock();
        kept.changes += 1;
        kept.statuses.remove(user);
        kept.blocks.forget(user);
    }

    /// Changes may have been missed.
    pub(crate) fn forget_all(&self) {
        let mut kept = self.kept.lock();
        kept.changes += 1;
        kept.statuses.clear();
        kept.blocks.forget_all();
    }

    /// What told the others of this node may be forgotten: nothing is kept until it
    /// is said again.
    pub(crate) fn untold(&self) {
        self.forget_all();
        self.kept.lock().told_until = Instant::now();
    }

    /// Until then, unless it is said again, changes elsewhere are told to this node.
    pub(crate) fn told_until(&self, until: Instant) {
        if !self.kept.lock().is_told() {
            // There was a time without.
            self.forget_all();
        }
        self.kept.lock().told_until = until;
    }
}

// === impl Kept ===

impl Kept {
    fn is_told(&self) -> bool {
        Instant::now() < self.told_until
    }
}

// === impl Blocks ===

impl Blocks {
    fn new(max: usize) -> Self {
        Self {
            kept: Cache::new(max),
            forgotten: HashMap::new(),
            forgotten_max: max.div_ceil(FORGOTTEN_PER_KEPT),
            since: 0,
            now: 0,
        }
    }

    fn find(&self, pair: &(UserId, UserId), now_ms: u64) -> Option<bool> {
        let block = self.kept.get(pair)?;
        let since = self.forgotten.get(&pair.0).unwrap_or(&self.since);
        (block.until_ms > now_ms && block.kept_at >= *since).then_some(block.on)
    }

    fn keep(&mut self, pair: (UserId, UserId), on: bool, until_ms: u64) {
        let kept_at = self.now;
        let block = Block {
            on,
            until_ms,
            kept_at,
        };
        self.kept.insert(pair, block);
    }

    fn forget(&mut self, blocker: &UserId) {
        self.now += 1;
        if self.forgotten.len() >= self.forgotten_max && !self.forgotten.contains_key(blocker) {
            self.forgotten.clear();
            self.since = self.now;
        }
        self.forgotten.insert(blocker.clone(), self.now);
    }

    fn forget_all(&mut self) {
        self.now += 1;
        self.since = self.now;
        self.forgotten.clear();
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn pair(blocker: &str, blocked: &str) -> (UserId, UserId) {
        (user(blocker), user(blocked))
    }

    #[test]
    fn a_blocker_is_forgotten_and_nobody_else() {
        let mut blocks = Blocks::new(80);
        for blocker in ["ann", "ben"] {
            blocks.keep(pair(blocker, "cat"), true, 10);
            blocks.keep(pair(blocker, "dan"), false, 10);
        }
        assert_eq!(blocks.find(&pair("ann", "cat"), 9), Some(true));
        assert_eq!(blocks.find(&pair("ann", "cat"), 10), None, "too old");

        blocks.forget(&user("ann"));
        for blocked in ["cat", "dan"] {
            assert_eq!(blocks.find(&pair("ann", blocked), 0), None);
        }
        assert_eq!(blocks.find(&pair("ben", "cat"), 0), Some(true));
        assert_eq!(blocks.find(&pair("ben", "dan"), 0), Some(false));
        // What is read after the change is kept again.
        blocks.keep(pair("ann", "cat"), false, 10);
        assert_eq!(blocks.find(&pair("ann", "cat"), 0), Some(false));
        assert_eq!(blocks.find(&pair("ann", "dan"), 0), None);

        blocks.forget_all();
        assert_eq!(blocks.find(&pair("ben", "cat"), 0), None);
        blocks.keep(pair("ben", "cat"), true, 10);
        assert_eq!(blocks.find(&pair("ben", "cat"), 0), Some(true));
    }

    #[test]
    fn the_forgotten_are_bounded() {
        let mut blocks = Blocks::new(80);
        blocks.keep(pair("ann", "cat"), true, 10);
        blocks.forget(&user("ann"));
        for n in 0..1000 {
            blocks.keep(pair("ben", "cat"), true, 10);
            blocks.forget(&user(&format!("u{n}")));
            assert_eq!(blocks.find(&pair("ann", "cat"), 0), None);
            assert!(blocks.forgotten.len() <= 10);
        }
        blocks.forget(&user("ben"));
        assert_eq!(blocks.find(&pair("ben", "cat"), 0), None);
        blocks.keep(pair("ben", "cat"), true, 10);
        assert_eq!(blocks.find(&pair("ben", "cat"), 0), Some(true));
    }
}
