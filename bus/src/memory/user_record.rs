//! Where one user's devices are, in a single allocation.
//!
//! A directory holds a record for every user online, so the record is packed:
//! the user's name, then for each device its login, connection, platform and
//! name, numbers in as few bytes as they need. Some 10 bytes and the two names for a
//! user with one device; changing it means building it anew, which happens at logins
//! only.

use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};

use crate::Route;

/// A route and the login that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) login: u64,
    pub(super) route: Route,
}

/// `[user length][user]`, then for each route `[login][incarnation][event loop][slot]
/// [generation][platform][device length][device]`. Lengths are a byte, numbers LEB128.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserRecord(Box<[u8]>);

/// Room for names of the usual lengths, to begin with.
const WORKING_BYTES: usize = 128;

// === impl UserRecord ===

impl UserRecord {
    pub(super) fn new(user: &UserId, routes: &[Bound]) -> Self {
        let mut bytes = Vec::with_capacity(WORKING_BYTES);
        push_name(&mut bytes, user.as_str());
        for Bound { login, route } in routes {
            let ConnectionId {
                incarnation,
                event_loop,
                slot,
                generation,
            } = route.connection;
            push_number(&mut bytes, *login);
            push_number(&mut bytes, incarnation.0.into());
            push_number(&mut bytes, event_loop.into());
            push_number(&mut bytes, slot.into());
            push_number(&mut bytes, generation.into());
            // Any bits are a platform: clients choose it.
            push_number(&mut bytes, route.platform.cast_unsigned().into());
            push_name(&mut bytes, route.device.as_str());
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

/// Seven bits a byte, the lowest first (LEB128).
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The upper bits are what the next turns are for.
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes what [`push_number`] pushed off the front.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_narrow<T: TryFrom<u64>>(bytes: &mut &[u8]) -> Option<T> {
    T::try_from(take_number(bytes)?).ok()
}

fn split_route(mut bytes: &[u8]) -> Option<(Bound, &[u8])> {
    let login = take_number(&mut bytes)?;
    let connection = ConnectionId {
        incarnation: Incarnation(take_narrow(&mut bytes)?),
        event_loop: take_narrow(&mut bytes)?,
        slot: take_narrow(&mut bytes)?,
        generation: take_narrow(&mut bytes)?,
    };
    let platform = take_narrow::<u32>(&mut bytes)?.cast_signed();
    let (&length, rest) = bytes.split_first()?;
    let (device, rest) = rest.split_at_checked(usize::from(length))?;
    let route = Route {
        device: DeviceId::parse(std::str::from_utf8(device).ok()?).ok()?,
        platform,
        connection,
    };
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

    #[test]
    fn a_user_with_one_device_takes_few_bytes() {
        let connection = ConnectionId {
            incarnation: Incarnation(40),
            event_loop: 3,
            slot: 100_000,
            generation: 7,
        };
        let route = Route {
            device: DeviceId::parse("phone").unwrap(),
            platform: 1,
            connection,
        };
        let user = UserId::parse("a-user-of-25-bytes-in-all").unwrap();
        let record = UserRecord::new(&user, &[Bound { login: 90, route }]);
        assert_eq!(record.0.len(), 1 + 25 + 8 + 1 + 5);
    }
}
