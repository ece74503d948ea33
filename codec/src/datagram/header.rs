//! The head of a datagram, which is all that is read before anything is opened.
//!
//! ```text
//! session     0 1 c k 0 0 n n │ connection id, 8 bytes, if c │ number, n+1 bytes │ sealed │ tag
//! handshake   1 0 0 0 0 t t t │ version │ attempt, 8 bytes │ …
//! reset       1 0 0 0 0 1 1 1 │ reset token, 16 bytes
//! ```
//!
//! `c`: a connection id follows (client to server, always; server to client,
//! never: a client has one session a socket). `k`: the phase of the key. `n`:
//! bytes of the packet number, less one.

use super::{ConnectionId, ResetToken, TruncatedNumber};

/// Version of the datagram session that this crate speaks.
pub const VERSION: u8 = 1;

const SESSION: u8 = 0b0100_0000;
const HAS_CONNECTION_ID: u8 = 0b0010_0000;
const KEY_PHASE: u8 = 0b0001_0000;
const RESERVED: u8 = 0b1000_1100;
const NUMBER_BYTES: u8 = 0b0000_0011;
const HANDSHAKE: u8 = 0b1000_0000;
const HANDSHAKE_KIND: u8 = 0b0000_0111;
const RESET_KIND: u8 = 7;

/// The head of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// For the [`super::Acceptor`] or the [`super::Connector`].
    Handshake(HandshakeHeader),
    /// A sealed packet of a session.
    Session(SessionHeader),
    /// The server does not know the session; to be compared with the token that
    /// it told the client when the session began.
    Reset(ResetToken),
}

/// The head of a packet that belongs to no session yet; also of other versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeHeader {
    /// What it is.
    pub kind: HandshakeKind,
    /// What the sender speaks; 0 in [`HandshakeKind::Versions`].
    pub version: u8,
    /// Chosen by the client at random; in every answer, so that only who sees
    /// what it sends can answer.
    pub attempt: [u8; Self::ATTEMPT_BYTES],
}

/// What a handshake packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeKind {
    /// Client: asks for a cookie. Padded.
    Hello,
    /// Server: the cookie, and which keys it has.
    Cookie,
    /// Client: a cookie or ticket, and the first Noise message. Padded.
    Knock,
    /// Server: the second Noise message; the session exists.
    Welcome,
    /// Server: which versions it speaks.
    Versions,
    /// Server: it has no room for more sessions.
    Busy,
}

/// The head of a sealed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHeader {
    /// In packets to the server.
    pub connection_id: Option<ConnectionId>,
    /// Flips with each key of the sender.
    pub key_phase: bool,
    /// As far as it travels.
    pub number: TruncatedNumber,
}

/// A datagram that is none; it gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It ends before its head does.
    #[error("the datagram is too short for its header")]
    Short,
    /// Bits that have no meaning in this version.
    #[error("the first byte of the datagram is none of a session's")]
    Unknown,
}

// === impl Header ===

impl Header {
    /// Reads the head of a datagram.
    ///
    /// # Errors
    /// It is none of ours, or cut off. Drop it.
    pub fn parse(datagram: &[u8]) -> Result<Self, HeaderError> {
        let (&first, rest) = datagram.split_first().ok_or(HeaderError::Short)?;
        if first & HANDSHAKE == 0 {
            return SessionHeader::parse(first, rest).map(Self::Session);
        }
        if first & !(HANDSHAKE | HANDSHAKE_KIND) != 0 {
            return Err(HeaderError::Unknown);
        }
        if first & HANDSHAKE_KIND == RESET_KIND {
            let token = rest.first_chunk().ok_or(HeaderError::Short)?;
            return Ok(Self::Reset(ResetToken::from_bytes(*token)));
        }
        HandshakeHeader::parse(first, rest).map(Self::Handshake)
    }
}

// === impl HandshakeHeader ===

impl HandshakeHeader {
    /// Of [`HandshakeHeader::attempt`].
    pub const ATTEMPT_BYTES: usize = 8;
    /// Of the whole head.
    pub const BYTES: usize = 2 + Self::ATTEMPT_BYTES;

    fn parse(first: u8, rest: &[u8]) -> Result<Self, HeaderError> {
        let kind = match first & HANDSHAKE_KIND {
            0 => HandshakeKind::Hello,
            1 => HandshakeKind::Cookie,
            2 => HandshakeKind::Knock,
            3 => HandshakeKind::Welcome,
            4 => HandshakeKind::Versions,
            5 => HandshakeKind::Busy,
            _ => return Err(HeaderError::Unknown),
        };
        let (&version, rest) = rest.split_first().ok_or(HeaderError::Short)?;
        let attempt = *rest.first_chunk().ok_or(HeaderError::Short)?;
        Ok(Self {
            kind,
            version,
            attempt,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let [first, version, attempt @ ..] = &mut bytes;
        *first = HANDSHAKE | self.kind as u8;
        *version = self.version;
        *attempt = self.attempt;
        bytes
    }
}

// === impl SessionHeader ===

impl SessionHeader {
    /// With a connection id and the longest number.
    pub const MAX_BYTES: usize = 1 + ConnectionId::BYTES + 4;

    fn parse(first: u8, rest: &[u8]) -> Result<Self, HeaderError> {
        if first & SESSION == 0 || first & RESERVED != 0 {
            return Err(HeaderError::Unknown);
        }
        let (connection_id, rest) = if first & HAS_CONNECTION_ID == 0 {
            (None, rest)
        } else {
            let (id, rest) = rest.split_first_chunk().ok_or(HeaderError::Short)?;
            (Some(ConnectionId::from_bytes(*id)), rest)
        };
        let number_bytes = usize::from(first & NUMBER_BYTES) + 1;
        let number = rest.get(..number_bytes).ok_or(HeaderError::Short)?;
        Ok(Self {
            connection_id,
            key_phase: first & KEY_PHASE != 0,
            number: TruncatedNumber::from_wire(number),
        })
    }

    /// Bytes on the wire.
    pub const fn len(&self) -> usize {
        let id = if self.connection_id.is_some() {
            ConnectionId::BYTES
        } else {
            0
        };
        1 + id + self.number.len()
    }

    /// Never.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes it to the start of `out`, as far as there is room.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let mut first = SESSION | (self.number.len() as u8).saturating_sub(1);
        if self.key_phase {
            first |= KEY_PHASE;
        }
        let id = self.connection_id.as_ref().map(ConnectionId::as_bytes);
        if id.is_some() {
            first |= HAS_CONNECTION_ID;
        }
        let number = self.number.to_be_bytes();
        let id = id.into_iter().flatten();
        let number = number.iter().skip(4 - self.number.len());
        for (to, from) in out.iter_mut().zip([first].iter().chain(id).chain(number)) {
            *to = *from;
        }
    }
}

/// Of a reset.
pub(crate) const RESET_FIRST_BYTE: u8 = HANDSHAKE | RESET_KIND;
