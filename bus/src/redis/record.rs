//! How a route lies in a user's hash: device → record.
//!
//! A record is text of a fixed layout, so that scripts can compare and cut it
//! without knowing the ids: login (16 hex digits), connection (32), platform
//! (decimal). Numbers of 64 bits don't survive Lua's arithmetic, hex digits of
//! one length compare as text. About 50 bytes, within what Redis packs tightly.
//! A record that ends after the login is a device that has left.

use sluice_protocol::{ConnectionId, DeviceId, Incarnation};

use crate::Route;

const LOGIN_DIGITS: usize = 16;
const CONNECTION_DIGITS: usize = 32;
const GATEWAY_DIGITS: usize = 8;

/// The record of a route.
pub(super) fn encode(login: u64, route: &Route) -> String {
    let connection = encode_connection(route.connection);
    format!("{login:016x}{connection}{}", route.platform)
}

/// The connection as it stands in a record.
pub(super) fn encode_connection(connection: ConnectionId) -> String {
    format!("{:032x}", u128::from_be_bytes(connection.to_bytes()))
}

/// The gateway as it stands in a record: the beginning of a connection.
pub(super) fn encode_gateway(gateway: Incarnation) -> String {
    format!("{:08x}", gateway.0)
}

/// The inverse of [`encode_gateway`].
pub(super) fn decode_gateway(digits: &str) -> Option<Incarnation> {
    u32::from_str_radix(digits, 16).ok().map(Incarnation)
}

/// Gateways written one after the other.
pub(super) fn decode_gateways(digits: &[u8]) -> Vec<Incarnation> {
    let each = digits.chunks(GATEWAY_DIGITS);
    each.filter_map(|digits| decode_gateway(std::str::from_utf8(digits).ok()?))
        .collect()
}

/// The route of a device; `None` if it has left, and for what nobody wrote.
pub(super) fn decode(device: &str, record: &str) -> Option<Route> {
    let rest = record.get(LOGIN_DIGITS..)?;
    let (connection, platform) = rest.split_at_checked(CONNECTION_DIGITS)?;
    let connection = u128::from_str_radix(connection, 16).ok()?;
    Some(Route {
        device: DeviceId::parse(device).ok()?,
        platform: platform.parse().ok()?,
        connection: ConnectionId::parse(&connection.to_be_bytes()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_gives_back_its_route(
            login: u64, platform: i32, incarnation: u32, event_loop: u16, slot: u32, generation: u32,
        ) {
            let incarnation = Incarnation(incarnation);
            let connection = ConnectionId { incarnation, event_loop, slot, generation };
            let device = DeviceId::parse("phone").unwrap();
            let route = Route { device, platform, connection };
            let record = encode(login, &route);
            prop_assert!(record[LOGIN_DIGITS..].starts_with(&encode_gateway(incarnation)));
            prop_assert_eq!(decode("phone", &record), Some(route));
            prop_assert_eq!(decode("phone", &record[..LOGIN_DIGITS]), None);
        }

        #[test]
        fn logins_compare_as_text(a: u64, b: u64) {
            prop_assert_eq!(a.cmp(&b), format!("{a:016x}").cmp(&format!("{b:016x}")));
        }

        #[test]
        fn foreign_records_are_no_routes(device in ".{0,9}", record in ".{0,60}") {
            decode(&device, &record);
        }
    }
}
