//! MQTT 3.1.1 (OASIS standard, 29 October 2014) as a chat uses it: each user has a
//! session that outlives its connection (clean session 0, section 3.1.2.4) and subscribes
//! to a topic of its own with QoS 1; a message is a PUBLISH with QoS 1 to the other's
//! topic, and its PUBACK (3.4) is the ack.

use super::{HEARTBEAT_INTERVAL_MS, MESSAGE_MAX_BYTES, PeerError, WINDOW};
use crate::{
    LoadError, Login,
    body::{Body, stamp_of},
    driver::{Driver, Heard, Message},
};

/// See the module.
pub(crate) struct Mqtt {
    logins: Vec<Login>,
    /// Messages that each has sent.
    sent: Vec<u64>,
    body: Body,
}

/// A control packet (2.2): its first byte, and what follows its length.
struct Packet<'a> {
    head: u8,
    body: &'a [u8],
    /// Of the whole packet.
    bytes: usize,
}

const TOPIC: &str = "inbox/";
const KEEP_ALIVE_S: u16 = 120;
/// Packet identifiers are 1 to 65,535 (2.3.1); of messages 1 to 32,768, more than are
/// ever unacked.
const IDENTIFIERS: u64 = 1 << 15;
const SUBSCRIBE_IDENTIFIER: u16 = u16::MAX;

/// First bytes (2.2.1, 2.2.2).
mod head {
    pub(super) const CONNECT: u8 = 0x10;
    pub(super) const CONNACK: u8 = 0x20;
    pub(super) const PUBLISH: u8 = 0x30;
    pub(super) const PUBACK: u8 = 0x40;
    pub(super) const SUBSCRIBE: u8 = 0x82;
    pub(super) const SUBACK: u8 = 0x90;
    pub(super) const PINGREQ: u8 = 0xc0;
    pub(super) const PINGRESP: u8 = 0xd0;
}

const QOS_1: u8 = 1;
const QOS_1_FLAG: u8 = QOS_1 << 1;
const QOS_MASK: u8 = 0b110;
const KIND_MASK: u8 = 0xf0;

// === impl Mqtt ===

impl Mqtt {
    /// Clients that are these users.
    pub(crate) fn new(logins: Vec<Login>, body_bytes: usize) -> Self {
        Self {
            sent: vec![0; logins.len()],
            logins,
            body: Body::new(body_bytes),
        }
    }

    fn user(&self, client: usize) -> &str {
        self.logins[client].user.as_str()
    }

    fn take_packet(
        &self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), PeerError> {
        match packet.head & KIND_MASK {
            head::CONNACK => self.connected(client, packet.body, out),
            head::SUBACK => {
                subscribed(packet.body)?;
                heard.push(Heard::Ready {
                    window: WINDOW,
                    heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
                });
                Ok(())
            }
            head::PUBLISH => published(packet, out, heard),
            head::PUBACK => {
                let Some((identifier, _)) = number(packet.body) else {
                    return Err(PeerError::Malformed("a PUBACK"));
                };
                let number = self.number_of(client, identifier)?;
                heard.push(Heard::Acked { number });
                Ok(())
            }
            head::PINGRESP => Ok(()),
            _ => {
                let what = format!("a packet that begins with {:#04x}", packet.head);
                Err(PeerError::Unexpected(what))
            }
        }
    }

    /// CONNACK (3.2): then it subscribes.
    fn connected(&self, client: usize, body: &[u8], out: &mut Vec<u8>) -> Result<(), PeerError> {
        match body {
            [_, 0] => {}
            [_, code] => {
                return Err(PeerError::Refused {
                    what: "a connection",
                    reason: format!("return code {code}"),
                });
            }
            _ => return Err(PeerError::Malformed("a CONNACK")),
        }
        let user = self.user(client);
        put_head(head::SUBSCRIBE, 2 + 2 + TOPIC.len() + user.len() + 1, out);
        out.extend_from_slice(&SUBSCRIBE_IDENTIFIER.to_be_bytes());
        put_text(&[TOPIC, user], out);
        out.push(QOS_1);
        Ok(())
    }

