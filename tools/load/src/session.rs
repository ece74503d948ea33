//! The driver for Sluice's own protocol (SPEC.md), for all that is measured: pings,
//! messages of a pair or a group, requests. It reads and writes packets field by
//! field; the generated types are used for the login only.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_protocol::{
    ClientMsgId, WEBSOCKET_SUBPROTOCOL, limits::PUSH_ACK_RANGES_MAX, packet::ErrorCode,
};

use crate::{
    LoadError, Login,
    clock::{MS_NS, now_ns},
    driver::{Driver, Heard, Message},
    fields::{Fields, Value, bytes_len, number_len, put_bytes, put_head, put_number, put_varint},
    frame::LoadTransport,
    sequence::{Came, Sequence},
};

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
    /// A body's bytes; its first are overwritten by each message's stamp.
    body: Vec<u8>,
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

/// A body begins with its message's due time and number.
pub const BODY_MIN_BYTES: usize = 12;

// Field numbers of packet.proto; the tests hold them against the generated types.
mod field {
    pub(super) const ID: u32 = 1;
    pub(super) const CONNECT_ACK: u32 = 3;
    pub(super) const PING: u32 = 4;
    pub(super) const PONG: u32 = 5;
    pub(super) const KICK: u32 = 9;
    pub(super) const GO_AWAY: u32 = 10;
    pub(super) const ERROR: u32 = 11;
    pub(super) const BUSY: u32 = 12;
    pub(super) const SEND: u32 = 16;
    pub(super) const SEND_ACK: u32 = 17;
    pub(super) const PUSH: u32 = 18;
    pub(super) const GROUP_NOTICE: u32 = 19;
    pub(super) const PUSH_ACK: u32 = 20;
    pub(super) const OVERFLOW: u32 = 28;
    pub(super) const RESYNC: u32 = 29;
    pub(super) const SYNC_INBOX: u32 = 32;
    pub(super) const INBOX_PAGE: u32 = 33;
    pub(super) const SYNC_CONVERSATION: u32 = 34;
    pub(super) const CONVERSATION_PAGE: u32 = 35;
    pub(super) const SYNC_HEADS: u32 = 36;
    pub(super) const HEADS_PAGE: u32 = 37;
    pub(super) const REQUEST: u32 = 48;
    pub(super) const RESPONSE: u32 = 49;
}

