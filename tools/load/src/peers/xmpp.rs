//! XMPP (RFC 6120, 6121) without TLS: SASL PLAIN (RFC 4616), one resource, and stream
//! management (XEP-0198), by which a server says how many stanzas it has taken on. It is
//! asked for that at the end of each batch of messages; its word is their ack. What the
//! server does before it says so is its configuration's affair: an archive (XEP-0313) is
//! among it.

mod element;

use std::io::Write as _;

use super::{HEARTBEAT_INTERVAL_MS, PeerError, WINDOW};
use crate::{
    LoadError, Login,
    driver::{Driver, Heard, Message},
};

use element::{Element, first_element};

/// See the module.
pub(crate) struct Xmpp {
    logins: Vec<Login>,
    members: Vec<Member>,
    /// What follows a message's stamp.
    letters: String,
}

#[derive(Default)]
struct Member {
    stage: Stage,
    /// Stanzas that it has sent since stream management was enabled, and those of them
    /// that the server has taken on.
    sent: u64,
    taken: u64,
    /// Stanzas that it was sent since then.
    heard: u32,
    /// It has sent stanzas and hasn't asked for their ack.
    is_asking: bool,
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// It has opened a stream and waits for its features.
    #[default]
    Fresh,
    /// It has told its password.
    Authenticating,
    /// It has opened a stream as somebody.
    Binding,
    /// Stream management is on, and its presence under way.
    Arriving,
    /// Who writes to it reaches it.
    Ready,
}

const HOST: &str = "localhost";
const RESOURCE: &str = "bench";
const STREAM: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const PRESENCE: &str = "<presence/>";
const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";
/// Stanzas before the first message: the presence.
const BEFORE_MESSAGES: u64 = 1;

/// Sixteen hexadecimal digits of a due time, and eight of a number.
const DUE_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 8;
const STAMP_BYTES: usize = DUE_DIGITS + NUMBER_DIGITS;

// === impl Xmpp ===

impl Xmpp {
    /// Clients that are these users.
    pub(crate) fn new(logins: Vec<Login>, body_bytes: usize) -> Self {
        let letters = (STAMP_BYTES..body_bytes).map(|at| char::from(b'a' + (at % 26) as u8));
        Self {
            members: logins.iter().map(|_| Member::default()).collect(),
            logins,
            letters: letters.collect(),
        }
    }

    fn take_element(
        &mut self,
        client: usize,
        element: &Element<'_>,
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), PeerError> {
        let member = &mut self.members[client];
        match (element.name, member.stage) {
            ("stream:stream", _) => {}
            ("stream:features", Stage::Fresh) => {
                member.stage = Stage::Authenticating;
                put_auth(&self.logins[client], out);
            }
            ("success", Stage::Authenticating) => {
                member.stage = Stage::Binding;
                put_arrival(out);
            }
            ("stream:features", Stage::Binding) => {}
            ("iq", Stage::Binding) if element.attribute("type") == Some("result") => {}
            ("enabled", Stage::Binding) => member.stage = Stage::Arriving,
            ("a", _) => member.took(element, heard)?,
            ("r", _) => put_answer(member.heard, out),
            ("message", Stage::Arriving | Stage::Ready) => {
                member.heard = member.heard.wrapping_add(1);
                heard.extend(came(element)?);
            }
            ("presence" | "iq", Stage::Arriving | Stage::Ready) => {
                member.heard = member.heard.wrapping_add(1);
            }
            ("failure" | "failed" | "stream:error" | "iq", _) => {
                return Err(PeerError::Refused {
                    what: "what a client has to have",
                    reason: element.text.to_owned(),
                });
            }
            (other, stage) => {
                return Err(PeerError::Unexpected(format!("<{other}> when {stage:?}")));
            }
        }
        Ok(())
    }
}

