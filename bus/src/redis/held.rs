//! A consumer among others on a shared stream: what it holds stays with it while
//! it lives, by signs of life from a task of its own, and goes to the others
//! when it leaves or falls silent.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use super::{bus::Engine, lease::fresh_token, names::Names, page::entry_text};
use crate::{BusError, EntryId, NodeName};

/// Consumers without entries are forgotten after so long.
const FORGET_CONSUMER_MS: u64 = 600_000;

/// One consumer's place in the group; left when dropped.
pub(super) struct Membership {
    /// A name that no other life has, so that what an earlier one left is inherited once.
    pub(super) consumer: Arc<str>,
    /// Handed out, not acknowledged; at most what the stream holds.
    pub(super) held: Arc<Mutex<BTreeSet<EntryId>>>,
    _here: oneshot::Sender<()>,
}

struct Keeper {
    engine: Arc<Engine>,
    names: Arc<Names>,
    consumer: Arc<str>,
    held: Arc<Mutex<BTreeSet<EntryId>>>,
}

// === impl Membership ===

impl Membership {
    pub(super) async fn begin(
        engine: &Arc<Engine>,
        names: &Arc<Names>,
        consumer: &NodeName,
    ) -> Result<Self, BusError> {
        let keys = [names.stream.as_str(), names.closed.as_str()];
        let joined = engine
            .link
            .script::<String>(&engine.scripts.join, &keys, |call| {
                call.arg(FORGET_CONSUMER_MS);
            });
        joined.await?;
        let mut life = fresh_token();
        life.truncate(8);
        let consumer: Arc<str> = format!("{}/{life}", consumer.0).into();
        let held = Arc::default();
        let keeper = Keeper {
            engine: Arc::clone(engine),
            names: Arc::clone(names),
            consumer: Arc::clone(&consumer),
            held: Arc::clone(&held),
        };
        let (here, end) = oneshot::channel();
        tokio::spawn(keeper.keep(end));
        Ok(Self {
            consumer,
            held,
            _here: here,
        })
    }
}

// === impl Keeper ===

impl Keeper {
    async fn keep(self, mut end: oneshot::Receiver<()>) {
        let idle = Duration::from_millis(self.engine.config.claim_idle_ms);
        let mut signs = interval(idle / 3);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut end => return self.leave().await,
                _ = signs.tick() => self.show_life().await,
            }
        }
    }

    async fn show_life(&self) {
        let held: Vec<String> = self.held.lock().iter().map(entry_text).collect();
        let keys = [self.names.stream.as_str()];
        let kept =
            self.engine
                .link
                .script::<(i64, i64)>(&self.engine.scripts.keep, &keys, |call| {
                    call.arg(&*self.consumer).arg(&held);
                });
        match kept.await {
            Ok((entries, pending)) => self.names.gauge(entries, pending),
            Err(error) => {
                tracing::warn!(stream = %self.names.plain, %error, "no sign of life given");
            }
        }
    }

    /// If this fails, others inherit after `claim_idle_ms`.
    async fn leave(&self) {
        let keys = [self.names.stream.as_str()];
        let left = self
            .engine
            .link
            .script::<u64>(&self.engine.scripts.leave, &keys, |call| {
                call.arg(&*self.consumer);
            });
        if let Err(error) = left.await {
            tracing::debug!(stream = %self.names.plain, %error, "left without a word");
        }
    }
}