/// Pushes that are told at once; fewer wait for [`Driver::settle`].
const TOLD_AT_ONCE: u32 = 32;
/// A send that met `out_of_order` goes again after this span.
const SETBACK_MS: u32 = 20;
const ID_SHIFT: u32 = 8;
/// Of pulls; those of messages begin above.
const PULL_ID: u64 = 1;
const MSG_ID_BYTES: usize = 16;
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
            body: (0..body_bytes.max(BODY_MIN_BYTES))
                .map(|at| b'a' + (at % 26) as u8)
                .collect(),
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

    /// The head of a WebSocket's answer: how many bytes it has, once it is there.
    fn upgraded(input: &[u8]) -> Result<Option<usize>, LoadError> {
        let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            let answer = String::from_utf8_lossy(&input[..end]).into_owned();
            return Err(LoadError::Unexpected(answer));
        }
        Ok(Some(end + 4))
    }

    // --- out ---

    fn msg_id(&self, client: usize, number: u64, due_ns: u64) -> ClientMsgId {
        let mut random = [0; 10];
        random[..3].copy_from_slice(&self.run);
        random[3..6].copy_from_slice(&(client as u32).to_be_bytes()[1..]);
        random[6..].copy_from_slice(&(number as u32).to_be_bytes());
        ClientMsgId::new(self.epoch_ms + due_ns / MS_NS, random)
    }

    fn stamp(&mut self, message: Message) {
        self.body[..8].copy_from_slice(&message.due_ns.to_le_bytes());
        self.body[8..12].copy_from_slice(&(message.number as u32).to_le_bytes());
    }

    fn put_send(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let target: (u32, &str) = match &self.talk {
            Talk::Group(id) => (3, id),
            _ => (2, self.logins[client ^ 1].user.as_str()),
        };
        let id = self.msg_id(client, message.number, message.due_ns);
        let predecessor = message
            .follows_due_ns
            .map(|due_ns| self.msg_id(client, message.number - 1, due_ns));
        let bytes = bytes_len(target.0, target.1.len())
            + bytes_len(4, MSG_ID_BYTES)
            + predecessor.map_or(0, |_| bytes_len(5, MSG_ID_BYTES))
            + bytes_len(7, self.body.len());
        put_number(field::ID, packet_id(message), out);
        put_head(field::SEND, bytes, out);
        put_bytes(target.0, target.1.as_bytes(), out);
        put_bytes(4, id.as_bytes(), out);
        if let Some(predecessor) = predecessor {
            put_bytes(5, predecessor.as_bytes(), out);
        }
        put_bytes(7, &self.body, out);
    }

    fn put_request(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let Talk::Request(service) = &self.talk else {
            return;
        };
        let key = (client as u32).to_be_bytes();
        let bytes =
            bytes_len(1, service.len()) + bytes_len(2, key.len()) + bytes_len(3, self.body.len());
        put_number(field::ID, packet_id(message), out);
        put_head(field::REQUEST, bytes, out);
        put_bytes(1, service.as_bytes(), out);
        put_bytes(2, &key, out);
        put_bytes(3, &self.body, out);
    }

    /// What the gateway would make of a message to a group, for the bare server.
    fn put_notice(&self, client: usize, message: Message, out: &mut Vec<u8>) {
        let Talk::Group(group) = &self.talk else {
            return;
        };
        let seq = message.number + 1;
        let sender = self.logins[client].user.as_str();
        let content = bytes_len(2, self.body.len());
        // Message id and time, of which nobody takes notice, have their usual lengths.
        let entry = bytes_len(1, group.len())
            + number_len(2, seq)
            + 9
            + bytes_len(4, sender.len())
            + bytes_len(5, MSG_ID_BYTES)
            + number_len(6, self.epoch_ms)
            + bytes_len(7, content);
        let notice = number_len(1, seq)
            + bytes_len(2, group.len())
            + number_len(3, seq)
            + bytes_len(4, entry);
        put_head(field::GROUP_NOTICE, notice, out);
        put_number(1, seq, out);
        put_bytes(2, group.as_bytes(), out);
        put_number(3, seq, out);
        put_head(4, entry, out);
        put_bytes(1, group.as_bytes(), out);
        put_number(2, seq, out);
        out.push(3 << 3 | 1);
        out.extend(message.due_ns.to_le_bytes());
        put_bytes(4, sender.as_bytes(), out);
        put_bytes(5, self.msg_id(client, seq, message.due_ns).as_bytes(), out);
        put_number(6, self.epoch_ms, out);
        put_head(7, content, out);
        put_bytes(2, &self.body, out);
    }

    fn put_push_ack(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        // To whom the bare server's would go, nobody wants them.
        if std::mem::take(&mut member.untold) == 0 || self.is_bare {
            return;
        }
        let pushes = member.pushes;
        let ranges = || pushes.ranges().take(PUSH_ACK_RANGES_MAX);
        self.transport.frame(out, |out| {
            // Packed numbers need their length first; these are few, and rare.
            let mut packed = Vec::new();
            for number in ranges().flat_map(|(first, last)| [first + 1, last + 1]) {
                put_varint(number, &mut packed);
            }
            let ranges_len = match packed.len() {
                0 => 0,
                bytes => bytes_len(2, bytes),
            };
            let bytes = number_len(1, pushes.next()) + ranges_len;
            put_head(field::PUSH_ACK, bytes, out);
            put_number(1, pushes.next(), out);
            if !packed.is_empty() {
                put_bytes(2, &packed, out);
            }
        });
    }

    fn put_pull(&mut self, client: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        member.pulls = member.pulls.saturating_add(1);
        let after = member.inbox.next();
        self.transport.frame(out, |out| {
            put_number(field::ID, PULL_ID, out);
            if let Talk::Group(id) = &self.talk {
                let bytes = bytes_len(1, id.len()) + number_len(2, after);
                put_head(field::SYNC_CONVERSATION, bytes, out);
                put_bytes(1, id.as_bytes(), out);
                put_number(2, after, out);
                return;
            }
            put_head(field::SYNC_INBOX, number_len(1, after), out);
            put_number(1, after, out);
        });
    }

    // --- in ---

    fn take_packet(
        &mut self,
        client: usize,
        payload: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), LoadError> {
        let mut id = 0;
        for (tag, value) in Fields(payload) {
            let body = match value {
                Value::Number(number) if tag == field::ID => {
                    id = number;
                    continue;
                }
                Value::Number(_) => continue,
                Value::Bytes(bytes) => Fields(bytes),
            };
            match tag {
                field::CONNECT_ACK => self.connected(client, body, out, heard),
                field::PING if self.is_bare && !self.members[client].is_ready => {
                    self.members[client].is_ready = true;
                    heard.push(Heard::Ready {
                        window: u32::MAX,
                        heartbeat_interval_ms: 0,
                    });
                }
                // The bare server echoes the ping itself.
                field::PONG | field::PING | field::RESPONSE => answered(tag, id, body, heard),
                field::SEND_ACK => {
                    let member = &mut self.members[client];
                    let in_group = matches!(self.talk, Talk::Group(_));
                    let position = if in_group { 4 } else { 5 };
                    take_position(&mut member.inbox, body.number(position));
                    if let Some(number) = number_of(body.bytes(1)) {
                        heard.push(Heard::Acked { number });
                    }
                }
                field::PUSH | field::GROUP_NOTICE => {
                    let entry_field = if tag == field::PUSH { 3 } else { 4 };
                    self.pushed(client, tag, body, entry_field, out, heard);
                }
                field::INBOX_PAGE | field::CONVERSATION_PAGE => {
                    self.pulled(client, tag, body, out, heard);
                }
                field::HEADS_PAGE => self.answered_pull(client, heard),
                field::OVERFLOW | field::RESYNC => {
                    heard.push(Heard::Overflowed);
                    self.put_pull(client, out);
                }
                field::BUSY => heard.push(refused(id, body.number(1) as u32)),
                field::ERROR => self.failed(client, id, body, heard)?,
                field::KICK => {
                    let error = format!("kicked, reason {}", body.number(1));
                    return Err(LoadError::Unexpected(error));
                }
                field::GO_AWAY => return Err(LoadError::Closed),
                _ => {}
            }
        }
        Ok(())
    }

    fn connected(
        &mut self,
        client: usize,
        ack: Fields<'_>,
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) {
        let member = &mut self.members[client];
        let was_here = std::mem::replace(&mut member.is_ready, true);
        member.pushes = Sequence::default();
        member.untold = 0;
        heard.push(Heard::Ready {
            window: ack.number(7) as u32,
            heartbeat_interval_ms: ack.number(4) as u32,
        });
        if was_here {
            member.pulls = 0;
            self.put_pull(client, out);
            if matches!(self.talk, Talk::Idle) {
                self.put_heads(client, out);
            }
            return;
        }
        member.inbox = Sequence::start_at(match self.talk {
            Talk::Group(_) => FOUNDED_SEQ,
            _ => ack.number(11),
        });
    }

    fn pushed(
        &mut self,
        client: usize,
        tag: u32,
        push: Fields<'_>,
        entry_field: u32,
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) {
        if self.is_bare && client == 0 {
            // Said to all others before.
            let stamp = stamp_of(push.message(entry_field).message(7).bytes(2));
            heard.extend(stamp.map(|(_, number)| Heard::Acked { number }));
            return;
        }
        let member = &mut self.members[client];
        if let Some(number) = push.number(1).checked_sub(1) {
            member.untold += 1;
            // Farther ahead than is kept: what is missing was given up by the server.
            if member.pushes.take(number) == Came::TooFar {
                member.pushes = Sequence::start_at(number + 1);
            }
        }
        let position = if tag == field::PUSH { 2 } else { 3 };
        take_position(&mut member.inbox, push.number(position));
        hear_entry(push.message(entry_field), heard);
        if member.untold >= TOLD_AT_ONCE {
            self.put_push_ack(client, out);
        }
    }

    fn pulled(
        &mut self,
        client: usize,
        tag: u32,
        page: Fields<'_>,
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) {
        let member = &mut self.members[client];
        let is_inbox = tag == field::INBOX_PAGE;
        let (entries, more) = if is_inbox { (1, 3) } else { (2, 5) };
        for (tag, value) in page {
            let Value::Bytes(entry) = value else {
                continue;
            };
            if tag != entries {
                continue;
            }
            let entry = Fields(entry);
            // The inbox wraps its entries, with its own seq before each.
            let position = entry.number(if is_inbox { 1 } else { 2 });
            take_position(&mut member.inbox, position);
            hear_entry(if is_inbox { entry.message(2) } else { entry }, heard);
        }
        if page.number(more) > 0 {
            let member = &mut self.members[client];
            member.pulls = member.pulls.saturating_sub(1);
            self.put_pull(client, out);
        } else {
            self.answered_pull(client, heard);
        }
    }

    fn put_heads(&mut self, client: usize, out: &mut Vec<u8>) {
        self.members[client].pulls += 1;
        self.transport.frame(out, |out| {
            put_number(field::ID, PULL_ID, out);
            put_head(field::SYNC_HEADS, 0, out);
        });
    }

    fn answered_pull(&mut self, client: usize, heard: &mut Vec<Heard>) {
        let member = &mut self.members[client];
        let was = member.pulls;
        member.pulls = was.saturating_sub(1);
        if was == 1 {
            heard.push(Heard::Synced);
        }
    }

    fn failed(
        &mut self,
        client: usize,
        id: u64,
        error: Fields<'_>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), LoadError> {
        let code = error.number(1) as i32;
        let known = ErrorCode::try_from(code).unwrap_or_default();
        if known == ErrorCode::OutOfOrder {
            heard.push(refused(id, SETBACK_MS));
            return Ok(());
        }
        if self.members[client].is_ready && id >> ID_SHIFT > 0 {
            heard.push(Heard::Failed {
                number: (id >> ID_SHIFT) - 1,
                code: code as u32,
            });
            return Ok(());
        }
        let reason = String::from_utf8_lossy(error.bytes(2)).into_owned();
        let code = known.as_str_name();
        Err(LoadError::Refused { code, reason })
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
            LoadTransport::Tcp => self.log_in(client, out),
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
                self.stamp(message);
                transport.frame(out, |out| self.put_notice(client, message, out));
            }
            Talk::Pairs | Talk::Group(_) => {
                self.stamp(message);
                transport.frame(out, |out| self.put_send(client, message, out));
            }
            Talk::Request(_) => {
                self.stamp(message);
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

/// Tells a message and which attempt it is; from 256 on.
fn packet_id(message: Message) -> u64 {
    (message.number + 1) << ID_SHIFT | u64::from(message.attempt)
}

fn refused(id: u64, after_ms: u32) -> Heard {
    Heard::Refused {
        number: (id >> ID_SHIFT).saturating_sub(1),
        attempt: id as u8,
        after_ms,
    }
}

fn answered(tag: u32, id: u64, body: Fields<'_>, heard: &mut Vec<Heard>) {
    let Some(number) = (id >> ID_SHIFT).checked_sub(1) else {
        return;
    };
    heard.push(match body.number(1) as u32 {
        // A pong's first field is the server's time.
        code if tag == field::RESPONSE && code > 0 => Heard::Failed { number, code },
        _ => Heard::Acked { number },
    });
}

/// A seq counts from 1, and 0 is none.
fn take_position(inbox: &mut Sequence, seq: u64) {
    if let Some(number) = seq.checked_sub(1) {
        // What is too far ahead comes again by the pull that fills the hole.
        inbox.take(number);
    }
}

fn hear_entry(entry: Fields<'_>, heard: &mut Vec<Heard>) {
    if let Some((due_ns, number)) = stamp_of(entry.message(7).bytes(2)) {
        heard.push(Heard::Received { number, due_ns });
    }
}

/// When the message with this body was due, by the monotonic clock.
pub fn due_ns_of(body: &[u8]) -> Option<u64> {
    stamp_of(body).map(|(due_ns, _)| due_ns)
}

fn stamp_of(body: &[u8]) -> Option<(u64, u64)> {
    let (due_ns, rest) = body.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let number = u32::from_le_bytes(*number);
    Some((u64::from_le_bytes(*due_ns), number.into()))
}

/// The last bytes of a message id of this generator.
fn number_of(msg_id: &[u8]) -> Option<u64> {
    let number = msg_id.last_chunk()?;
    Some(u32::from_be_bytes(*number).into())
}
