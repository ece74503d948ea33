//! Leave to hash a password: a bounded number at once, and behind them a line
//! of bounded length and patience in which one address has a bounded share. So
//! strangers from a few addresses can't keep everybody from logging in.
//!
//! The line is first come, first served, and doesn't know who asks for whom: a
//! user that isn't there waits as long as one that is.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use parking_lot::Mutex;
use sluice_protocol::packet::ErrorCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::ApiError;
use crate::{Config, Peer};

/// Those that hash, and those in line.
#[derive(Debug)]
pub(crate) struct HashSlots {
    /// Fair: who waits longest is next.
    at_once: Arc<Semaphore>,
    /// Those that hash or wait.
    pending: Arc<Semaphore>,
    wait: Duration,
    by_address: Arc<Shares>,
}

/// Leave to hash, once; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _hashing: OwnedSemaphorePermit,
    _pending: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// How much each address holds. Only addresses that hold something are in there.
#[derive(Debug)]
struct Shares {
    held: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
}

/// One address's part; given back when it is dropped.
#[derive(Debug)]
struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
}

// === impl HashSlots ===

impl HashSlots {
    pub(crate) fn new(config: &Config) -> Self {
        let at_once = config
            .password_hashes_at_once_max
            .clamp(1, Semaphore::MAX_PERMITS / 2);
        let waits = config.password_waits_max.min(Semaphore::MAX_PERMITS / 2);
        Self {
            at_once: Arc::new(Semaphore::new(at_once)),
            pending: Arc::new(Semaphore::new(at_once + waits)),
            wait: Duration::from_millis(config.password_wait_ms),
            by_address: Arc::new(Shares {
                held: Mutex::default(),
                per_address_max: config.password_hashes_per_address_max.max(1),
            }),
        }
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// 429 when the peer's address has all that one may have, 503 when the line
    /// is full or too slow; both with `Retry-After`.
    pub(crate) async fn take(&self, peer: Option<Peer>) -> Result<Slot, ApiError> {
        let share = match peer {
            Some(Peer(address)) => Some(Shares::take(&self.by_address, address)?),
            None => None,
        };
        let full = || ApiError::unavailable("too many logins at once, try again");
        let pending = Arc::clone(&self.pending)
            .try_acquire_owned()
            .map_err(|_| full())?;
        let turn = timeout(self.wait, Arc::clone(&self.at_once).acquire_owned());
        let Ok(Ok(hashing)) = turn.await else {
            return Err(full());
        };
        Ok(Slot {
            _hashing: hashing,
            _pending: pending,
            _share: share,
        })
    }
}

// === impl Shares ===

impl Shares {
    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Share, ApiError> {
        let mut held = self.held.lock();
        let of_address = held.get(&address).copied().unwrap_or(0);
        if of_address >= self.per_address_max {
            return Err(ApiError::new(
                ErrorCode::TooManyPending,
                "too many logins of your address at once, try again",
            )
            .retry_after(1));
        }
        held.insert(address, of_address + 1);
        Ok(Share {
            shares: Arc::clone(self),
            address,
        })
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        match held.get_mut(&self.address) {
            Some(of_address) if *of_address > 1 => *of_address -= 1,
            _ => {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use axum::response::IntoResponse as _;

    use super::*;

    fn slots(at_once: usize, waits: usize, per_address: usize) -> HashSlots {
        HashSlots::new(&Config {
            password_hashes_at_once_max: at_once,
            password_waits_max: waits,
            password_wait_ms: 3_600_000,
            password_hashes_per_address_max: per_address,
            ..Config::default()
        })
    }

    fn peer(last: u8) -> Option<Peer> {
        Some(Peer(IpAddr::from([10, 0, 0, last])))
    }

    fn status(refused: Result<Slot, ApiError>) -> u16 {
        refused.unwrap_err().into_response().status().as_u16()
    }

    /// What has come of it by now.
    async fn now<F: Future>(waiting: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut waiting = Some(waiting);
        std::future::poll_fn(|context| match waiting.take() {
            Some(waiting) => match waiting.poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => Poll::Ready(None),
            },
            None => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn the_line_is_served_in_order_and_is_bounded() {
        let slots = slots(1, 2, 100);
        let hashing = slots.take(None).await.unwrap();
        let (mut second, mut third) = (pin!(slots.take(None)), pin!(slots.take(None)));
        assert!(now(second.as_mut()).await.is_none());
        assert!(now(third.as_mut()).await.is_none());
        assert_eq!(status(slots.take(None).await), 503, "the line is full");

        drop(hashing);
        assert!(now(third.as_mut()).await.is_none(), "not before the second");
        let hashing = now(second.as_mut()).await.unwrap().unwrap();
        drop(hashing);
        drop(now(third.as_mut()).await.unwrap().unwrap());
        assert_eq!(slots.pending.available_permits(), 3);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let mut slots = slots(1, 2, 2);
        slots.wait = Duration::from_millis(20);
        let hashing = slots.take(peer(1)).await.unwrap();
        assert_eq!(status(slots.take(peer(1)).await), 503);
        drop(hashing);
        drop(slots.take(peer(1)).await.unwrap());
        assert_eq!(slots.pending.available_permits(), 3);
        assert!(slots.by_address.held.lock().is_empty());
    }

    #[tokio::test]
    async fn one_address_does_not_fill_the_line() {
        let slots = slots(1, 8, 2);
        let hashing = slots.take(peer(1)).await.unwrap();
        let mut greedy = Box::pin(slots.take(peer(1)));
        assert!(now(greedy.as_mut()).await.is_none());
        assert_eq!(status(slots.take(peer(1)).await), 429);
        // Another's place in line is there, and so is one without an address.
        let (mut other, mut exempt) = (pin!(slots.take(peer(2))), pin!(slots.take(None)));
        assert!(now(other.as_mut()).await.is_none());
        assert!(now(exempt.as_mut()).await.is_none());
        // Who goes away leaves the line.
        drop((greedy, hashing));
        let slot = now(other.as_mut()).await.unwrap().unwrap();
        drop(slot);
        drop(now(exempt.as_mut()).await.unwrap().unwrap());
        assert!(slots.by_address.held.lock().is_empty());
    }
}
