//! The packets before a session, as bytes.
//!
//! ```text
//! Hello     header │ zeros up to 1,200 bytes
//! Cookie    header │ cookie, 16 │ count of keys, 1 │ their hints, 4 each
//! Knock     header │ hint, 4 │ 0, cookie, 16  or  1, ticket, 36 │ first Noise message, 48 │ zeros up to 1,200 bytes
//! Welcome   header │ second Noise message, 108: connection id, 8, reset token, 16, and ticket, 36, sealed
//! Versions  header │ count, 1 │ versions, 1 each
//! Busy      header │ milliseconds to wait, 4, big-endian
//! ```
//!
//! No length is told by a packet, so none can be a lie, but for the two counts,
//! which must fit what is there. What follows is passed over, but behind a Welcome,
//! whose Noise message is the rest of the datagram.

use std::ops::Deref;

use super::{
    AddressTicket, ConnectionId, HandshakeHeader, HandshakeKind, ResetToken, ServerPin, VERSION,
    cookie::Cookie, noise,
};

/// A client's packets before the session have so many bytes at least: no answer
/// is larger, and the session's smallest datagram has shown to fit the way.
pub const HELLO_BYTES: usize = 1200;
/// The largest answer of a server.
pub const ANSWER_MAX_BYTES: usize = HandshakeHeader::BYTES + WELCOME_BYTES;

/// Of the second Noise message, with its payload.
pub(crate) const WELCOME_BYTES: usize = noise::SECOND_OVERHEAD_BYTES + WelcomePayload::BYTES;

const COOKIE: u8 = 0;
const TICKET: u8 = 1;

/// A short packet of the server, for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; ANSWER_MAX_BYTES],
    len: usize,
}

/// What shows that the client receives at its address, or did lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Cookie(Cookie),
    Ticket(AddressTicket),
}

/// The body of a Knock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnockBody {
    pub(crate) hint: [u8; ServerPin::HINT_BYTES],
    pub(crate) proof: Proof,
    pub(crate) noise: [u8; noise::FIRST_BYTES],
}

/// The body of a Cookie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CookieBody<'a> {
    pub(crate) cookie: Cookie,
    pub(crate) hints: &'a [[u8; ServerPin::HINT_BYTES]],
}

/// What the second Noise message tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WelcomePayload {
    pub(crate) connection_id: ConnectionId,
    pub(crate) reset_token: ResetToken,
    /// For the client's next session.
    pub(crate) ticket: AddressTicket,
}

// === impl Answer ===

impl Answer {
    /// The parts, one after the other; what is longer than any answer is cut.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut answer = Self {
            bytes: [0; ANSWER_MAX_BYTES],
            len: 0,
        };
        let from = parts.iter().copied().flatten();
        for (to, from) in answer.bytes.iter_mut().zip(from) {
            *to = *from;
            answer.len += 1;
        }
        answer
    }

    /// `hints` are those of all keys, one after the other.
    pub(crate) fn cookie(attempt: [u8; 8], cookie: &Cookie, hints: &[u8]) -> Self {
        let header = header(HandshakeKind::Cookie, VERSION, attempt);
        // A server has 4 keys at most.
        let count = (hints.len() / ServerPin::HINT_BYTES) as u8;
        Self::of(&[&header, cookie.as_bytes(), &[count], hints])
    }

    pub(crate) fn versions(attempt: [u8; 8]) -> Self {
        let header = header(HandshakeKind::Versions, 0, attempt);
        Self::of(&[&header, &[1, VERSION]])
    }

    pub(crate) fn busy(attempt: [u8; 8], retry_after_ms: u32) -> Self {
        let header = header(HandshakeKind::Busy, VERSION, attempt);
        Self::of(&[&header, &retry_after_ms.to_be_bytes()])
    }

    pub(crate) fn welcome(attempt: [u8; 8], noise: &[u8; WELCOME_BYTES]) -> Self {
        Self::of(&[&header(HandshakeKind::Welcome, VERSION, attempt), noise])
    }
}

impl Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

// === impl KnockBody ===

impl KnockBody {
    /// `None`: it is none.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let (hint, body) = body.split_first_chunk()?;
        let (proof, body) = match body.split_first()? {
            (&COOKIE, body) => {
                let (cookie, body) = body.split_first_chunk()?;
                (Proof::Cookie(Cookie::from_bytes(*cookie)), body)
            }
            (&TICKET, body) => {
                let (ticket, body) = body.split_first_chunk()?;
                (Proof::Ticket(AddressTicket::from_bytes(*ticket)), body)
            }
            _ => return None,
        };
        let noise = *body.first_chunk()?;
        Some(Self {
            hint: *hint,
            proof,
            noise,
        })
    }

    /// Fills `out` behind the header, with zeros after what there is to say.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let (kind, proof): (u8, &[u8]) = match &self.proof {
            Proof::Cookie(cookie) => (COOKIE, cookie.as_bytes()),
            Proof::Ticket(ticket) => (TICKET, ticket.as_bytes()),
        };
        write_all(out, &[&self.hint, &[kind], proof, &self.noise]);
    }
}

// === impl CookieBody ===

impl<'a> CookieBody<'a> {
    /// `None`: it is none.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let (cookie, body) = body.split_first_chunk()?;
        let (&count, body) = body.split_first()?;
        let (hints, _) = body.as_chunks();
        let hints = hints.get(..usize::from(count))?;
        Some(Self {
            cookie: Cookie::from_bytes(*cookie),
            hints,
        })
    }
}

// === impl WelcomePayload ===

impl WelcomePayload {
    pub(crate) const BYTES: usize = ConnectionId::BYTES + ResetToken::BYTES + AddressTicket::BYTES;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        write_all(
            &mut bytes,
            &[
                self.connection_id.as_bytes(),
                self.reset_token.as_bytes(),
                self.ticket.as_bytes(),
            ],
        );
        bytes
    }

    /// `None`: it is none. What follows is for later versions.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (id, payload) = payload.split_first_chunk()?;
        let (token, payload) = payload.split_first_chunk()?;
        let ticket = payload.first_chunk()?;
        Some(Self {
            connection_id: ConnectionId::from_bytes(*id),
            reset_token: ResetToken::from_bytes(*token),
            ticket: AddressTicket::from_bytes(*ticket),
        })
    }
}

/// What both sides hash before the first Noise message, so that neither version
/// nor attempt can be changed on the way.
pub(crate) fn prologue(attempt: [u8; 8]) -> [u8; PROLOGUE_BYTES] {
    let mut prologue = [0; PROLOGUE_BYTES];
    let header = header(HandshakeKind::Knock, VERSION, attempt);
    write_all(&mut prologue, &[PROLOGUE_NAME, &header]);
    prologue
}

const PROLOGUE_NAME: &[u8; 15] = b"sluice datagram";
const PROLOGUE_BYTES: usize = PROLOGUE_NAME.len() + HandshakeHeader::BYTES;

pub(crate) fn header(
    kind: HandshakeKind,
    version: u8,
    attempt: [u8; 8],
) -> [u8; HandshakeHeader::BYTES] {
    HandshakeHeader {
        kind,
        version,
        attempt,
    }
    .to_bytes()
}

/// The parts one after the other, then zeros.
fn write_all(out: &mut [u8], parts: &[&[u8]]) {
    let from = parts.iter().copied().flatten().copied();
    for (to, from) in out.iter_mut().zip(from.chain(std::iter::repeat(0))) {
        *to = from;
    }
}
