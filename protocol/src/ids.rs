//! Ids as newtypes, so that a seq is never taken for a user seq.

use std::{fmt, sync::Arc};

use crate::limits::NAME_MAX_BYTES;

/// An id from outside that does not have the form it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Shorter or longer than allowed.
    #[error("{what} must have 1 to {max_bytes} bytes, not {bytes}")]
    Length {
        /// Which id.
        what: &'static str,
        /// What it had.
        bytes: usize,
        /// What it may have.
        max_bytes: usize,
    },
    /// A control character, which would forge log lines and terminal output.
    #[error("{0} must not contain control characters")]
    ControlCharacter(&'static str),
    /// Not of the form that the server issues or derives.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

fn checked_name(what: &'static str, name: &str) -> Result<(), IdError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(IdError::Length {
            what,
            bytes: name.len(),
            max_bytes: NAME_MAX_BYTES,
        });
    }
    if name.chars().any(char::is_control) {
        return Err(IdError::ControlCharacter(what));
    }
    Ok(())
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Checks a ", $what, ": 1 to 64 bytes of UTF-8 without control characters.")]
            pub fn parse(name: &str) -> Result<Self, IdError> {
                checked_name($what, name)?;
                Ok(Self(name.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_id!(
    /// A user, by the name that the user chose. 1–64 bytes of UTF-8.
    UserId,
    "user id"
);
name_id!(
    /// A device of a user, by the name that the client chose; stable over the
    /// device's life. 1–64 bytes of UTF-8.
    DeviceId,
    "device id"
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// Position of an entry in a conversation's log: 1, 2, 3, … without gaps. 0 is before the first.
    Seq, u64
);
number_id!(
    /// Position of an entry in a user's inbox: 1, 2, 3, … without gaps. 0 is before the first.
    UserSeq, u64
);
number_id!(
    /// A snowflake: 41 bits of milliseconds, 10 bits of worker, 12 bits of count.
    MessageId, u64
);
number_id!(
    /// One of P parts of the conversation space; a lane of the gateway and a stream of the bus.
    Partition, u16
);
number_id!(
    /// Raised by the store each time a partition gets an owner; a commit with an older one fails.
    PartitionEpoch, u64
);
number_id!(
    /// Raised when the number of partitions changes.
    LayoutEpoch, u64
);
number_id!(
    /// One life of one gateway process (or other consumer of a `down` stream). Issued by the store, never reused.
    Incarnation, u32
);
number_id!(
    /// Names a snowflake generator, 0–1023. Issued by the store.
    WorkerId, u16
);

/// A client connection, never reused: the gateway's life, the event loop, the
/// channel's slot in that loop's slab, and the slot's generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Which gateway process.
    pub incarnation: Incarnation,
    /// Which of its event loops.
    pub event_loop: u16,
    /// Which slot of the loop's slab.
    pub slot: u32,
    /// How many channels the slot held before.
    pub generation: u32,
}

/// Names one send of one sender for ever: a UUIDv7 (RFC 9562, section 5.7)
/// whose time comes from the server's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientMsgId([u8; 16]);

// === impl ConnectionId ===

impl ConnectionId {
    /// Sixteen bytes, big-endian: incarnation (4), loop (2), zero (2), slot (4), generation (4).
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.event_loop.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }

    /// The inverse of [`ConnectionId::to_bytes`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IdError> {
        let bytes: &[u8; 16] = bytes
            .try_into()
            .map_err(|_| IdError::Malformed("connection id"))?;
        let [i0, i1, i2, i3, l0, l1, 0, 0, s0, s1, s2, s3, g0, g1, g2, g3] = *bytes else {
            return Err(IdError::Malformed("connection id"));
        };
        Ok(Self {
            incarnation: Incarnation(u32::from_be_bytes([i0, i1, i2, i3])),
            event_loop: u16::from_be_bytes([l0, l1]),
            slot: u32::from_be_bytes([s0, s1, s2, s3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        })
    }

    /// Takes the text that [`fmt::Display`] makes of it.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse_text(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('-');
        let mut part = || parts.next()?.parse::<u32>().ok();
        let (incarnation, event_loop, slot, generation) = (part(), part(), part(), part());
        let id = incarnation.zip(event_loop).zip(slot).zip(generation);
        match (id, parts.next()) {
            (Some((((incarnation, event_loop), slot), generation)), None) => Ok(Self {
                incarnation: Incarnation(incarnation),
                event_loop: u16::try_from(event_loop)
                    .map_err(|_| IdError::Malformed("connection id"))?,
                slot,
                generation,
            }),
            _ => Err(IdError::Malformed("connection id")),
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}-{}",
            self.incarnation, self.event_loop, self.slot, self.generation
        )
    }
}

// === impl ClientMsgId ===

