//! What is known of users' standing: may they speak, and to whom.
//!
//! Every send asks for it, so it is kept for a short, configured span
//! (`standing_ttl_ms`). Changes made by this process are forgotten here at
//! once; those of other processes hold after that span. Unknown users are not
//! kept: they may register any moment.

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use sluice_protocol::UserId;
use sluice_store::{Store, StoreError, UserStatus};

/// Statuses and blocks of a batch's people.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    statuses: HashMap<UserId, UserStatus>,
    /// (blocker, blocked) pairs that stand.
    blocked: HashSet<(UserId, UserId)>,
}

/// The kept part; shared by all partitions of a process.
#[derive(Debug)]
pub(crate) struct Standings {
    kept: Mutex<Kept>,
    ttl_ms: u64,
    max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    statuses: HashMap<UserId, (UserStatus, u64)>,
    blocks: HashMap<(UserId, UserId), (bool, u64)>,
    /// Raised by every change: what was read before it must not be kept.
    changes: u64,
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
    pub(crate) fn new(max: usize, ttl_ms: u64) -> Self {
        Self {
            kept: Mutex::default(),
            ttl_ms,
            max: max.max(1),
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
        let keep = kept.changes == seen_changes;
        if keep {
            kept.make_room(self.max, now_ms);
        }
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

    /// The user's status or blocks were changed by this process.
    pub(crate) fn forget(&self, user: &UserId) {
        let mut kept = self.kept.lock();
        kept.changes += 1;
        kept.statuses.remove(user);
        kept.blocks.retain(|(blocker, _), _| blocker != user);
    }
}

// === impl Kept ===

impl Kept {
    fn make_room(&mut self, max: usize, now_ms: u64) {
        if self.statuses.len() >= max {
            self.statuses.retain(|_, (_, until_ms)| *until_ms > now_ms);
            if self.statuses.len() >= max {
                self.statuses.clear();
            }
        }
        if self.blocks.len() >= max {
            self.blocks.retain(|_, (_, until_ms)| *until_ms > now_ms);
            if self.blocks.len() >= max {
                self.blocks.clear();
            }
        }
    }
}
