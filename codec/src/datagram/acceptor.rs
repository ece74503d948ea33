//! The server's side before a session: answers, and keeps nothing.
//!
//! ```text
//! client                                server
//! Hello, 1,200 bytes              ─▶    nothing is kept
//!                                 ◀─    Cookie
//! Knock (cookie, Noise message 1) ─▶    session by its connection id, unless it exists
//!                                 ◀─    Welcome (Noise message 2: connection id, reset token, ticket)
//! first sealed packet: login      ─▶    the session is confirmed
//! ```
//!
//! A client with a [`super::AddressTicket`] begins with the Knock. Every answer is
//! shorter than what it answers.
//!
//! A Knock has no payload, and nothing follows from it but a session that nobody
//! has confirmed. Its connection id is a keyed hash of the client's address and
//! ephemeral key, so that a Knock that comes twice (resent or replayed) names the
//! session that exists, and gets the answer that the session keeps until it is
//! confirmed. Where that session has ended meanwhile the replay makes another one
//! with other keys, since the server's ephemeral key is fresh; no packet of the
//! old one opens under them, so nothing said in it happens twice. It ends for want
//! of a confirmation; a client can bring about as much without a replay.

use std::net::{IpAddr, SocketAddr};

use super::{
    AddressTicket, ConnectionId, HandshakeHeader, HandshakeKind, Header, ResetToken, ServerKeys,
    SessionKeys, VERSION,
    cookie::{Cookie, ip_bytes},
    handshake::{Answer, HELLO_BYTES, KnockBody, Proof, WELCOME_BYTES, WelcomePayload, prologue},
    noise,
};

/// Answers the packets of an event loop that belong to no session yet.
#[derive(Debug, Clone)]
pub struct Acceptor {
    keys: ServerKeys,
    event_loop: u8,
}

/// What a packet amounts to.
#[derive(Debug)]
pub enum Arrival {
    /// To be sent to where the packet came from.
    Answer(Answer),
    /// Somebody who receives at this address wants a session.
    Knock(Knock),
    /// No answer.
    Drop(DropReason),
}

/// A client that receives at its address and wants a session: no costly step is
/// done yet. Whoever holds the sessions looks for [`Knock::connection_id`]:
/// where it is there and not confirmed, send [`Accepted::answer`] again; where it is
/// there and confirmed, drop the Knock; where it isn't, [`Acceptor::accept`] or
/// [`Acceptor::busy`].
#[derive(Debug, Clone)]
pub struct Knock {
    header: HandshakeHeader,
    body: KnockBody,
    connection_id: ConnectionId,
    peer: IpAddr,
    unix_ms: u64,
}

/// A new session.
#[derive(Debug)]
pub struct Accepted {
    /// For the session.
    pub keys: SessionKeys,
    /// The Welcome. To be sent now, and again whenever the Knock comes again, until
    /// the first packet of the session was opened.
    pub answer: Answer,
}

/// Why a packet gets no answer; a bounded label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// A client's packet of fewer than [`HELLO_BYTES`].
    #[error("short")]
    Short,
    /// It is no handshake packet, or one that only servers send.
    #[error("unexpected")]
    Unexpected,
    /// Its parts are none.
    #[error("malformed")]
    Malformed,
    /// Its Noise message was not made for this server's key.
    #[error("forged")]
    Forged,
}

// === impl Acceptor ===

impl Acceptor {
    /// For the event loop of this index, which connection ids will name.
    pub const fn new(keys: ServerKeys, event_loop: u8) -> Self {
        Self { keys, event_loop }
    }

    /// A fresh ticket for a client that has shown to be at this address, for
    /// [`super::ServerConnection::send_token`]; `nonce` is random.
    pub fn fresh_ticket(&self, address: IpAddr, unix_ms: u64, nonce: [u8; 12]) -> AddressTicket {
        AddressTicket::seal(&self.keys, address, unix_ms, nonce)
    }

