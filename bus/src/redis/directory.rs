//! [`RedisDirectory`]: the port [`Directory`] on Redis.
//!
//! [`routes`](super::routes) hold who is connected where, one hash a user;
//! [`leases`](super::leases) which gateways live; [`presence`](super::presence)
//! tells of changes. A route counts while its gateway lives, which is judged
//! here, outside the scripts: what a script would have to know about the dead
//! it is told in a second try, only when it matters.
//!
//! What a failover or a flush forgets comes back when gateways say their binds
//! again; they learn of it by their lease. Every call ends by the timeouts of
//! [`RedisConfig`]; after an error of a bind or unbind it may have happened, and
//! a repeat is harmless.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};
use tokio::time::Instant;

use super::{
    config::RedisConfig,
    leases::Leases,
    link::RedisLink,
    presence::Presence,
    routes::{Placed, PutBack, Routes},
};
use crate::{Bind, BindOutcome, BusError, DevicePolicy, Directory, PresenceWatch, Route};

/// Routes, presence and gateway leases on Redis.
pub struct RedisDirectory {
    routes: Arc<Routes>,
    leases: Arc<Leases>,
    presence: Presence,
}

/// Binds that are said again at once.
const REASSERTS_AT_ONCE: usize = 128;

// === impl RedisDirectory ===

impl RedisDirectory {
    /// A directory on this Redis. Connects when it is first used; to be called
    /// once a process, since leases belong to the one that took them.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when the configuration makes no sense.
    pub fn open(config: &RedisConfig) -> Result<Arc<Self>, BusError> {
        let link = RedisLink::open(config)?;
        let routes = Arc::new(Routes::new(Arc::clone(&link)));
        let leases = Arc::new(Leases::new(Arc::clone(&link)));
        let presence = Presence::new(link, Arc::clone(&routes), Arc::clone(&leases));
        Ok(Arc::new(Self {
            routes,
            leases,
            presence,
        }))
    }

    /// True if the bind stands.
    async fn put_back(&self, bind: &Bind) -> Result<bool, BusError> {
        let mut void = None;
        loop {
            let holder = match self.routes.put_back(bind, void).await? {
                PutBack::Stands => return Ok(true),
                PutBack::Left => return Ok(false),
                PutBack::Held(holder) => holder,
            };
            let lives = self.leases.judge([holder].into_iter()).await?;
            // A holder that is dead is passed over, each of them once.
            if void == Some(holder) || lives.is_alive(holder, Instant::now()) {
                return Ok(false);
            }
            void = Some(holder);
        }
    }
}

impl std::fmt::Debug for RedisDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisDirectory").finish_non_exhaustive()
    }
}

#[async_trait]
impl Directory for RedisDirectory {
    async fn bind(
        &self,
        bind: Bind,
        policy: DevicePolicy,
        devices_max: usize,
    ) -> Result<BindOutcome, BusError> {
        let mut void = Vec::new();
        loop {
            let placed = self.routes.bind(&bind, policy, devices_max, &void).await?;
            let holders = match placed {
                Placed::Bound { replaced } => return Ok(BindOutcome::Bound { replaced }),
                Placed::Stale => return Ok(BindOutcome::Stale),
                Placed::Full(holders) => holders,
            };
            // Their routes will be removed, so this needs a look that is later.
            let lives = self.leases.refresh(Instant::now(), Duration::ZERO).await?;
            let now = Instant::now();
            let known = void.len();
            for holder in holders {
                if !lives.is_alive(holder, now) && !void.contains(&holder) {
                    void.push(holder);
                }
            }
            if void.len() == known {
                return Ok(BindOutcome::TooManyDevices);
            }
        }
    }

    async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError> {
        self.routes.unbind(user, device, connection).await
    }

    async fn reassert(&self, binds: Vec<Bind>) -> Result<Vec<Bind>, BusError> {
        let mut displaced = Vec::new();
        for binds in binds.chunks(REASSERTS_AT_ONCE) {
            let stand = try_join_all(binds.iter().map(|bind| self.put_back(bind))).await?;
            let fallen = binds.iter().zip(stand).filter(|(_, stands)| !stands);
            displaced.extend(fallen.map(|(bind, _)| bind.clone()));
        }
        Ok(displaced)
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError> {
        let mut found = self.routes.of(users).await?;
        let gateways = found.iter().flatten();
        let gateways = gateways.map(|route| route.connection.incarnation);
        let lives = self.leases.judge(gateways).await?;
        let now = Instant::now();
        for routes in &mut found {
            routes.retain(|route| lives.is_alive(route.connection.incarnation, now));
        }
        Ok(found)
    }

    async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError> {
        self.presence.watch(users).await
    }

    async fn lease(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError> {
        self.leases.renew(gateway, ttl).await
    }

    async fn release(&self, gateway: Incarnation) -> Result<(), BusError> {
        self.leases.release(gateway).await
    }

    async fn gateways(&self) -> Result<Vec<Incarnation>, BusError> {
        self.leases.alive().await
    }
    async fn announce(&self, work: &str, node: u64, ttl: Duration) -> Result<Vec<u64>, BusError> {
        self.leases.announce(work, node, ttl).await
    }
}