impl Driver for Xmpp {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        self.members[client] = Member::default();
        out.extend_from_slice(STREAM.as_bytes());
        Ok(())
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        let member = &mut self.members[client];
        member.sent += 1;
        member.is_asking = true;
        let peer = self.logins[client ^ 1].user.as_str();
        let (number, due_ns) = (message.number, message.due_ns);
        // Into a vector nothing fails.
        let _ = write!(
            out,
            "<message to='{peer}@{HOST}' type='chat' id='{number}'>\
             <body>{due_ns:016x}{:08x}{}</body></message>",
            number as u32, self.letters
        );
    }

    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        while let Some((element, bytes)) = first_element(&input[used..])? {
            self.take_element(client, &element, out, heard)?;
            used += bytes;
        }
        Ok(used)
    }

    fn gathered(&mut self, client: usize, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.members[client].is_asking) {
            out.extend_from_slice(ASK.as_bytes());
        }
    }

    fn keep_alive(&mut self, _client: usize, out: &mut Vec<u8>) {
        // RFC 6120, section 4.6.1.
        out.push(b' ');
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

// === impl Member ===

impl Member {
    /// `<a h='…'/>`: the server has taken on so many stanzas, modulo 2^32.
    fn took(&mut self, element: &Element<'_>, heard: &mut Vec<Heard>) -> Result<(), PeerError> {
        const MALFORMED: PeerError = PeerError::Malformed("<a/>");
        let count: u32 = element
            .attribute("h")
            .and_then(|count| count.parse().ok())
            .ok_or(MALFORMED)?;
        if self.stage == Stage::Arriving {
            self.stage = Stage::Ready;
            self.sent = BEFORE_MESSAGES;
            heard.push(Heard::Ready {
                window: WINDOW,
                heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            });
        }
        let more = u64::from(count.wrapping_sub(self.taken as u32));
        let taken = self.taken + more;
        if taken > self.sent {
            let what = format!("an ack of {taken} stanzas after {}", self.sent);
            return Err(PeerError::Unexpected(what));
        }
        let first = self.taken.max(BEFORE_MESSAGES);
        heard.extend((first..taken).map(|stanza| Heard::Acked {
            number: stanza - BEFORE_MESSAGES,
        }));
        self.taken = taken;
        Ok(())
    }
}

/// What a message means: the other's, or one's own that couldn't be delivered.
fn came(element: &Element<'_>) -> Result<Option<Heard>, PeerError> {
    if element.attribute("type") == Some("error") {
        let number = element.attribute("id").and_then(|id| id.parse().ok());
        let number = number.ok_or(PeerError::Malformed("a bounce"))?;
        return Ok(Some(Heard::Failed { number, code: 0 }));
    }
    let Some(body) = element.text_of("body") else {
        return Ok(None);
    };
    let stamp = body.split_at_checked(DUE_DIGITS).and_then(|(due, rest)| {
        let due_ns = u64::from_str_radix(due, 16).ok()?;
        let number = u64::from_str_radix(rest.get(..NUMBER_DIGITS)?, 16).ok()?;
        Some(Heard::Received { number, due_ns })
    });
    stamp.map(Some).ok_or(PeerError::Malformed("a message"))
}

fn put_auth(login: &Login, out: &mut Vec<u8>) {
    let plain = format!("\0{}\0{}", login.user, login.token);
    out.extend_from_slice(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>");
    put_base64(plain.as_bytes(), out);
    out.extend_from_slice(b"</auth>");
}

/// All that follows a login at once: the server takes it in order. Whoever's presence it
/// has taken on is reached by messages.
fn put_arrival(out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "{STREAM}<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{RESOURCE}</resource></bind></iq><enable xmlns='urn:xmpp:sm:3'/>{PRESENCE}{ASK}"
    );
}

fn put_answer(heard: u32, out: &mut Vec<u8>) {
    let _ = write!(out, "<a xmlns='urn:xmpp:sm:3' h='{heard}'/>");
}

/// RFC 4648, section 4.
fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..][..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(bits);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 0x3f) as usize];
            out.push(if at <= three.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests;
