//! The port [`Directory`]: who is connected where.

use std::time::Duration;

use async_trait::async_trait;
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};
use tokio::sync::mpsc;

use crate::BusError;

/// A live connection of a user. Valid while the lease of its gateway
/// (`connection.incarnation`) is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The device that is connected.
    pub device: DeviceId,
    /// Platform class as in `Connect.platform`.
    pub platform: i32,
    /// Its connection; names the gateway too.
    pub connection: ConnectionId,
}

/// A device that has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Whose device.
    pub user: UserId,
    /// Where it is.
    pub route: Route,
    /// Number of this login among the user's, issued by the store and rising:
    /// a late repeat of an old bind can't push a newer one aside.
    pub login: u64,
}

/// Which sessions of a user may live side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePolicy {
    /// One session a device id.
    #[default]
    EachDevice,
    /// One session a platform class.
    EachPlatform,
    /// One session in all.
    Single,
}

impl DevicePolicy {
    /// Whether a login at `new` takes the place of the one at `old`.
    pub fn replaces(self, new: &Route, old: &Route) -> bool {
        old.device == new.device
            || match self {
                DevicePolicy::EachDevice => false,
                DevicePolicy::EachPlatform => old.platform == new.platform,
                DevicePolicy::Single => true,
            }
    }
}

/// What became of a bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindOutcome {
    /// Bound; these older connections must be kicked as `replaced`.
    Bound {
        /// Connections whose place the new one took.
        replaced: Vec<Route>,
    },
    /// The user has the most live devices allowed; nothing was changed.
    TooManyDevices,
    /// A later login stands where this one would (of this device, or of
    /// another that the policy doesn't let live beside it); nothing was changed.
    Stale,
}

/// A user came online (first device) or went offline (last device).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// Who.
    pub user: UserId,
    /// Whether any device is connected now.
    pub online: bool,
}

/// Changes of the watched users' presence; ends the watch when dropped.
///
/// Bounded: a watcher that falls behind misses changes and finds
/// [`PresenceWatch::overflowed`] true; it must look the users up again.
#[derive(Debug)]
pub struct PresenceWatch {
    pub(crate) changes: mpsc::Receiver<PresenceChange>,
    pub(crate) overflowed: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// Who is connected where, presence, and which gateways live.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Binds a device, newest first: whoever stands in its way by the policy is
    /// replaced. Atomic per user. `devices_max` counts live routes only. The
    /// route is found by others once its gateway has a lease. Repeating a bind
    /// is harmless: a connection is never said to replace itself.
    async fn bind(
        &self,
        bind: Bind,
        policy: DevicePolicy,
        devices_max: usize,
    ) -> Result<BindOutcome, BusError>;

    /// Removes the device's route if it is still this connection's, so that a
    /// late unbind can't erase a newer bind. True if it did.
    async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError>;

    /// Says again what is bound, after a failover or in a slow sweep: sets the
    /// routes that are absent or older, leaves those that a live connection
    /// with a later login holds. Goes by the device alone, not by the policy.
    /// Returns the binds whose place another connection has taken: to be kicked.
    async fn reassert(&self, binds: Vec<Bind>) -> Result<Vec<Bind>, BusError>;

    /// Live routes of each user, in the order asked for.
    async fn lookup(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError>;

    /// Watches these users' coming and going from now on.
    async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError>;

    /// Registers a gateway's life or renews it for `ttl`.
    ///
    /// # Errors
    /// [`BusError::LeaseLost`], once, when it had lapsed: its routes were void
    /// meanwhile. The lease is alive again by this very call; re-assert them.
    /// [`BusError::Taken`] when another process holds it: this gateway must end,
    /// and begin again with an incarnation of its own.
    async fn lease(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError>;

    /// Ends a gateway's life at once; its routes are void.
    async fn release(&self, gateway: Incarnation) -> Result<(), BusError>;

    /// Gateways whose lease is alive.
    async fn gateways(&self) -> Result<Vec<Incarnation>, BusError>;

    /// Says that `node` does this kind of work for the next `ttl` (zero: no
    /// longer), and returns all that do, ascending, so that they can share it
    /// fairly. A hint: what must not be done by two at once is guarded by
    /// leases and epochs. A directory of one process may leave it as it is.
    async fn announce(&self, work: &str, node: u64, ttl: Duration) -> Result<Vec<u64>, BusError> {
        let _ = (work, ttl);
        Ok(vec![node])
    }
}

// === impl PresenceWatch ===

impl PresenceWatch {
    /// The next change; `None` when the directory has shut down. Safe to cancel.
    pub async fn next(&mut self) -> Option<PresenceChange> {
        self.changes.recv().await
    }

    /// Whether changes were missed since the last call.
    pub fn overflowed(&self) -> bool {
        self.overflowed
            .swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}
