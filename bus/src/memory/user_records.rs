//! Where the users of one shard are: a packed record for each, end to end in one
//! buffer.
//!
//! A directory holds a record for every user online. A block of the allocator's each
//! would cost its bookkeeping and the holes that are left around it among what logins
//! leave behind; here it is the bytes themselves, and four in the table.
//!
//! A change writes the record anew at the end, which happens at logins and ends only.
//! When a third of the buffer is of no more use it is written together, which costs
//! a shard what the growth of its table does.

use hashbrown::{HashTable, hash_table::Entry};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};

use crate::Route;

/// A route and the login that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) login: u64,
    pub(super) route: Route,
}

/// See the module. Hashes are those of names, by the directory's key.
#[derive(Debug, Default)]
pub(super) struct UserRecords {
    /// Where each user's record begins.
    places: HashTable<u32>,
    bytes: Vec<u8>,
    /// Bytes of records that are no more.
    stale_bytes: usize,
}

/// `[bytes of what follows][user length][user]`, then for each route `[login]
/// [incarnation][event loop][slot][generation][platform][device length][device]`.
/// Lengths of names are a byte, numbers LEB128.
#[derive(Clone, Copy)]
struct Record<'a>(&'a [u8]);

/// Below so much, writing together is not worth it.
const STALE_MIN_BYTES: usize = 4096;

// === impl UserRecords ===

impl UserRecords {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The user's routes, in the order in which they were bound.
    pub(super) fn routes(&self, hash: u64, user: &str) -> impl Iterator<Item = Bound> {
        let is_it = |place: &u32| record_at(&self.bytes, *place).user() == user.as_bytes();
        let place = self.places.find(hash, is_it);
        let record = place.map(|place| record_at(&self.bytes, *place));
        record.into_iter().flat_map(Record::routes)
    }

    /// Sets the user's routes; without any, nothing is remembered of the user.
    pub(super) fn set(
        &mut self,
        hash: u64,
        user: &str,
        routes: &[Bound],
        hash_of: impl Fn(&[u8]) -> u64,
    ) {
        let Self {
            places,
            bytes,
            stale_bytes,
        } = self;
        let is_it = |place: &u32| record_at(bytes, *place).user() == user.as_bytes();
        let entry = places.entry(hash, is_it, |place| {
            hash_of(record_at(bytes, *place).user())
        });
        if let Entry::Occupied(place) = &entry {
            *stale_bytes += record_at(bytes, *place.get()).bytes();
        }
        if routes.is_empty() {
            if let Entry::Occupied(place) = entry {
                place.remove();
            }
        } else if let Ok(place) = u32::try_from(bytes.len()) {
            entry.insert(place);
            append(bytes, user, routes);
        } else {
            // More than 60 GB in all shards: what can't be named is not found.
            tracing::error!("the directory is full");
        }
        if *stale_bytes > STALE_MIN_BYTES.max(self.bytes.len() / 3) {
            self.write_together();
        }
    }

    /// All users with a route of which this holds, and their other routes.
    pub(super) fn parted_by(&self, is_meant: impl Fn(&Bound) -> bool) -> Vec<(UserId, Vec<Bound>)> {
        let records = self
            .places
            .iter()
            .map(|place| record_at(&self.bytes, *place));
        let meant = records.filter(|record| record.routes().any(|bound| is_meant(&bound)));
        let parted = meant.filter_map(|record| {
            let others = record.routes().filter(|bound| !is_meant(bound)).collect();
            Some((record.user_id()?, others))
        });
        parted.collect()
    }

    fn write_together(&mut self) {
        let live_bytes = self.bytes.len().saturating_sub(self.stale_bytes);
        let mut bytes = Vec::with_capacity(live_bytes + live_bytes / 4);
        for place in &mut self.places {
            let record = record_at(&self.bytes, *place);
            // Below what it was, which was a place too.
            *place = bytes.len() as u32;
            append_record(&mut bytes, record.0);
        }
        self.bytes = bytes;
        self.stale_bytes = 0;
    }
}

// === impl Record ===

/// What begins there.
fn record_at(bytes: &[u8], place: u32) -> Record<'_> {
    let mut rest = bytes.get(place as usize..).unwrap_or_default();
    let length = take_narrow(&mut rest).unwrap_or(0);
    Record(rest.get(..length).unwrap_or_default())
}