    /// The newest message that had this identifier.
    fn number_of(&self, client: usize, identifier: u16) -> Result<u64, PeerError> {
        let newest = self.sent[client].checked_sub(1);
        let back = newest.map(|newest| identifier_of(newest).wrapping_sub(identifier));
        let back = back.map(|back| u64::from(back) % IDENTIFIERS);
        let number = newest.zip(back).and_then(|(it, back)| it.checked_sub(back));
        match number {
            Some(number) if identifier_of(number) == identifier => Ok(number),
            _ => {
                let what = format!("an ack of packet {identifier}");
                Err(PeerError::Unexpected(what))
            }
        }
    }
}

impl Driver for Mqtt {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let user = self.user(client);
        put_head(head::CONNECT, 10 + 2 + user.len(), out);
        put_text(&["MQTT"], out);
        // Protocol level 4 (3.1.2.2); no flag: the session is to be kept.
        out.extend_from_slice(&[4, 0]);
        out.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
        put_text(&[user], out);
        Ok(())
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        self.body.stamp(message);
        self.sent[client] = self.sent[client].max(message.number + 1);
        let peer = self.user(client ^ 1);
        let body = self.body.bytes();
        let bytes = 2 + TOPIC.len() + peer.len() + 2 + body.len();
        put_head(head::PUBLISH | QOS_1_FLAG, bytes, out);
        put_text(&[TOPIC, peer], out);
        out.extend_from_slice(&identifier_of(message.number).to_be_bytes());
        out.extend_from_slice(body);
    }

    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        while let Some(packet) = first_packet(&input[used..])? {
            self.take_packet(client, &packet, out, heard)?;
            used += packet.bytes;
        }
        Ok(used)
    }

    fn keep_alive(&mut self, _client: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&[head::PINGREQ, 0]);
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

/// SUBACK (3.9): the one topic, with the QoS that was asked.
fn subscribed(body: &[u8]) -> Result<(), PeerError> {
    match number(body) {
        Some((SUBSCRIBE_IDENTIFIER, &[QOS_1])) => Ok(()),
        Some((SUBSCRIBE_IDENTIFIER, &[code])) => Err(PeerError::Refused {
            what: "a subscription with QoS 1",
            reason: format!("return code {code:#04x}"),
        }),
        _ => Err(PeerError::Malformed("a SUBACK")),
    }
}

/// PUBLISH (3.3): a message of the other, which is acked at once.
fn published(
    packet: &Packet<'_>,
    out: &mut Vec<u8>,
    heard: &mut Vec<Heard>,
) -> Result<(), PeerError> {
    const MALFORMED: PeerError = PeerError::Malformed("a PUBLISH");
    if packet.head & QOS_MASK != QOS_1_FLAG {
        return Err(PeerError::Unexpected("a PUBLISH that isn't QoS 1".into()));
    }
    let (topic_bytes, rest) = number(packet.body).ok_or(MALFORMED)?;
    let rest = rest.get(usize::from(topic_bytes)..).ok_or(MALFORMED)?;
    let (identifier, body) = number(rest).ok_or(MALFORMED)?;
    let (due_ns, number) = stamp_of(body).ok_or(MALFORMED)?;
    heard.push(Heard::Received { number, due_ns });
    put_head(head::PUBACK, 2, out);
    out.extend_from_slice(&identifier.to_be_bytes());
    Ok(())
}

/// The packet that input begins with, once it is there as a whole.
fn first_packet(input: &[u8]) -> Result<Option<Packet<'_>>, PeerError> {
    let Some((head, rest)) = input.split_first() else {
        return Ok(None);
    };
    // The remaining length (2.2.3): seven bits a byte, four bytes at most.
    let mut length = 0;
    for (at, byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        if length > MESSAGE_MAX_BYTES {
            return Err(PeerError::TooLong {
                what: "a packet",
                max_bytes: MESSAGE_MAX_BYTES,
            });
        }
        let body = rest.get(at + 1..at + 1 + length);
        return Ok(body.map(|body| Packet {
            head: *head,
            body,
            bytes: 1 + at + 1 + length,
        }));
    }
    match rest.len() {
        0..4 => Ok(None),
        _ => Err(PeerError::Malformed("a packet's length")),
    }
}