impl ClientMsgId {
    /// Takes 16 bytes with version 7 and the RFC variant.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdError> {
        let malformed =
            IdError::Malformed("client_msg_id (the 16 bytes of a UUIDv7 are asked for)");
        let Ok(bytes) = <[u8; 16]>::try_from(bytes) else {
            return Err(malformed);
        };
        if bytes[6] >> 4 != 7 || bytes[8] >> 6 != 0b10 {
            return Err(malformed);
        }
        Ok(Self(bytes))
    }

    /// Makes an id from a time and ten random bytes (of which 74 bits are used).
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[0..6].copy_from_slice(&unix_ms.to_be_bytes()[2..8]);
        bytes[6..16].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// Takes one that stands in an entry: what [`ClientMsgId::parse`] takes, or one
    /// that the server [derived](ClientMsgId::derived).
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_stored(bytes: &[u8]) -> Result<Self, IdError> {
        match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) if bytes[6] >> 4 == 8 && bytes[8] >> 6 == 0b10 => Ok(Self(bytes)),
            _ => Self::parse(bytes),
        }
    }

    /// Takes the text that [`fmt::Display`] makes of one that stands in an entry;
    /// only its 32 digits count.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse_text(text: &str) -> Result<Self, IdError> {
        let mut digits = text.chars().filter(|digit| *digit != '-');
        let mut digit = || digits.next()?.to_digit(16);
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(IdError::Malformed("client_msg_id"));
            };
            *byte = (high << 4 | low) as u8;
        }
        match digits.next() {
            None => Self::parse_stored(&bytes),
            Some(_) => Err(IdError::Malformed("client_msg_id")),
        }
    }

    /// Makes the server's own id for an entry that a client's command entails: a
    /// UUIDv8, so that no id of a client can ever be equal.
    pub fn derived(unix_ms: u64, digest: [u8; 10]) -> Self {
        let Self(mut bytes) = Self::new(unix_ms, digest);
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        Self(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// When it was made, by the clock that its maker went by.
    pub fn unix_ms(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(UserId::parse("爱丽丝").is_ok());
        assert!(UserId::parse("").is_err());
        assert!(UserId::parse(&"a".repeat(64)).is_ok());
        assert!(UserId::parse(&"a".repeat(65)).is_err());
        assert_eq!(
            UserId::parse("a\nb"),
            Err(IdError::ControlCharacter("user id"))
        );
    }

    #[test]
    fn connection_id_round_trips_and_is_strict() {
        let id = ConnectionId {
            incarnation: Incarnation(7),
            event_loop: 1,
            slot: 0x0102_0304,
            generation: u32::MAX,
        };
        assert_eq!(ConnectionId::parse(&id.to_bytes()), Ok(id));
        assert_eq!(ConnectionId::parse_text(&id.to_string()), Ok(id));
        for wrong in ["", "7-1-2", "7-1-2-3-4", "7-70000-2-3", "7-1-2-x"] {
            assert!(ConnectionId::parse_text(wrong).is_err(), "{wrong}");
        }
        assert!(ConnectionId::parse(&id.to_bytes()[1..]).is_err());
        let mut forged = id.to_bytes();
        forged[6] = 1;
        assert!(ConnectionId::parse(&forged).is_err());
    }

    #[test]
    fn client_msg_id_carries_its_time() {
        let id = ClientMsgId::new(1_790_000_000_123, [0xff; 10]);
        assert_eq!(id.unix_ms(), 1_790_000_000_123);
        assert_eq!(ClientMsgId::parse(id.as_bytes()), Ok(id));
        let derived = ClientMsgId::derived(1_790_000_000_123, [7; 10]);
        for id in [id, derived] {
            assert_eq!(ClientMsgId::parse_text(&id.to_string()), Ok(id));
        }
        let (short, long) = (&id.to_string()[1..], format!("{id}0"));
        for text in [short, &long, "", "-"] {
            assert!(ClientMsgId::parse_text(text).is_err(), "{text}");
        }
        assert_eq!(id.to_string(), "01a0c450-6c7b-7fff-bfff-ffffffffffff");
        let mut v4 = *id.as_bytes();
        v4[6] = 0x4f;
        assert!(ClientMsgId::parse(&v4).is_err());
        assert!(ClientMsgId::parse_stored(&v4).is_err());
    }

    #[test]
    fn a_derived_id_is_none_that_a_client_may_use() {
        let id = ClientMsgId::derived(1_790_000_000_123, [0xff; 10]);
        assert_eq!(id.unix_ms(), 1_790_000_000_123);
        assert_eq!(id.to_string(), "01a0c450-6c7b-8fff-bfff-ffffffffffff");
        assert!(ClientMsgId::parse(id.as_bytes()).is_err());
        assert_eq!(ClientMsgId::parse_stored(id.as_bytes()), Ok(id));
        let of_client = ClientMsgId::new(1, [0xff; 10]);
        assert_eq!(
            ClientMsgId::parse_stored(of_client.as_bytes()),
            Ok(of_client)
        );
    }
}
