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
    /// By (blocker, blocked).
    blocks: Cache<(UserId, UserId), (bool, u64)>,
    /// Raised by every change: what was read before it must not be kept.
    changes: u64,
    /// Whether changes elsewhere are told to this node.
    is_told: bool,
}

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
                blocks: Cache::new(max.max(1)),
                changes: 0,
                is_told: false,
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
            for user in users {
                match kept.statuses.get(user) {
                    Some((status, until_ms)) if *until_ms > now_ms => {
                        standing.statuses.insert(user.clone(), *status);
                    }
                    _ => ask_users.push(user.clone()),
                }
            }
            for pair in pairs {
                match kept.blocks.get(pair) {
                    Some((true, until_ms)) if *until_ms > now_ms => {
                        standing.blocked.insert(pair.clone());
                    }
                    Some((false, until_ms)) if *until_ms > now_ms => {}
                    _ => ask_pairs.push(pair.clone()),
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
        let keep = self.ttl_ms > 0 && kept.is_told && kept.changes == seen_changes;
        for user in users.into_iter().flatten() {
            if keep {
                kept.statuses
                    .insert(user.id.clone(), (user.status, until_ms));
            }
            standing.statuses.insert(user.id, user.status);
        }
        for (pair, on) in ask_pairs.into_iter().zip(blocks) {
            if keep {
                kept.blocks.insert(pair.clone(), (on, until_ms));
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
        kept.blocks.retain(|(blocker, _), _| blocker != user);
    }

    /// Changes may have been missed.
    pub(crate) fn forget_all(&self) {
        let mut kept = self.kept.lock();
        kept.changes += 1;
        kept.statuses.clear();
        kept.blocks.clear();
    }

    /// From now on changes elsewhere are told to this node, or are not.
    pub(crate) fn set_told(&self, is_told: bool) {
        if std::mem::replace(&mut self.kept.lock().is_told, is_told) != is_told {
            self.forget_all();
        }
    }
}