fn identifier_of(number: u64) -> u16 {
    (number % IDENTIFIERS) as u16 + 1
}

/// Two bytes, most significant first (1.5.2), and what follows them.
fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn put_head(head: u8, mut length: usize, out: &mut Vec<u8>) {
    out.push(head);
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A text in parts, its length before it (1.5.3).
fn put_text(parts: &[&str], out: &mut Vec<u8>) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(bytes as u16).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peers::fed::{feed, feed_every_way, logins, message};

    /// As mosquitto 2.0.11 says them.
    const CONNACK: &[u8] = &[0x20, 2, 0, 0];
    const SUBACK: &[u8] = &[0x90, 3, 0xff, 0xff, 1];

    fn alice() -> Mqtt {
        let mut mqtt = Mqtt::new(logins(), 200);
        mqtt.sent[0] = 40_000;
        mqtt
    }

    fn refused(bytes: &[u8]) -> String {
        feed(&mut alice(), 0, &[bytes]).unwrap_err().to_string()
    }

    #[test]
    fn a_client_connects_and_subscribes_however_the_answers_are_cut() {
        let mut out = Vec::new();
        alice().open(0, &mut out).unwrap();
        assert_eq!(out, b"\x10\x11\0\x04MQTT\x04\0\0\x78\0\x05alice");
        let (heard, out) = feed_every_way(alice, 0, &[CONNACK, SUBACK].concat());
        let ready = Heard::Ready {
            window: 128,
            heartbeat_interval_ms: 60_000,
        };
        assert_eq!(heard, [ready]);
        assert_eq!(out, b"\x82\x10\xff\xff\0\x0binbox/alice\x01");
    }

    #[test]
    fn what_one_sends_is_what_the_other_receives_and_acks() {
        let mut sent = Vec::new();
        let mut alice = alice();
        for number in [40_000, 40_001] {
            alice.send(0, message(number), &mut sent);
        }
        assert_eq!(&sent[..3], [0x32, 0xd5, 0x01], "213 bytes in two");
        let bob = || Mqtt::new(logins(), 200);
        let (heard, out) = feed_every_way(bob, 1, &sent);
        let received = |number| Heard::Received {
            number,
            due_ns: message(number).due_ns,
        };
        assert_eq!(heard, [received(40_000), received(40_001)]);
        // A server's own identifiers are its own affair; here they are the sender's.
        let (heard, _) = feed(&mut alice, 0, &[&out]).unwrap();
        let acked = |number| Heard::Acked { number };
        assert_eq!(heard, [acked(40_000), acked(40_001)]);
    }

    #[test]
    fn what_a_server_may_not_say_has_a_name() {
        for (bytes, name) in [
            (
                &[0x20, 2, 0, 5][..],
                "a connection is refused: return code 5",
            ),
            (&[0x20, 1, 0], "a CONNACK is malformed"),
            (&[0x90, 3, 0xff, 0xff, 0x80], "return code 0x80"),
            (&[0x90, 3, 0, 1, 1], "a SUBACK is malformed"),
            (&[0x30, 2, 0, 0], "a PUBLISH that isn't QoS 1"),
            (&[0x32, 4, 0, 9, 0, 0], "a PUBLISH is malformed"),
            (&[0x40, 1, 0], "a PUBACK is malformed"),
            (&[0x40, 2, 0xff, 0], "an ack of packet 65280"),
            (&[0xe0, 0], "begins with 0xe0"),
            (&[0x32, 0xff, 0xff, 0x7f], "of more than 131072 bytes"),
            (&[0x32, 0xff, 0xff, 0xff, 0xff], "a packet's length"),
        ] {
            let told = refused(bytes);
            assert!(told.contains(name), "{bytes:?}: {told}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut out, mut heard) = (Vec::new(), Vec::new());
            if let Ok(used) = alice().take(0, &bytes, &mut out, &mut heard) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