impl<'a> Record<'a> {
    /// The user's name, as bytes: what the table compares and hashes.
    fn user(self) -> &'a [u8] {
        match self.0.split_first() {
            Some((&length, rest)) => rest.get(..usize::from(length)).unwrap_or_default(),
            None => &[],
        }
    }

    /// The user's id again, for those who must be told.
    fn user_id(self) -> Option<UserId> {
        UserId::parse(std::str::from_utf8(self.user()).ok()?).ok()
    }

    fn routes(self) -> impl Iterator<Item = Bound> + use<'a> {
        let mut rest = self.0.get(1 + self.user().len()..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (bound, after) = split_route(rest)?;
            rest = after;
            Some(bound)
        })
    }

    /// With its length.
    fn bytes(self) -> usize {
        let length = self.0.len();
        // Seven bits a byte.
        let bits = usize::BITS - length.leading_zeros();
        length + bits.div_ceil(7).max(1) as usize
    }
}

/// Of records with one device, the usual ones.
const WORKING_BYTES: usize = 192;

fn append(bytes: &mut Vec<u8>, user: &str, routes: &[Bound]) {
    let mut record = Vec::with_capacity(WORKING_BYTES);
    push_name(&mut record, user);
    for Bound { login, route } in routes {
        let ConnectionId {
            incarnation,
            event_loop,
            slot,
            generation,
        } = route.connection;
        push_number(&mut record, *login);
        push_number(&mut record, incarnation.0.into());
        push_number(&mut record, event_loop.into());
        push_number(&mut record, slot.into());
        push_number(&mut record, generation.into());
        // Any bits are a platform: clients choose it.
        push_number(&mut record, route.platform.cast_unsigned().into());
        push_name(&mut record, route.device.as_str());
    }
    append_record(bytes, &record);
}

fn append_record(bytes: &mut Vec<u8>, record: &[u8]) {
    let needed = record.len() + size_of::<u64>();
    if bytes.capacity() - bytes.len() < needed {
        // Doubling would hold twice what is needed at times.
        bytes.reserve_exact(needed.max(bytes.len() / 4));
    }
    push_number(bytes, record.len() as u64);
    bytes.extend_from_slice(record);
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
    use std::{
        collections::BTreeMap,
        hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    };

    use proptest::prelude::*;

    use super::*;

    fn hash(user: &[u8]) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(user)
    }

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
        fn holds_what_a_map_would_hold(
            steps in prop::collection::vec(
                ("[a-h]{1,2}", prop::collection::vec(bound(), 0..9)),
                1..200,
            ),
            parting: u32,
        ) {
            let mut records = UserRecords::default();
            let mut model = BTreeMap::new();
            for (user, routes) in steps {
                records.set(hash(user.as_bytes()), &user, &routes, hash);
                match routes.is_empty() {
                    true => model.remove(&user),
                    false => model.insert(user, routes),
                };
                prop_assert_eq!(records.len(), model.len());
                prop_assert!(records.stale_bytes <= STALE_MIN_BYTES.max(records.bytes.len() / 3));
            }
            for (user, routes) in &model {
                let held: Vec<_> = records.routes(hash(user.as_bytes()), user).collect();
                prop_assert_eq!(&held, routes);
            }
            prop_assert_eq!(records.routes(hash(b"nobody"), "nobody").count(), 0);
            let is_meant = |bound: &Bound| bound.login > parting.into();
            let mut parted = records.parted_by(is_meant);
            parted.sort_by_key(|(user, _)| user.to_string());
            model.retain(|_, routes| routes.iter().any(is_meant));
            let expected: Vec<_> = model.into_iter().map(|(user, mut routes)| {
                routes.retain(|bound| !is_meant(bound));
                (UserId::parse(&user).unwrap(), routes)
            }).collect();
            prop_assert_eq!(parted, expected);
        }
    }

    #[test]
    fn a_user_with_one_device_takes_few_bytes() {
        let mut records = UserRecords::default();
        let users = 10_000;
        for number in 0..users {
            let connection = ConnectionId {
                incarnation: Incarnation(40),
                event_loop: 3,
                slot: 100_000 + number,
                generation: 7,
            };
            let route = Route {
                device: DeviceId::parse("phone").unwrap(),
                platform: 1,
                connection,
            };
            let user = format!("a-user-of-25-bytes-i{number:05}");
            let bound = Bound { login: 90, route };
            // Twice: what the first one wrote is of no more use then.
            for routes in [[bound.clone()], [bound]] {
                records.set(hash(user.as_bytes()), &user, &routes, hash);
            }
        }
        let each = 1 + 1 + 25 + 8 + 1 + 5;
        let live_bytes = records.bytes.len() - records.stale_bytes;
        assert_eq!(live_bytes, each * users as usize);
        let held = records.bytes.capacity() + records.places.allocation_size();
        assert!(held < 85 * users as usize, "{}", held / users as usize);
    }
}
