//! What is asked for: which messages, for how long, how many.

use serde::{Deserialize, Serialize};
use sluice_protocol::{ClientMsgId, ConnectionId, UserId};

/// Which messages are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Those that this user sends, by whatever connection.
    User(UserId),
    /// Those that come by this connection.
    Connection(ConnectionId),
    /// One in so many, chosen by their ids: the same ones in every process.
    OneIn(u32),
}

/// A watch with its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which messages.
    pub watch: Watch,
    /// For so long new ones are begun.
    pub for_s: u64,
    /// So many at most.
    pub messages_max: usize,
}

/// Nobody watches for longer.
pub const FOR_MAX_S: u64 = 600;
/// Nor more messages; each takes about half a kilobyte.
pub const MESSAGES_MAX: usize = 10_000;

const FOR_DEFAULT_S: u64 = 10;
const MESSAGES_DEFAULT: usize = 1_000;

/// Why an order can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchError(pub String);

/// As it stands in a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OrderFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_one_in: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_max: Option<usize>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn wants(
        &self,
        sender: &UserId,
        message: ClientMsgId,
        connection: Option<ConnectionId>,
    ) -> bool {
        match self {
            Self::User(user) => user == sender,
            Self::Connection(wanted) => connection == Some(*wanted),
            Self::OneIn(one_in) => is_sampled(message, *one_in),
        }
    }
}

/// Whether the id is one of those that stand for so many.
pub(crate) fn is_sampled(message: ClientMsgId, one_in: u32) -> bool {
    // The upper half of a product (Fibonacci hashing, Knuth, volume 3, 6.4): ids of
    // clients need not be as random as they should.
    let number = u128::from_be_bytes(*message.as_bytes());
    let folded = (number as u64) ^ ((number >> 64) as u64);
    let mixed = (folded ^ (folded >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed.is_multiple_of(u64::from(one_in.max(1)))
}

// === impl Order ===

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = OrderFields::deserialize(input)?;
        Self::try_from(fields).map_err(|WatchError(why)| serde::de::Error::custom(why))
    }
}

impl Serialize for Order {
    fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut fields = OrderFields {
            for_s: Some(self.for_s),
            messages_max: Some(self.messages_max),
            ..OrderFields::default()
        };
        match &self.watch {
            Watch::User(user) => fields.user = Some(user.to_string()),
            Watch::Connection(connection) => fields.connection = Some(connection.to_string()),
            Watch::OneIn(one_in) => fields.sample_one_in = Some(*one_in),
        }
        fields.serialize(output)
    }
}

impl TryFrom<OrderFields> for Order {
    type Error = WatchError;

    fn try_from(fields: OrderFields) -> Result<Self, WatchError> {
        let bad = |error: sluice_protocol::IdError| WatchError(error.to_string());
        let watch = match (fields.user, fields.connection, fields.sample_one_in) {
            (Some(user), None, None) => Watch::User(UserId::parse(&user).map_err(bad)?),
            (None, Some(text), None) => {
                Watch::Connection(ConnectionId::parse_text(&text).map_err(bad)?)
            }
            (None, None, Some(0)) => {
                return Err(WatchError("sample_one_in must be above 0".into()));
            }
            (None, None, Some(one_in)) => Watch::OneIn(one_in),
            _ => {
                let why = "one of user, connection and sample_one_in is asked for";
                return Err(WatchError(why.into()));
            }
        };
        let for_s = fields.for_s.unwrap_or(FOR_DEFAULT_S);
        if !(1..=FOR_MAX_S).contains(&for_s) {
            return Err(WatchError(format!("for_s must be 1 to {FOR_MAX_S}")));
        }
        let messages_max = fields.messages_max.unwrap_or(MESSAGES_DEFAULT);
        if !(1..=MESSAGES_MAX).contains(&messages_max) {
            let why = format!("messages_max must be 1 to {MESSAGES_MAX}");
            return Err(WatchError(why));
        }
        Ok(Self {
            watch,
            for_s,
            messages_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_one_watch_and_keeps_its_bounds() {
        let read = |text| serde_json::from_str::<Order>(text).map_err(|error| error.to_string());
        let order = read(r#"{"user":"alice","for_s":5}"#).unwrap();
        assert_eq!(order.watch, Watch::User(UserId::parse("alice").unwrap()));
        assert_eq!((order.for_s, order.messages_max), (5, 1_000));
        let order = read(r#"{"connection":"7-1-23-4"}"#).unwrap();
        let told = serde_json::to_string(&order).unwrap();
        assert_eq!(read(&told), Ok(order));
        for wrong in [
            "{}",
            r#"{"user":"a","sample_one_in":2}"#,
            r#"{"user":""}"#,
            r#"{"connection":"7-1"}"#,
            r#"{"sample_one_in":0}"#,
            r#"{"sample_one_in":1,"for_s":0}"#,
            r#"{"sample_one_in":1,"for_s":601}"#,
            r#"{"sample_one_in":1,"messages_max":10001}"#,
            r#"{"sample_one_in":1,"bodies":true}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sample_is_as_large_as_it_says_even_of_ids_that_count() {
        for one_in in [1, 10, 100] {
            let ids = (0..100_000_u64).map(|number| {
                let mut random = [0; 10];
                random[2..].copy_from_slice(&number.to_be_bytes());
                ClientMsgId::new(1_790_000_000_000 + number / 50, random)
            });
            let sampled = ids.filter(|id| is_sampled(*id, one_in)).count();
            let wanted = 100_000 / one_in as usize;
            assert!(
                sampled.abs_diff(wanted) <= wanted / 5,
                "{sampled} of 1 in {one_in}"
            );
        }
    }
}
