//! What one address may do: connections at once, new ones a second, failed
//! logins a minute. One table for all loops, bounded.

use std::net::{IpAddr, Ipv6Addr};

use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::Mutex;

use crate::{
    config::Limits,
    rate::{Rate, RateMeter},
};

/// Per-address counters. A lock, since it is taken once a connection.
///
/// IPv6 counts by /64, the least that one customer is given. When the table is
/// full of addresses that are all in use, further ones pass uncounted: closed
/// doors for strangers would be the worse harm.
#[derive(Debug)]
pub(crate) struct AddressLimits {
    connections_max: u32,
    connects: Rate,
    failed_logins: Rate,
    addresses_max: usize,
    exempt: Vec<IpAddr>,
    table: Mutex<HashMap<IpAddr, Usage>>,
}

#[derive(Debug, Default)]
struct Usage {
    connections: u32,
    connects: RateMeter,
    failed_logins: RateMeter,
}

/// Which limit an address has met; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressLimit {
    Connections,
    ConnectRate,
}

// === impl AddressLimits ===

impl AddressLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            connections_max: match limits.connections_per_address {
                0 => u32::MAX,
                max => max,
            },
            connects: Rate::per_second(
                limits.connects_per_address_per_s,
                limits.connects_per_address_burst,
            ),
            failed_logins: Rate::per_minute(limits.failed_logins_per_address_per_min),
            addresses_max: limits.addresses_max.max(1),
            exempt: limits.address_limit_exempt.clone(),
            table: Mutex::default(),
        }
    }

    /// Counts a new connection in. Each that passed is to be counted out by
    /// [`AddressLimits::leave`].
    pub(crate) fn enter(&self, address: IpAddr, now_ms: u64) -> Result<(), AddressLimit> {
        self.with(address, now_ms, |usage| {
            if usage.connections >= self.connections_max {
                return Err(AddressLimit::Connections);
            }
            usage
                .connects
                .take(self.connects, now_ms)
                .map_err(|_| AddressLimit::ConnectRate)?;
            usage.connections += 1;
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Counts a connection out.
    pub(crate) fn leave(&self, address: IpAddr) {
        if let Some(usage) = self.table.lock().get_mut(&counted_as(address)) {
            usage.connections = usage.connections.saturating_sub(1);
        }
    }

    /// A connection goes on from another address, and is counted there. It stays
    /// although that may have more than it is allowed by now: a phone that comes into
    /// a crowded network must not lose its session by that. New ones from there wait
    /// until the count has fallen.
    pub(crate) fn move_over(&self, old: IpAddr, new: IpAddr, now_ms: u64) {
        if counted_as(old) != counted_as(new) {
            self.leave(old);
            self.with(new, now_ms, |usage| {
                usage.connections = usage.connections.saturating_add(1);
            });
        }
    }

    /// Counts a failed login.
    pub(crate) fn login_failed(&self, address: IpAddr, now_ms: u64) {
        self.with(address, now_ms, |usage| {
            // Past the limit there is nothing more to count.
            let _ = usage.failed_logins.take(self.failed_logins, now_ms);
        });
    }

    /// False while too many logins from there have failed.
    pub(crate) fn may_log_in(&self, address: IpAddr, now_ms: u64) -> bool {
        let table = self.table.lock();
        table
            .get(&counted_as(address))
            .is_none_or(|usage| !usage.failed_logins.is_exhausted(self.failed_logins, now_ms))
    }

    fn with<T>(
        &self,
        address: IpAddr,
        now_ms: u64,
        change: impl FnOnce(&mut Usage) -> T,
    ) -> Option<T> {
        if self.exempt.contains(&address.to_canonical()) {
            return None;
        }
        let address = counted_as(address);
        let mut table = self.table.lock();
        if table.len() >= self.addresses_max && !table.contains_key(&address) {
            table.retain(|_, usage| !usage.is_forgettable(now_ms));
            if table.len() >= self.addresses_max {
                return None;
            }
        }
        match table.entry(address) {
            Entry::Occupied(mut usage) => Some(change(usage.get_mut())),
            Entry::Vacant(vacant) => Some(change(vacant.insert(Usage::default()))),
        }
    }
}

// === impl Usage ===

impl Usage {
    fn is_forgettable(&self, now_ms: u64) -> bool {
        self.connections == 0
            && self.connects.is_rested(now_ms)
            && self.failed_logins.is_rested(now_ms)
    }
}

fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> AddressLimits {
        AddressLimits::new(&Limits {
            connections_per_address: 3,
            connects_per_address_per_s: 1,
            connects_per_address_burst: 4,
            failed_logins_per_address_per_min: 2,
            addresses_max: 2,
            ..Limits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_and_their_rate_are_bounded() {
        let limits = limits();
        let one = address("192.0.2.1");
        assert!((0..3).all(|_| limits.enter(one, 0).is_ok()));
        assert_eq!(limits.enter(one, 0), Err(AddressLimit::Connections));
        limits.leave(one);
        assert_eq!(limits.enter(one, 0), Ok(()));
        limits.leave(one);
        assert_eq!(limits.enter(one, 0), Err(AddressLimit::ConnectRate));
        assert_eq!(limits.enter(one, 1_000), Ok(()));
    }

    #[test]
    fn a_connection_that_moves_is_counted_where_it_is() {
        let limits = limits();
        let (home, street) = (address("192.0.2.1"), address("198.51.100.1"));
        assert!((0..3).all(|_| limits.enter(street, 0).is_ok()));
        assert!(limits.enter(home, 0).is_ok());
        limits.move_over(home, street, 0);
        assert!((0..3).all(|_| limits.enter(home, 0).is_ok()));
        // One above what is allowed: nobody new until two have left.
        limits.leave(street);
        assert_eq!(limits.enter(street, 0), Err(AddressLimit::Connections));
        limits.leave(street);
        assert_eq!(limits.enter(street, 0), Ok(()));
        // Within the same network of IPv6 nothing is counted anew.
        let (one, other) = (address("2001:db8::1"), address("2001:db8::2"));
        limits.move_over(one, other, 0);
        assert_eq!(limits.table.lock().len(), 2);
    }

    #[test]
    fn failed_logins_are_bounded_and_forgiven() {
        let limits = limits();
        let one = address("2001:db8::1");
        let same_customer = address("2001:db8::ffff");
        limits.login_failed(one, 0);
        assert!(limits.may_log_in(one, 0));
        limits.login_failed(one, 0);
        assert!(!limits.may_log_in(same_customer, 0));
        assert!(limits.may_log_in(one, 30_000));
        assert!(limits.may_log_in(address("2001:db8:1::1"), 0));
    }

    #[test]
    fn the_table_is_bounded_and_this_machine_exempt() {
        let limits = limits();
        assert!((0..100).all(|_| limits.enter(address("::ffff:127.0.0.1"), 0).is_ok()));
        assert_eq!(limits.table.lock().len(), 0);
        for last in 1..=100 {
            let one = IpAddr::from([192, 0, 2, last]);
            assert_eq!(limits.enter(one, 0), Ok(()));
            assert!(limits.table.lock().len() <= 2);
            limits.leave(one);
        }
    }
}
