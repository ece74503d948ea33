//! Who watches whose presence, for one shard of the directory.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hashbrown::HashMap;
use sluice_protocol::UserId;
use tokio::sync::mpsc;

use crate::PresenceChange;

/// The sending end of one watch; clones of it stand under each user watched.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    pub(super) changes: mpsc::Sender<PresenceChange>,
    pub(super) overflowed: Arc<AtomicBool>,
}

/// Watchers by user. Ended watches are swept out whenever the table has
/// doubled since the last sweep, so they cost at most as much as live ones.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_user: HashMap<UserId, Vec<Watcher>>,
    watches: usize,
    sweep_at: usize,
}

const FIRST_SWEEP_WATCHES: usize = 64;

// === impl Watchers ===

impl Watchers {
    pub(super) fn add(&mut self, user: &UserId, watcher: &Watcher) {
        if self.watches >= self.sweep_at.max(FIRST_SWEEP_WATCHES) {
            self.sweep();
        }
        self.by_user
            .entry(user.clone())
            .or_default()
            .push(watcher.clone());
        self.watches += 1;
    }

    /// Tells the user's watchers. Who has no room for it learns that it missed something.
    pub(super) fn tell(&mut self, user: &UserId, online: bool) {
        let Some(watchers) = self.by_user.get(user) else {
            return;
        };
        for watcher in watchers {
            let user = user.clone();
            let sent = watcher.changes.try_send(PresenceChange { user, online });
            if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                watcher.overflowed.store(true, Ordering::Release);
            }
        }
    }

    fn sweep(&mut self) {
        self.by_user.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.changes.is_closed());
            !watchers.is_empty()
        });
        self.watches = self.by_user.values().map(Vec::len).sum();
        self.sweep_at = self.watches * 2;
    }
}
