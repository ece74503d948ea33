//! What a session hears: packets walked field by field.

use sluice_protocol::packet::ErrorCode;

use super::{FOUNDED_SEQ, ID_SHIFT, SETBACK_MS, Session, TOLD_AT_ONCE, Talk, field};
use crate::{
    LoadError,
    body::stamp_of,
    driver::Heard,
    fields::{Fields, Value},
    sequence::{Came, Sequence},
};

// === impl Session ===

impl Session {
    /// The head of a WebSocket's answer: how many bytes it has, once it is there.
    pub(super) fn upgraded(input: &[u8]) -> Result<Option<usize>, LoadError> {
        let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            let answer = String::from_utf8_lossy(&input[..end]).into_owned();
            return Err(LoadError::Unexpected(answer));
        }
        Ok(Some(end + 4))
    }

    pub(super) fn take_packet(
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
                field::GO_AWAY => {
                    let error = format!("sent away, reason {}", body.number(1));
                    return Err(LoadError::Unexpected(error));
                }
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

/// The last bytes of a message id of this generator.
fn number_of(msg_id: &[u8]) -> Option<u64> {
    let number = msg_id.last_chunk()?;
    Some(u32::from_be_bytes(*number).into())
}
