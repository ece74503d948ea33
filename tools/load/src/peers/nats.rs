//! NATS core (docs.nats.io, "Client Protocol"): each user subscribes to a subject of its
//! own, and a message is a PUB to the other's. A PING ends each batch; a server takes a
//! client's commands in their order, so its PONG says that all before have been handed on to
//! who is there. That is the ack, and nothing is kept.

mod wire;

use std::collections::VecDeque;

use super::{HEARTBEAT_INTERVAL_MS, PeerError, WINDOW};
use crate::{
    LoadError, Login,
    body::{Body, stamp_of},
    driver::{Driver, Heard, Message},
};

pub(super) use wire::{Op, first_op, put_publish};

/// See the module.
pub(crate) struct Nats {
    logins: Vec<Login>,
    members: Vec<Member>,
    body: Body,
}

#[derive(Default)]
struct Member {
    is_ready: bool,
    sent: u64,
    /// Messages that were acked, which goes in their order.
    acked: u64,
    /// Sent when each PING was that isn't answered yet.
    asked: VecDeque<u64>,
}

/// Users' subjects begin with it.
pub(super) const SUBJECT: &str = "inbox.";

// === impl Nats ===

impl Nats {
    /// Clients that are these users.
    pub(crate) fn new(logins: Vec<Login>, body_bytes: usize) -> Self {
        Self {
            members: logins.iter().map(|_| Member::default()).collect(),
            logins,
            body: Body::new(body_bytes),
        }
    }

    fn user(&self, client: usize) -> &str {
        self.logins[client].user.as_str()
    }
}

impl Driver for Nats {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        self.members[client] = Member::default();
        let user = self.user(client);
        let words = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"protocol\":1,\
             \"lang\":\"rust\",\"version\":\"0\",\"name\":\"{user}\"}}\r\n\
             SUB {SUBJECT}{user} 1\r\nPING\r\n"
        );
        out.extend_from_slice(words.as_bytes());
        Ok(())
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        self.body.stamp(message);
        let peer = self.user(client ^ 1);
        put_publish(&[SUBJECT, peer], &[], self.body.bytes(), out);
        self.members[client].sent += 1;
    }

    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        let member = &mut self.members[client];
        let mut used = 0;
        while let Some((op, bytes)) = first_op(&input[used..])? {
            used += bytes;
            match op {
                Op::Message { payload, .. } => {
                    let stamp = stamp_of(payload).ok_or(PeerError::Malformed("a message"))?;
                    let (due_ns, number) = stamp;
                    heard.push(Heard::Received { number, due_ns });
                }
                Op::Ping => out.extend_from_slice(b"PONG\r\n"),
                Op::Pong if !member.is_ready => {
                    member.is_ready = true;
                    heard.push(Heard::Ready {
                        window: WINDOW,
                        heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
                    });
                }
                Op::Pong => {
                    let sent = member.asked.pop_front();
                    let sent = sent.ok_or(PeerError::Malformed("a PONG"))?;
                    heard.extend((member.acked..sent).map(|number| Heard::Acked { number }));
                    member.acked = sent;
                }
                Op::Ok | Op::Info => {}
            }
        }
        Ok(used)
    }

    fn gathered(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        let last = member.asked.back().copied();
        if member.is_ready && member.sent > last.unwrap_or(member.acked) {
            member.asked.push_back(member.sent);
            out.extend_from_slice(b"PING\r\n");
        }
    }

    fn keep_alive(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        member.asked.push_back(member.sent);
        out.extend_from_slice(b"PING\r\n");
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::fed::{feed, feed_every_way, logins, message};

    /// As nats-server 2.9.10 says it, shortened.
    const HELLO: &[u8] = b"INFO {\"server_id\":\"NA\",\"version\":\"2.9.10\",\"proto\":1,\
        \"max_payload\":1048576,\"client_id\":5} \r\nPONG\r\n";

    fn driver() -> Nats {
        Nats::new(logins(), 64)
    }

    #[test]
    fn a_client_is_ready_once_its_ping_is_answered() {
        let mut out = Vec::new();
        driver().open(0, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(
            said.ends_with("}\r\nSUB inbox.alice 1\r\nPING\r\n"),
            "{said}"
        );
        let (heard, out) = feed_every_way(driver, 0, &[HELLO, b"PING\r\n"].concat());
        assert!(matches!(heard[..], [Heard::Ready { window: 128, .. }]));
        assert_eq!(out, b"PONG\r\n");
    }

    #[test]
    fn what_one_sends_is_acked_in_order_and_received_by_the_other() {
        let mut sent = Vec::new();
        let mut alice = driver();
        alice.send(0, message(0), &mut sent);
        let head = b"PUB inbox.bob 64\r\n";
        assert_eq!(&sent[..head.len()], head);
        let pushed = [b"MSG inbox.bob 1 64\r\n", &sent[head.len()..]].concat();
        let (heard, _) = feed_every_way(driver, 1, &pushed);
        let due_ns = message(0).due_ns;
        assert_eq!(heard, [Heard::Received { number: 0, due_ns }]);
        let acked = |number| Heard::Acked { number };
        let mut alice = driver();
        feed(&mut alice, 0, &[HELLO]).unwrap();
        sent.clear();
        alice.send(0, message(0), &mut sent);
        alice.send(0, message(1), &mut sent);
        alice.gathered(0, &mut sent);
        alice.gathered(0, &mut sent);
        assert!(sent.ends_with(b"\r\nPING\r\n"));
        alice.send(0, message(2), &mut sent);
        alice.keep_alive(0, &mut sent);
        let (heard, _) = feed(&mut alice, 0, &[b"PONG\r\n"]).unwrap();
        assert_eq!(heard, [acked(0), acked(1)]);
        let (heard, _) = feed(&mut alice, 0, &[b"PONG\r\n"]).unwrap();
        assert_eq!(heard, [acked(2)]);
        assert!(feed(&mut alice, 0, &[b"PONG\r\n"]).is_err());
    }
}
