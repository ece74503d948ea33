//! Integers of variable length, as QUIC writes them (RFC 9000, section 16): the
//! top two bits of the first byte tell whether 1, 2, 4 or 8 bytes hold it.

/// The largest number that fits.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;

/// Appends `value`; one over [`VARINT_MAX`] is written as that.
pub(crate) fn put(out: &mut Vec<u8>, value: u64) {
    let value = value.min(VARINT_MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => {
            out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes());
        }
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Bytes that [`put`] appends.
pub(crate) const fn len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Takes a number off the front; none if the bytes end within it. Longer forms
/// than needed are taken as well.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let bytes = 1usize << (input.first()? >> 6);
    let (number, rest) = input.split_at_checked(bytes)?;
    let value = number
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    *input = rest;
    Some(value & ((1 << (8 * bytes - 2)) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let edges = [
            0,
            1,
            63,
            64,
            16_383,
            16_384,
            (1 << 30) - 1,
            1 << 30,
            VARINT_MAX,
        ];
        for value in edges {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), len(value));
            let mut input = out.as_slice();
            assert_eq!(take(&mut input), Some(value));
            assert!(input.is_empty());
            assert_eq!(take(&mut &out[..out.len() - 1]), None);
        }
    }
}
