//! Names of the streams (SPEC.md, "The bus").

use std::fmt;

use sluice_protocol::{Incarnation, Partition};

/// One stream of the bus.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Sends, recalls and group commands, by conversation. Ordered, one owner.
    Message(Partition),
    /// Sync, lists and other reads, by user. Consumed concurrently.
    Query(Partition),
    /// Logins and logouts, by user. Consumed concurrently.
    Session(Partition),
    /// Delivered cursors, read receipts and failed pushes, by user. Consumed
    /// concurrently, apart from messages.
    Ack(Partition),
    /// Requests for a backend, by key.
    Request {
        /// The backend's name, from the allow-list.
        service: String,
        /// Hash of the key.
        partition: Partition,
    },
    /// Everything for one life of one gateway, or of another consumer of
    /// answers such as an HTTP node.
    Down(Incarnation),
}

// === impl Stream ===

impl Stream {
    /// Whether an append to the full stream waits (`up`) or drops (`down`).
    pub fn blocks_producer(&self) -> bool {
        !matches!(self, Stream::Down(_))
    }

    /// Parses any stream's name, the inverse of its `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, number) = text.strip_suffix('}')?.rsplit_once(":{")?;
        if kind == "down" {
            return Self::parse_down(text);
        }
        let partition = Partition(number.parse().ok()?);
        let stream = match kind {
            "up:message" => Stream::Message(partition),
            "up:query" => Stream::Query(partition),
            "up:session" => Stream::Session(partition),
            "up:ack" => Stream::Ack(partition),
            _ => {
                let service = kind.strip_prefix("rq:")?;
                if service.is_empty() || service.contains(['{', '}']) {
                    return None;
                }
                let service = service.to_owned();
                Stream::Request { service, partition }
            }
        };
        Some(stream)
    }

    /// Parses `down:{n}`, the only form that travels (`Origin.reply_to`).
    pub fn parse_down(text: &str) -> Option<Self> {
        let number = text.strip_prefix("down:{")?.strip_suffix('}')?;
        number.parse().ok().map(|n| Stream::Down(Incarnation(n)))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stream::Message(p) => write!(f, "up:message:{{{p}}}"),
            Stream::Query(p) => write!(f, "up:query:{{{p}}}"),
            Stream::Session(p) => write!(f, "up:session:{{{p}}}"),
            Stream::Ack(p) => write!(f, "up:ack:{{{p}}}"),
            Stream::Request { service, partition } => write!(f, "rq:{service}:{{{partition}}}"),
            Stream::Down(incarnation) => write!(f, "down:{{{incarnation}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_spec() {
        assert_eq!(
            Stream::Message(Partition(12)).to_string(),
            "up:message:{12}"
        );
        let request = Stream::Request {
            service: "stock".into(),
            partition: Partition(3),
        };
        assert_eq!(request.to_string(), "rq:stock:{3}");
        for name in [
            "up:message:{12}",
            "up:query:{0}",
            "up:session:{7}",
            "up:ack:{1}",
            "rq:a:b:{3}",
            "down:{9}",
        ] {
            assert_eq!(Stream::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "up:message",
            "up:message:{x}",
            "up:other:{1}",
            "rq::{1}",
            "rq:{a}:{1}",
            "down:{-1}",
            "",
        ] {
            assert_eq!(Stream::parse(name), None, "{name}");
        }
        let down = Stream::Down(Incarnation(9));
        assert_eq!(Stream::parse_down(&down.to_string()), Some(down));
        assert_eq!(Stream::parse_down("up:message:{1}"), None);
    }
}
