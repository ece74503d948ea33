//! The driver for Sluice's own protocol (SPEC.md), for all that is measured: pings,
//! messages of a pair or a group, requests. It reads and writes packets field by
//! field; the generated types are used for the login only.

mod field;
mod reading;
mod writing;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_protocol::WEBSOCKET_SUBPROTOCOL;

use crate::{
    LoadError, Login,
    body::Body,
    clock::{MS_NS, now_ns},
    driver::{Driver, Heard, Message},
    fields::{put_head, put_number},
    frame::LoadTransport,
    sequence::Sequence,
};

use writing::packet_id;

/// What clients do.
#[derive(Debug, Clone)]
pub(crate) enum Talk {
    /// Nothing but to be there.
    Idle,
    /// Ask for signs of life.
    Ping,
    /// Each with its neighbour, in private: 0 with 1, 2 with 3.
    Pairs,
    /// In this group.
    Group(String),
    /// Ask this backend.
    Request(String),
}

/// See the module.
pub(crate) struct Session {
    transport: LoadTransport,
    host: String,
    talk: Talk,
    logins: Vec<Login>,
    members: Vec<Member>,
    body: Body,
    /// Unix time at the monotonic clock's start.
    epoch_ms: u64,
    /// Tells this run's message ids from another's.
    run: [u8; 3],
    /// Whoever listens knows no logins: it is the bare server.
    is_bare: bool,
}

#[derive(Default)]
struct Member {
    /// Its socket speaks WebSocket by now.
    is_upgraded: bool,
    is_ready: bool,
    /// Pushes of this connection, counted from 0 (on the wire from 1).
    pushes: Sequence,
    untold: u32,
    /// Positions of its inbox, counted alike.
    inbox: Sequence,
    /// Answers awaited before it is synced.
    pulls: u8,
}

/// Pushes that are told at once; fewer wait for [`Driver::settle`].
const TOLD_AT_ONCE: u32 = 32;
/// A send that met `out_of_order` goes again after this span.
const SETBACK_MS: u32 = 20;
const ID_SHIFT: u32 = 8;
/// A group's log begins with the entry that founds it.
const FOUNDED_SEQ: u64 = 1;

// === impl Session ===

impl Session {
    /// Clients that log in so and do this, with bodies of so many bytes.
    pub(crate) fn new(
        transport: LoadTransport,
        host: String,
        talk: Talk,
        logins: Vec<Login>,
        body_bytes: usize,
    ) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = unix.map(|span| span.as_millis() as u64).unwrap_or_default();
        Self {
            transport,
            host,
            talk,
            members: logins.iter().map(|_| Member::default()).collect(),
            logins,
            body: Body::new(body_bytes),
            epoch_ms: unix_ms.saturating_sub(now_ns() / MS_NS),
            run: rand::random(),
            is_bare: false,
        }
    }

    /// Clients of the bare server, which says again what it hears: to the one that
    /// pings, or to all of a group.
    pub(crate) fn bare(
        transport: LoadTransport,
        talk: Talk,
        logins: Vec<Login>,
        body_bytes: usize,
    ) -> Self {
        let mut bare = Self::new(transport, String::new(), talk, logins, body_bytes);
        bare.is_bare = true;
        bare
    }

    fn log_in(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let packet = self.logins[client].packet()?;
        self.transport
            .frame(out, |out| out.extend_from_slice(&packet));
        Ok(())
    }
}

impl Driver for Session {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        if self.is_bare {
            self.members[client].is_upgraded = true;
            self.keep_alive(client, out);
            return Ok(());
        }
        match self.transport {
            LoadTransport::Tcp | LoadTransport::Udp => self.log_in(client, out),
            LoadTransport::WebSocket => {
                self.members[client].is_upgraded = false;
                let request = format!(
                    "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Protocol: {WEBSOCKET_SUBPROTOCOL}\r\n\r\n",
                    self.host
                );
                out.extend_from_slice(request.as_bytes());
                Ok(())
            }
        }
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        let transport = self.transport;
        match &self.talk {
            Talk::Idle => {}
            Talk::Ping => transport.frame(out, |out| {
                put_number(field::ID, packet_id(message), out);
                put_head(field::PING, 0, out);
            }),
            Talk::Group(_) if self.is_bare => {
                self.body.stamp(message);
                transport.frame(out, |out| self.put_notice(client, message, out));
            }
            Talk::Pairs | Talk::Group(_) => {
                self.body.stamp(message);
                transport.frame(out, |out| self.put_send(client, message, out));
            }
            Talk::Request(_) => {
                self.body.stamp(message);
                transport.frame(out, |out| self.put_request(client, message, out));
            }
        }
    }

    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        if self.transport == LoadTransport::WebSocket && !self.members[client].is_upgraded {
            let Some(head) = Self::upgraded(input)? else {
                return Ok(0);
            };
            self.members[client].is_upgraded = true;
            self.log_in(client, out)?;
            used = head;
        }
        while let Some(frame) = self.transport.first_frame(&input[used..])? {
            let payload = &input[used..][frame.payload.clone()];
            if frame.is_packet {
                self.take_packet(client, payload, out, heard)?;
            }
            used += frame.payload.end;
        }
        Ok(used)
    }

    fn settle(&mut self, client: usize, out: &mut Vec<u8>) {
        self.put_push_ack(client, out);
    }

    fn keep_alive(&mut self, _client: usize, out: &mut Vec<u8>) {
        self.transport
            .frame(out, |out| put_head(field::PING, 0, out));
    }

    fn is_ordered(&self) -> bool {
        !matches!(self.talk, Talk::Request(_))
    }
}
