//! State of a connection that sleeps, as bytes: numbers in as few as they need,
//! keys and names as they are.
//!
//! What is packed is unpacked by the same process; it is no format that anybody
//! else reads, and has no version. Each noun packs itself, in its own file.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Appends a number: seven bits a byte, the lowest first (LEB128).
pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The upper bits are what the next turns are for.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the difference of two numbers that are near each other.
pub fn put_difference(out: &mut Vec<u8>, value: u64, from: u64) {
    // As two's complement, folded so that small ones of both signs are short (zigzag).
    let difference = value.wrapping_sub(from) as i64;
    put_number(out, (difference << 1 ^ difference >> 63) as u64);
}

/// Appends bytes of a length that is told.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an address with its port.
pub fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.ip().octets());
            put_number(out, address.flowinfo().into());
            put_number(out, address.scope_id().into());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Takes a number off the front; none if the bytes end within it, or it has more
/// than 64 bits.
pub fn take_number(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(input)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes a number that must fit a narrower type.
pub fn take_narrow<T: TryFrom<u64>>(input: &mut &[u8]) -> Option<T> {
    T::try_from(take_number(input)?).ok()
}

/// Takes what [`put_difference`] appended, with the same `from`.
pub fn take_difference(input: &mut &[u8], from: u64) -> Option<u64> {
    let folded = take_number(input)?;
    let difference = (folded >> 1) ^ (folded & 1).wrapping_neg();
    Some(from.wrapping_add(difference))
}

/// Takes what [`put_bytes`] appended.
pub fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_narrow(input)?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

/// Takes as many bytes as the array has.
pub fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*array)
}

/// Takes what [`put_address`] appended.
pub fn take_address(input: &mut &[u8]) -> Option<SocketAddr> {
    if take_byte(input)? == 4 {
        let ip = Ipv4Addr::from(take_array::<4>(input)?);
        let port = u16::from_be_bytes(take_array(input)?);
        return Some(SocketAddr::from((ip, port)));
    }
    let ip = Ipv6Addr::from(take_array::<16>(input)?);
    let (flow, scope) = (take_narrow(input)?, take_narrow(input)?);
    let port = u16::from_be_bytes(take_array(input)?);
    Some(SocketAddrV6::new(ip, port, flow, scope).into())
}

/// Takes one byte.
pub fn take_byte(input: &mut &[u8]) -> Option<u8> {
    take_array(input).map(|[byte]| byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_comes_back(
            shift in 0..64_u32, bits: u64, from: u64, bytes in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let number = bits >> shift;
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_difference(&mut out, number, from);
            put_difference(&mut out, from.wrapping_add(number), from);
            put_bytes(&mut out, &bytes);
            out.extend_from_slice(&[7; 5]);
            for end in 0..out.len() {
                let mut input = &out[..end];
                let taken = take_number(&mut input).is_some()
                    && take_difference(&mut input, from).is_some()
                    && take_difference(&mut input, from).is_some()
                    && take_bytes(&mut input).is_some()
                    && take_array::<5>(&mut input).is_some();
                prop_assert!(!taken);
            }
            let mut input = out.as_slice();
            prop_assert_eq!(take_number(&mut input), Some(number));
            prop_assert_eq!(take_difference(&mut input, from), Some(number));
            prop_assert_eq!(take_difference(&mut input, from), Some(from.wrapping_add(number)));
            prop_assert_eq!(take_bytes(&mut input), Some(bytes.as_slice()));
            prop_assert_eq!(take_array(&mut input), Some([7; 5]));
            prop_assert_eq!(take_byte(&mut input), None);
        }

        #[test]
        fn anything_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut input = bytes.as_slice();
            let _ = take_number(&mut input);
            let _ = take_narrow::<u8>(&mut input);
            let _ = take_bytes(&mut input);
        }
    }

    #[test]
    fn addresses_come_back() {
        let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 65_535, 7, 3);
        for address in [SocketAddr::from(([192, 0, 2, 1], 80)), v6.into()] {
            let mut out = Vec::new();
            put_address(&mut out, address);
            let mut input = out.as_slice();
            assert_eq!(take_address(&mut input), Some(address));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn small_numbers_are_short() {
        let bytes = |value, from| {
            let (mut number, mut difference) = (Vec::new(), Vec::new());
            put_number(&mut number, value);
            put_difference(&mut difference, value, from);
            (number.len(), difference.len())
        };
        assert_eq!(bytes(127, 128), (1, 1));
        assert_eq!(bytes(u64::MAX, 0), (10, 1));
        assert_eq!(bytes(1 << 34, (1 << 34) + 60), (5, 1));
    }
}