    /// Takes a datagram whose [`Header`] is no session's, from `peer`.
    pub fn receive(&self, datagram: &[u8], peer: SocketAddr, unix_ms: u64) -> Arrival {
        let header = match Header::parse(datagram) {
            Ok(Header::Handshake(header)) => header,
            Ok(Header::Session(_) | Header::Reset(_)) | Err(_) => {
                return Arrival::Drop(DropReason::Unexpected);
            }
        };
        if !matches!(header.kind, HandshakeKind::Hello | HandshakeKind::Knock) {
            return Arrival::Drop(DropReason::Unexpected);
        }
        if datagram.len() < HELLO_BYTES {
            return Arrival::Drop(DropReason::Short);
        }
        if header.version != VERSION {
            return Arrival::Answer(Answer::versions(header.attempt));
        }
        if header.kind == HandshakeKind::Hello {
            return Arrival::Answer(self.cookie(&header, peer, unix_ms));
        }
        let body = datagram
            .get(HandshakeHeader::BYTES..)
            .and_then(KnockBody::parse);
        let Some(body) = body else {
            return Arrival::Drop(DropReason::Malformed);
        };
        let proven = match &body.proof {
            Proof::Cookie(cookie) => {
                cookie.holds(self.keys.cookie_secret(), peer, &header, unix_ms)
            }
            Proof::Ticket(ticket) => ticket.holds(&self.keys, peer.ip(), unix_ms),
        };
        if !proven || self.keys.by_hint(body.hint).is_none() {
            // What it lacks is in the answer: a fresh cookie, and the keys there are.
            return Arrival::Answer(self.cookie(&header, peer, unix_ms));
        }
        let connection_id = self.connection_id(peer, &body);
        Arrival::Knock(Knock {
            header,
            body,
            connection_id,
            peer: peer.ip(),
            unix_ms,
        })
    }

    /// Makes the session: four multiplications on the curve, about 0.2 ms.
    /// `ephemeral` is 32 fresh random bytes.
    ///
    /// # Errors
    /// [`DropReason::Forged`]: the Noise message is none for the key that it names.
    pub fn accept(
        &self,
        knock: &Knock,
        now_us: u64,
        ephemeral: [u8; 32],
    ) -> Result<Accepted, DropReason> {
        let key = self
            .keys
            .by_hint(knock.body.hint)
            .ok_or(DropReason::Malformed)?;
        let payload = WelcomePayload {
            connection_id: knock.connection_id,
            reset_token: ResetToken::of(knock.connection_id, self.keys.reset_secret()),
            ticket: self.ticket(knock),
        };
        let attempt = knock.header.attempt;
        let mut message = [0; WELCOME_BYTES];
        let split = noise::respond(
            key.secret(),
            &prologue(attempt),
            ephemeral,
            &knock.body.noise,
            &payload.to_bytes(),
            &mut message,
        );
        let split = split.map_err(|noise::Refused| DropReason::Forged)?;
        Ok(Accepted {
            keys: SessionKeys::of_server(knock.connection_id, split, now_us),
            answer: Answer::welcome(attempt, &message),
        })
    }

    /// Tells a client to come back later.
    pub fn busy(&self, knock: &Knock, retry_after_ms: u32) -> Answer {
        Answer::busy(knock.header.attempt, retry_after_ms)
    }

    /// The answer to a sealed packet of `datagram_bytes` bytes for a session that
    /// is unknown. Only the loop that the id names may give it, after it has
    /// looked: it ends the session for the client. `None`: the packet is no longer
    /// than the answer.
    pub fn reset(&self, unknown: ConnectionId, datagram_bytes: usize) -> Option<Answer> {
        let token = ResetToken::of(unknown, self.keys.reset_secret());
        let answer = Answer::of(&[&token.packet()]);
        (unknown.event_loop() == self.event_loop && datagram_bytes > answer.len()).then_some(answer)
    }

    /// For the client's next session. The nonce is used again only where the same
    /// session is made again in the same millisecond, for the same ticket.
    fn ticket(&self, knock: &Knock) -> AddressTicket {
        let id = knock.connection_id.as_bytes();
        let hash = self
            .keys
            .nonce_secret()
            .hash(&[id, &knock.unix_ms.to_be_bytes()]);
        let mut nonce = [0; 12];
        for (to, from) in nonce.iter_mut().zip(hash) {
            *to = from;
        }
        AddressTicket::seal(&self.keys, knock.peer, knock.unix_ms, nonce)
    }

    fn cookie(&self, header: &HandshakeHeader, peer: SocketAddr, unix_ms: u64) -> Answer {
        let cookie = Cookie::bake(self.keys.cookie_secret(), peer, header, unix_ms);
        Answer::cookie(header.attempt, &cookie, self.keys.hints())
    }

    fn connection_id(&self, peer: SocketAddr, body: &KnockBody) -> ConnectionId {
        let hash = self.keys.connection_secret().hash(&[
            &ip_bytes(peer.ip()),
            &peer.port().to_be_bytes(),
            &body.noise,
        ]);
        ConnectionId::new(self.event_loop, &hash)
    }
}

// === impl Knock ===

impl Knock {
    /// The name that the session has or would have.
    pub const fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// True if it was shown by a ticket, not by a cookie, that the client receives
    /// at its address: at its IP address that is, lately.
    pub const fn has_ticket(&self) -> bool {
        matches!(self.body.proof, Proof::Ticket(_))
    }
}
