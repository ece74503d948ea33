//! Conversation ids and the partition they fall into.
//!
//! A private conversation's id is derived from its two parties, so that there
//! is one a pair and membership needs no look-up: `p:5:alice:bob` holds the
//! byte length of the first name, then both names, the smaller (bytewise)
//! first. A group's id is issued: `g:` and the decimal snowflake.

use std::{fmt, sync::Arc};

use crate::{
    IdError, MessageId, Partition, Refusal, UserId, limits::NAME_MAX_BYTES, packet::ErrorCode,
};

/// A conversation: a pair of users or a group. At most 135 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(Arc<str>);

/// What kind of conversation an id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConversationKind {
    /// Between these two, the smaller name first.
    Private(UserId, UserId),
    /// A group, by the number that was issued for it.
    Group(MessageId),
}

const MALFORMED: IdError = IdError::Malformed("conversation id");

/// The partition of a conversation (or of another key, such as a user id, where
/// a stream is partitioned by it): FNV-1a, 64 bits, modulo the partitions.
/// Part of the bus contract (SPEC.md).
pub fn partition_of(key: &[u8], partitions: u16) -> Partition {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The remainder is below a u16.
    Partition((hash % u64::from(partitions.max(1))) as u16)
}

// === impl ConversationId ===

impl ConversationId {
    /// The private conversation of two different users.
    pub fn private(one: &UserId, other: &UserId) -> Result<Self, IdError> {
        if one == other {
            return Err(IdError::Malformed(
                "conversation id (a pair needs two users)",
            ));
        }
        let (first, second) = if one < other {
            (one, other)
        } else {
            (other, one)
        };
        Ok(Self(
            format!("p:{}:{first}:{second}", first.as_str().len()).into(),
        ))
    }

    /// The group with this number.
    pub fn group(number: MessageId) -> Self {
        Self(format!("g:{number}").into())
    }

    /// Checks an id from outside.
    pub fn parse(id: &str) -> Result<Self, IdError> {
        let id = Self(id.into());
        id.parsed().map(|_| id)
    }

    /// Kind and parties. Cannot fail for an id made by this type.
    pub fn kind(&self) -> ConversationKind {
        match self.parsed() {
            Ok(kind) => kind,
            Err(_) => unreachable!("a conversation id is checked when it is made"),
        }
    }

    /// True for a group's id.
    pub fn is_group(&self) -> bool {
        self.0.starts_with("g:")
    }

    /// Refuses a private conversation between two others. A group's members are
    /// known to its owner service only, so any group passes here.
    pub fn check_party(&self, user: &UserId) -> Result<(), Refusal> {
        match self.kind() {
            ConversationKind::Private(first, second) if *user != first && *user != second => {
                Err(Refusal::new(
                    ErrorCode::NotAMember,
                    "this conversation is between two others",
                ))
            }
            ConversationKind::Private(..) | ConversationKind::Group(_) => Ok(()),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition that this conversation belongs to.
    pub fn partition(&self, partitions: u16) -> Partition {
        partition_of(self.0.as_bytes(), partitions)
    }

    fn parsed(&self) -> Result<ConversationKind, IdError> {
        let (tag, rest) = self.0.split_once(':').ok_or(MALFORMED)?;
        match tag {
            "g" => {
                let number: u64 = rest.parse().map_err(|_| MALFORMED)?;
                // Only the canonical decimal form, so that one group has one id.
                if number.to_string() != rest {
                    return Err(MALFORMED);
                }
                Ok(ConversationKind::Group(MessageId(number)))
            }
            "p" => {
                let (length, names) = rest.split_once(':').ok_or(MALFORMED)?;
                let bytes: usize = length.parse().map_err(|_| MALFORMED)?;
                if bytes > NAME_MAX_BYTES || bytes.to_string() != length {
                    return Err(MALFORMED);
                }
                let (first, second) = names.split_at_checked(bytes).ok_or(MALFORMED)?;
                let second = second.strip_prefix(':').ok_or(MALFORMED)?;
                let (first, second) = (UserId::parse(first)?, UserId::parse(second)?);
                if first >= second {
                    return Err(MALFORMED);
                }
                Ok(ConversationKind::Private(first, second))
            }
            _ => Err(MALFORMED),
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn a_pair_has_one_id_whatever_the_names_hold() {
        let id = ConversationId::private(&user("bob"), &user("alice")).unwrap();
        assert_eq!(id.as_str(), "p:5:alice:bob");
        assert_eq!(
            id,
            ConversationId::private(&user("alice"), &user("bob")).unwrap()
        );
        let colons = ConversationId::private(&user("a:1"), &user("a")).unwrap();
        assert_eq!(
            colons.kind(),
            ConversationKind::Private(user("a"), user("a:1"))
        );
        assert!(ConversationId::private(&user("a"), &user("a")).is_err());
    }

    #[test]
    fn only_canonical_ids_are_taken() {
        assert!(ConversationId::parse("g:42").is_ok());
        for bad in [
            "",
            "g:",
            "g:042",
            "g:-1",
            "g:+1",
            "x:1",
            "p:3:bob:alice",
            "p:05:alice:bob",
            "p:9:alice:bob",
            "p:5:alice",
            "p:1:é:z",
            "p:0::b",
            "p:18446744073709551616:a:b",
        ] {
            assert!(ConversationId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn partition_is_fnv_1a() {
        // Published FNV-1a 64 values for "" and "a".
        assert_eq!(
            partition_of(b"", 1000),
            Partition((0xcbf29ce484222325_u64 % 1000) as u16)
        );
        assert_eq!(
            partition_of(b"a", 1000),
            Partition((0xaf63dc4c8601ec8c_u64 % 1000) as u16)
        );
        assert_eq!(partition_of(b"a", 0), Partition(0));
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_round_trips(text in ".{0,160}") {
            if let Ok(id) = ConversationId::parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                let _ = id.kind();
            }
        }

        #[test]
        fn any_two_names_make_a_pair(a in "[^\\p{Cc}]{1,16}", b in "[^\\p{Cc}]{1,16}") {
            prop_assume!(a != b);
            let id = ConversationId::private(&user(&a), &user(&b)).unwrap();
            prop_assert_eq!(ConversationId::parse(id.as_str()).unwrap(), id);
        }
    }
}
