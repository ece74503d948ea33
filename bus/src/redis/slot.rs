//! Slots of a cluster: which of the 16,384 a key has, and whose they are.

use redis::Value;

const SLOTS: u16 = 16_384;

/// The key's slot: CRC16 (XMODEM) of its `{tag}`, or of all of it.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    let mut crc = 0u16;
    for byte in tag.unwrap_or(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

/// What `CLUSTER SLOTS` says, as last slot and master of each range. A node
/// that doesn't know its own address leaves it empty: it is the one we asked.
pub(super) fn slot_ranges(answer: Value, asked_host: &str) -> Vec<(u16, String)> {
    let mut ranges = Vec::new();
    let Value::Array(rows) = answer else {
        return ranges;
    };
    for row in rows {
        let Value::Array(row) = row else { continue };
        let (Some(Value::Int(last)), Some(Value::Array(master))) = (row.get(1), row.get(2)) else {
            continue;
        };
        let host = match master.first() {
            Some(Value::BulkString(host)) if !host.is_empty() => {
                String::from_utf8_lossy(host).into_owned()
            }
            _ => asked_host.to_owned(),
        };
        if let (Some(Value::Int(port)), Ok(last)) = (master.get(1), u16::try_from(*last)) {
            ranges.push((last, format!("{host}:{port}")));
        }
    }
    ranges.sort_unstable();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("a:{foo}:b"), slot("foo"));
        assert_eq!(slot("a{}b"), slot("a{}b"));
        assert_ne!(slot("a{}b"), slot("c{}b"));
    }
}
