//! A stream's lease: taken, renewed and given back by a task of its own.
//!
//! The task takes it too, so that a cancelled `own` leaves nothing behind. A
//! token is random and never used twice. After a read whose outcome is unknown
//! the owner goes on under a new token, which voids that read should it still
//! arrive: else it could take entries that nobody sees.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{bus::Engine, names::Names};
use crate::BusError;

/// The hold on a lease; given back when dropped.
pub(super) struct Lease {
    tokens: Arc<Mutex<Tokens>>,
    /// Its end tells the task to give the lease back.
    _held: oneshot::Sender<()>,
}

/// The token, and the one before while the change isn't confirmed.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    pub(super) current: String,
    pub(super) former: String,
}

struct Keeper {
    engine: Arc<Engine>,
    names: Arc<Names>,
    tokens: Arc<Mutex<Tokens>>,
}

// === impl Lease ===

impl Lease {
    /// Waits until the lease is ours.
    pub(super) async fn take(engine: &Arc<Engine>, names: &Arc<Names>) -> Result<Self, BusError> {
        let tokens = Arc::new(Mutex::new(Tokens {
            current: fresh_token(),
            former: String::new(),
        }));
        let keeper = Keeper {
            engine: Arc::clone(engine),
            names: Arc::clone(names),
            tokens: Arc::clone(&tokens),
        };
        let (granted, answer) = oneshot::channel();
        let (held, end) = oneshot::channel();
        tokio::spawn(keeper.keep(granted, end));
        let closed = || BusError::Closed(names.plain.clone());
        answer.await.map_err(|_| closed())??;
        Ok(Self {
            tokens,
            _held: held,
        })
    }

    pub(super) fn tokens(&self) -> Tokens {
        self.tokens.lock().clone()
    }

    /// Goes on under a new token, unless such a change is under way already.
    pub(super) fn change_token(&self) {
        let mut tokens = self.tokens.lock();
        if tokens.former.is_empty() {
            tokens.former = std::mem::replace(&mut tokens.current, fresh_token());
        }
    }

    /// Redis knows the new token.
    pub(super) fn token_confirmed(&self) {
        self.tokens.lock().former.clear();
    }
}

// === impl Keeper ===

impl Keeper {
    async fn keep(
        self,
        mut granted: oneshot::Sender<Result<(), BusError>>,
        mut end: oneshot::Receiver<()>,
    ) {
        let taken = tokio::select! {
            taken = self.acquire() => taken,
            () = granted.closed() => return self.release().await,
        };
        let is_ours = taken.is_ok();
        if granted.send(taken).is_err() || !is_ours {
            return self.release().await;
        }
        let ttl = Duration::from_millis(self.engine.config.lease_ttl_ms);
        let mut renewals = interval(ttl / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut end => return self.release().await,
                _ = renewals.tick() => self.renew().await,
            }
        }
    }

    async fn acquire(&self) -> Result<(), BusError> {
        let config = &self.engine.config;
        let token = self.tokens.lock().current.clone();
        let keys = [self.names.stream.as_str(), self.names.lease.as_str()];
        loop {
            let answer = self.engine.link.script::<Vec<redis::Value>>(
                &self.engine.scripts.own,
                &keys,
                |call| {
                    call.arg(&token).arg(config.lease_ttl_ms);
                    call.arg(self.names.down_flag());
                },
            );
            // One element: ours. Two: held by another, for so long.
            if answer.await?.len() == 1 {
                return Ok(());
            }
            sleep(Duration::from_millis(config.lease_poll_ms)).await;
        }
    }

    /// A failure is no matter: the next read says whether the lease is lost.
    async fn renew(&self) {
        let tokens = self.tokens.lock().clone();
        let keys = [self.names.stream.as_str(), self.names.lease.as_str()];
        let renewed =
            self.engine
                .link
                .script::<(i64, i64)>(&self.engine.scripts.renew, &keys, |call| {
                    call.arg(&tokens.current).arg(&tokens.former);
                    call.arg(self.engine.config.lease_ttl_ms);
                    call.arg(self.names.down_flag());
                });
        match renewed.await {
            Ok((entries, pending)) if entries >= 0 => self.names.gauge(entries, pending),
            Ok(_) => tracing::debug!(stream = %self.names.plain, "lease not ours any more"),
            Err(error) => {
                tracing::warn!(stream = %self.names.plain, %error, "lease not renewed");
            }
        }
    }

    /// If this fails, the lease ends by itself.
    async fn release(&self) {
        let tokens = self.tokens.lock().clone();
        let keys = [self.names.stream.as_str(), self.names.lease.as_str()];
        let released = self
            .engine
            .link
            .script::<u8>(&self.engine.scripts.release, &keys, |call| {
                call.arg(&tokens.current).arg(&tokens.former);
                call.arg(self.names.down_flag());
            });
        if let Err(error) = released.await {
            tracing::debug!(stream = %self.names.plain, %error, "lease not given back");
        }
    }
}

/// 128 random bits.
pub(super) fn fresh_token() -> String {
    format!("{:032x}", rand::random::<u128>())
}
