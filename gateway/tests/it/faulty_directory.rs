//! The gateway's way to the directory: it can be cut off, slow, or taken by another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use sluice_bus::{
    Bind, BindOutcome, BusError, DevicePolicy, Directory, MemoryDirectory, PresenceWatch, Route,
};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};

/// What the gateway sees of the directory.
pub(crate) struct FaultyDirectory {
    directory: Arc<MemoryDirectory>,
    pub(crate) away: AtomicBool,
    pub(crate) taken: AtomicBool,
    pub(crate) reassert_ms: AtomicU64,
    /// Calls that failed.
    pub(crate) failures: AtomicU32,
    /// Calls of `reassert` that have begun.
    pub(crate) reasserts: AtomicU32,
}

// === impl FaultyDirectory ===

impl FaultyDirectory {
    pub(crate) fn new(directory: Arc<MemoryDirectory>) -> Arc<Self> {
        Arc::new(Self {
            directory,
            away: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            reassert_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            reasserts: AtomicU32::new(0),
        })
    }

    fn reached(&self) -> Result<(), BusError> {
        if self.away.load(Ordering::Relaxed) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(BusError::Unavailable("away".into()));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Directory for FaultyDirectory {
    async fn bind(
        &self,
        bind: Bind,
        policy: DevicePolicy,
        devices_max: usize,
    ) -> Result<BindOutcome, BusError> {
        self.reached()?;
        self.directory.bind(bind, policy, devices_max).await
    }

    async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError> {
        self.reached()?;
        self.directory.unbind(user, device, connection).await
    }

    async fn reassert(&self, binds: Vec<Bind>) -> Result<Vec<Bind>, BusError> {
        self.reached()?;
        self.reasserts.fetch_add(1, Ordering::Relaxed);
        let slow = Duration::from_millis(self.reassert_ms.load(Ordering::Relaxed));
        tokio::time::sleep(slow).await;
        self.directory.reassert(binds).await
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError> {
        self.reached()?;
        self.directory.lookup(users).await
    }

    async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError> {
        self.reached()?;
        self.directory.watch(users).await
    }

    async fn lease(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError> {
        self.reached()?;
        if self.taken.load(Ordering::Relaxed) {
            return Err(BusError::Taken("gateway".into()));
        }
        self.directory.lease(gateway, ttl).await
    }

    async fn release(&self, gateway: Incarnation) -> Result<(), BusError> {
        self.reached()?;
        self.directory.release(gateway).await
    }

    async fn gateways(&self) -> Result<Vec<Incarnation>, BusError> {
        self.reached()?;
        self.directory.gateways().await
    }
}
