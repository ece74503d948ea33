//! Protobuf without messages: a walk over the fields of an encoded one, and the
//! writing of a few. Nothing is copied and nothing allocated, which is what a
//! generator that shares its machine with the server needs.

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A varint or a fixed number.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of one encoded message. Ends early where the bytes are malformed: what
/// was looked for is then missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The last number of this field; 0 when there is none, as in proto3.
    pub(crate) fn number(self, field: u32) -> u64 {
        let numbers = self.filter_map(|(found, value)| match value {
            Value::Number(number) if found == field => Some(number),
            _ => None,
        });
        numbers.last().unwrap_or(0)
    }

    /// The last bytes of this field; none when there are none.
    pub(crate) fn bytes(self, field: u32) -> &'a [u8] {
        let bytes = self.filter_map(|(found, value)| match value {
            Value::Bytes(bytes) if found == field => Some(bytes),
            _ => None,
        });
        bytes.last().unwrap_or_default()
    }

    /// The message in this field.
    pub(crate) fn message(self, field: u32) -> Self {
        Self(self.bytes(field))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED_64 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            FIXED_32 => {
                let bytes = self.take(4)?.try_into().ok()?;
                Value::Number(u64::from(u32::from_le_bytes(bytes)))
            }
            LENGTH_DELIMITED => {
                let count = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(count)?)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

/// Appends a varint.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a numeric field; nothing for 0.
pub(crate) fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    if value > 0 {
        put_varint(u64::from(field << 3 | VARINT), out);
        put_varint(value, out);
    }
}

/// Appends the key and the length of a field whose bytes follow.
pub(crate) fn put_head(field: u32, bytes: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(field << 3 | LENGTH_DELIMITED), out);
    put_varint(bytes as u64, out);
}

/// Appends a field of bytes.
pub(crate) fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(field, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// What [`put_bytes`] appends.
pub(crate) fn bytes_len(field: u32, bytes: usize) -> usize {
    varint_len(u64::from(field << 3)) + varint_len(bytes as u64) + bytes
}

/// What [`put_number`] appends.
pub(crate) fn number_len(field: u32, value: u64) -> usize {
    match value {
        0 => 0,
        _ => varint_len(u64::from(field << 3)) + varint_len(value),
    }
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_number(1, 300, &mut out);
        put_number(2, 0, &mut out);
        let before = out.len();
        put_bytes(16, b"inner", &mut out);
        assert_eq!(out.len() - before, bytes_len(16, 5));
        assert_eq!(Fields(&out).number(1), 300);
        assert_eq!(Fields(&out).number(2), 0);
        assert_eq!(Fields(&out).bytes(16), b"inner");
        assert_eq!(Fields(&out).count(), 2);
        for end in 0..out.len() {
            // Nothing that is cut off panics.
            let _ = Fields(&out[..end]).count();
        }
        assert_eq!((varint_len(0), varint_len(127), varint_len(128)), (1, 1, 2));
        assert_eq!(varint_len(u64::MAX), 10);
    }
}
