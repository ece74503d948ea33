//! The routes of users: one hash a user, device → [`record`](super::record).
//!
//! Every change is one script on one key, so it is atomic per user and never
//! crosses slots; names may contain braces, since a user's key is always alone
//! in its script. Each change is published with the gateways that are left, in
//! the order in which it was made, for [`presence`](super::presence).
//!
//! A hash expires a day after it was last written. Gateways say all binds again
//! each minute, and that renews it, at the cost of one write a user in half a
//! day; so what dead gateways and users who never return leave behind goes by
//! itself. What a device that left leaves for that long is its login, so that a
//! late repeat of an old bind can't win.

use std::sync::{Arc, LazyLock};

use futures_util::future::try_join_all;
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};

use super::{
    link::{Lua, RedisLink},
    record::{self, decode_gateway, encode_gateway},
};
use crate::{Bind, BusError, DevicePolicy, Route};

/// The hashes of users.
pub(super) struct Routes {
    link: Arc<RedisLink>,
}

/// What the script made of a bind.
pub(super) enum Placed {
    Bound {
        replaced: Vec<Route>,
    },
    Stale,
    /// As many devices as allowed; these are their gateways.
    Full(Vec<Incarnation>),
}

/// What the script made of saying a bind again.
pub(super) enum PutBack {
    Stands,
    /// The device has left since, or has been replaced.
    Left,
    /// This gateway has the device by a later login.
    Held(Incarnation),
}

/// How long a user's hash is kept that nobody writes to.
const KEEP_S: u64 = 24 * 3600;
/// Users of one lookup that are asked for at once.
const LOOKUPS_AT_ONCE: usize = 256;

static BIND: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/bind.lua")));
static UNBIND: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/unbind.lua")));
static REASSERT: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/reassert.lua")));

// === impl Routes ===

impl Routes {
    pub(super) fn new(link: Arc<RedisLink>) -> Self {
        Self { link }
    }

    /// Binds unless a later login stands or there are too many routes; those of
    /// `void` gateways don't count, and go.
    pub(super) async fn bind(
        &self,
        bind: &Bind,
        policy: DevicePolicy,
        devices_max: usize,
        void: &[Incarnation],
    ) -> Result<Placed, BusError> {
        let record = record::encode(bind.login, &bind.route);
        let policy = match policy {
            DevicePolicy::EachDevice => "device",
            DevicePolicy::EachPlatform => "platform",
            DevicePolicy::Single => "single",
        };
        let channel = self.channel(&bind.user);
        let answer: Vec<String> = self
            .link
            .script(&BIND, &[&self.key(&bind.user)], |call| {
                call.arg(bind.route.device.as_str()).arg(&record);
                call.arg(policy).arg(devices_max);
                call.arg(KEEP_S).arg(&channel);
                for gateway in void {
                    call.arg(encode_gateway(*gateway));
                }
            })
            .await?;
        let (outcome, rest) = answer
            .split_first()
            .ok_or_else(|| unreadable("an empty answer"))?;
        match outcome.as_str() {
            "bound" => {
                let replaced = rest.chunks_exact(2);
                let replaced = replaced.filter_map(|pair| record::decode(&pair[0], &pair[1]));
                let replaced = replaced.collect();
                Ok(Placed::Bound { replaced })
            }
            "stale" => Ok(Placed::Stale),
            "full" => {
                let gateways = rest.iter().filter_map(|digits| decode_gateway(digits));
                Ok(Placed::Full(gateways.collect()))
            }
            other => Err(unreadable(other)),
        }
    }

    /// Removes the device's route if it is this connection's. True if it was.
    pub(super) async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError> {
        let connection = record::encode_connection(connection);
        let channel = self.channel(user);
        self.link
            .script(&UNBIND, &[&self.key(user)], |call| {
                call.arg(device.as_str()).arg(&connection);
                call.arg(KEEP_S).arg(&channel);
            })
            .await
    }

    /// Sets the route again unless the device has a later one; that of the
    /// `void` gateway doesn't count.
    pub(super) async fn put_back(
        &self,
        bind: &Bind,
        void: Option<Incarnation>,
    ) -> Result<PutBack, BusError> {
        let record = record::encode(bind.login, &bind.route);
        let channel = self.channel(&bind.user);
        let void = void.map(encode_gateway).unwrap_or_default();
        let answer: String = self
            .link
            .script(&REASSERT, &[&self.key(&bind.user)], |call| {
                call.arg(bind.route.device.as_str()).arg(&record);
                call.arg(KEEP_S).arg(&channel).arg(&void);
            })
            .await?;
        match answer.as_str() {
            "" => Ok(PutBack::Stands),
            "left" => Ok(PutBack::Left),
            gateway => decode_gateway(gateway)
                .map(PutBack::Held)
                .ok_or_else(|| unreadable(gateway)),
        }
    }

    /// All routes of each user, live or void, in the order asked for.
    pub(super) async fn of(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError> {
        let mut found = Vec::with_capacity(users.len());
        for users in users.chunks(LOOKUPS_AT_ONCE) {
            let lookups = users.iter().map(|user| self.of_one(user));
            found.extend(try_join_all(lookups).await?);
        }
        Ok(found)
    }

    async fn of_one(&self, user: &UserId) -> Result<Vec<Route>, BusError> {
        let key = self.key(user);
        let all = redis::cmd("HGETALL").arg(&key).to_owned();
        let records: Vec<(String, String)> = self.link.run(&key, &all).await?;
        let routes = records.iter();
        let routes = routes.filter_map(|(device, record)| record::decode(device, record));
        Ok(routes.collect())
    }

    fn key(&self, user: &UserId) -> String {
        self.link.key(format_args!("d:{user}"))
    }

    /// Where changes of the user are published.
    pub(super) fn channel(&self, user: &UserId) -> String {
        self.link.key(format_args!("presence:{user}"))
    }

    /// The inverse of [`Routes::channel`].
    pub(super) fn user_of(&self, channel: &str) -> Option<UserId> {
        let user = channel.strip_prefix(&self.link.key("presence:"))?;
        UserId::parse(user).ok()
    }
}

fn unreadable(answer: &str) -> BusError {
    BusError::Unknown(format!("the script answered {answer:?}"))
}
