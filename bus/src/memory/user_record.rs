//! Where one user's devices are, in a single allocation.
//!
//! A directory holds a record for every user online, so the record is packed:
//! the user's name, then for each device its login, connection, platform and
//! name. 30 bytes and the two names for a user with one device; changing it
//! means building it anew, which happens at logins only.

use sluice_protocol::{ConnectionId, DeviceId, UserId};

use crate::Route;

/// A route and the login that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) login: u64,
    pub(super) route: Route,
}

/// `[user length][user]`, then for each route
/// `[login 8][connection 16][platform 4][device length][device]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserRecord(Box<[u8]>);

// === impl UserRecord ===

impl UserRecord {
    pub(super) fn new(user: &UserId, routes: &[Bound]) -> Self {
        let mut bytes = Vec::with_capacity(packed_bytes(user, routes));
        push_name(&mut bytes, user.as_str());
        for bound in routes {
            bytes.extend_from_slice(&bound.login.to_be_bytes());
            bytes.extend_from_slice(&bound.route.connection.to_bytes());
            bytes.extend_from_slice(&bound.route.platform.to_be_bytes());
            push_name(&mut bytes, bound.route.device.as_str());
        }
        Self(bytes.into_boxed_slice())
    }

    /// The user's name, as bytes: what the table compares and hashes.
    pub(super) fn user(&self) -> &[u8] {
        match self.0.split_first() {
            Some((&length, rest)) => rest.get(..usize::from(length)).unwrap_or_default(),
            None => &[],
        }
    }

    /// The user's id again, for those who must be told.
    pub(super) fn user_id(&self) -> Option<UserId> {
        UserId::parse(std::str::from_utf8(self.user()).ok()?).ok()
    }

    /// All routes, in the order in which they were bound.
    pub(super) fn routes(&self) -> impl Iterator<Item = Bound> {
        let mut rest = self.0.get(1 + self.user().len()..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (bound, after) = split_route(rest)?;
            rest = after;
            Some(bound)
        })
    }
}

/// Names have at most 64 bytes, so one byte holds their length.
fn push_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
}

fn packed_bytes(user: &UserId, routes: &[Bound]) -> usize {
    let devices: usize = routes
        .iter()
        .map(|bound| 8 + 16 + 4 + 1 + bound.route.device.as_str().len())
        .sum();
    1 + user.as_str().len() + devices
}

fn split_route(bytes: &[u8]) -> Option<(Bound, &[u8])> {
    let (login, rest) = bytes.split_first_chunk::<8>()?;
    let (connection, rest) = rest.split_first_chunk::<16>()?;
    let (platform, rest) = rest.split_first_chunk::<4>()?;
    let (&length, rest) = rest.split_first()?;
    let (device, rest) = rest.split_at_checked(usize::from(length))?;
    let route = Route {
        device: DeviceId::parse(std::str::from_utf8(device).ok()?).ok()?,
        platform: i32::from_be_bytes(*platform),
        connection: ConnectionId::parse(connection).ok()?,
    };
    let login = u64::from_be_bytes(*login);
    Some((Bound { login, route }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::Incarnation;

    use super::*;

    prop_compose! {
        fn bound()(
            login: u64, platform: i32, device in "[^\\p{Cc}]{1,16}",
            incarnation: u32, event_loop: u16, slot: u32, generation: u32,
        ) -> Bound {
            let incarnation = Incarnation(incarnation);
            let connection = ConnectionId { incarnation, event_loop, slot, generation };
            let device = DeviceId::parse(&device).unwrap();
            Bound { login, route: Route { device, platform, connection } }
        }
    }

    proptest! {
        #[test]
        fn a_record_gives_back_what_was_packed(
            user in "[^\\p{Cc}]{1,16}",
            routes in prop::collection::vec(bound(), 0..9),
        ) {
            let user = UserId::parse(&user).unwrap();
            let record = UserRecord::new(&user, &routes);
            prop_assert_eq!(record.user_id(), Some(user));
            prop_assert_eq!(record.routes().collect::<Vec<_>>(), routes);
        }
    }
}
