//! The client's side before a session.

use super::{
    AddressTicket, ConnectionId, HandshakeHeader, HandshakeKind, Header, ResetToken, ServerPin,
    ServerPins, SessionKeys, VERSION,
    cookie::Cookie,
    handshake::{CookieBody, HELLO_BYTES, KnockBody, Proof, WelcomePayload, header, prologue},
    noise,
    secret::Secret,
};

/// When the first packet is sent again; doubles with each time.
pub const RESEND_FIRST_US: u64 = 333_000;
/// The longest time between two packets.
pub const RESEND_MAX_US: u64 = 2_000_000;
/// When a client gives up.
pub const CONNECT_TIMEOUT_US: u64 = 10_000_000;

/// Cookies that a client takes in one attempt. An honest server gives a second
/// one for a ticket that it refuses, or a cookie that came back too late.
const COOKIES_MAX: u8 = 4;

/// One attempt of a client to begin a session.
///
/// ```text
/// loop { transmit() until None ─▶ send; wait for a datagram or timeout(); receive() }
/// ```
#[derive(Debug)]
pub struct Connector {
    pins: ServerPins,
    attempt: [u8; HandshakeHeader::ATTEMPT_BYTES],
    ephemeral: Secret,
    knock: Option<Knocking>,
    cookies: u8,
    began_us: u64,
    flight: Flight,
    rtt_us: Option<u64>,
}

#[derive(Debug)]
struct Knocking {
    pin: ServerPin,
    noise: noise::Initiator,
    body: KnockBody,
}

/// The packet that is under way.
#[derive(Debug, Default)]
struct Flight {
    sends: u32,
    first_sent_us: u64,
    due_us: u64,
}

/// A session as its client has it.
#[derive(Debug)]
pub struct Established {
    /// For the session.
    pub keys: SessionKeys,
    /// A [`Header::Reset`] with this token: the server no longer has the session.
    pub reset_token: ResetToken,
    /// For the next [`Connector`], which is to use it once.
    pub ticket: (ServerPin, AddressTicket),
    /// A round trip, where one was measured.
    pub rtt_us: Option<u64>,
}

/// Why there is no session. The attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing that helps came in time: the server is away, UDP is blocked, or
    /// what comes is not from a server with a pinned key.
    #[error("no answer from the server within {} s", CONNECT_TIMEOUT_US / 1_000_000)]
    TimedOut,
    /// None of the server's keys is pinned. Not proven to come from the server.
    #[error("none of the server's keys is pinned")]
    NotPinned,
    /// The server speaks other versions. Not proven to come from the server.
    #[error("the server does not speak version {VERSION} of the datagram session")]
    Version,
    /// The server has no room for more sessions. Not proven to come from it.
    #[error("the server is busy, try again after {retry_after_ms} ms")]
    Busy {
        /// When to try again.
        retry_after_ms: u32,
    },
}

// === impl Connector ===

impl Connector {
    /// Begins. `ticket` is [`Established::ticket`] of the last session, if there was
    /// one. `attempt` and `ephemeral` are fresh random bytes.
    pub fn new(
        now_us: u64,
        pins: ServerPins,
        ticket: Option<(ServerPin, AddressTicket)>,
        attempt: [u8; HandshakeHeader::ATTEMPT_BYTES],
        ephemeral: [u8; 32],
    ) -> Self {
        let mut connector = Self {
            pins,
            attempt,
            ephemeral: Secret::from_bytes(ephemeral),
            knock: None,
            cookies: 0,
            began_us: now_us,
            flight: Flight {
                due_us: now_us,
                ..Flight::default()
            },
            rtt_us: None,
        };
        if let Some((pin, ticket)) = ticket
            && let Some(pin) = connector.pins.by_hint(pin.hint())
        {
            connector.knock(pin, Proof::Ticket(ticket));
        }
        connector
    }

    /// Writes the datagram that is due to `out` ([`HELLO_BYTES`]), and says its
    /// length; `None`: nothing is due before [`Connector::timeout_us`].
    ///
    /// # Errors
    /// [`ConnectError::TimedOut`].
    pub fn transmit(&mut self, now_us: u64, out: &mut [u8]) -> Result<Option<usize>, ConnectError> {
        if now_us.saturating_sub(self.began_us) >= CONNECT_TIMEOUT_US {
            return Err(ConnectError::TimedOut);
        }
        let Some(out) = out.get_mut(..HELLO_BYTES) else {
            return Ok(None);
        };
        if now_us < self.flight.due_us {
            return Ok(None);
        }
        let kind = match self.knock {
            Some(_) => HandshakeKind::Knock,
            None => HandshakeKind::Hello,
        };
        let (head, body) = out.split_at_mut(HandshakeHeader::BYTES);
        head.copy_from_slice(&header(kind, VERSION, self.attempt));
        match &self.knock {
            Some(knock) => knock.body.write(body),
            None => body.fill(0),
        }
        self.flight.sent(now_us);
        Ok(Some(HELLO_BYTES))
    }

    /// When to call [`Connector::transmit`] again, if nothing comes before.
    pub fn timeout_us(&self) -> u64 {
        self.flight
            .due_us
            .min(self.began_us.saturating_add(CONNECT_TIMEOUT_US))
    }

    /// Takes a datagram. What is not from a server that saw this attempt is passed
    /// over.
    ///
    /// # Errors
    /// The server refuses, see [`ConnectError`].
    pub fn receive(
        &mut self,
        now_us: u64,
        datagram: &[u8],
    ) -> Result<Option<Established>, ConnectError> {
        let Ok(Header::Handshake(header)) = Header::parse(datagram) else {
            return Ok(None);
        };
        let body = datagram.get(HandshakeHeader::BYTES..).unwrap_or_default();
        if header.attempt != self.attempt {
            return Ok(None);
        }
        match (header.kind, header.version) {
            (HandshakeKind::Cookie, VERSION) => self.take_cookie(now_us, body).map(|()| None),
            (HandshakeKind::Welcome, VERSION) => Ok(self.take_welcome(now_us, body)),
            (HandshakeKind::Busy, VERSION) => match body.first_chunk() {
                Some(ms) => Err(ConnectError::Busy {
                    retry_after_ms: u32::from_be_bytes(*ms),
                }),
                None => Ok(None),
            },
            (HandshakeKind::Versions, _) => match body.split_first() {
                // Who speaks this version had no reason to say so.
                Some((&count, versions))
                    if versions
                        .get(..count.into())
                        .is_some_and(|all| !all.contains(&VERSION)) =>
                {
                    Err(ConnectError::Version)
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn take_cookie(&mut self, now_us: u64, body: &[u8]) -> Result<(), ConnectError> {
        let Some(CookieBody { cookie, hints }) = CookieBody::parse(body) else {
            return Ok(());
        };
        if self.cookies >= COOKIES_MAX || self.has_cookie(&cookie) {
            return Ok(());
        }
        let pin = hints.iter().find_map(|hint| self.pins.by_hint(*hint));
        let pin = pin.ok_or(ConnectError::NotPinned)?;
        self.cookies += 1;
        self.rtt_us = self.flight.rtt_us(now_us).or(self.rtt_us);
        self.knock(pin, Proof::Cookie(cookie));
        self.flight = Flight {
            due_us: now_us,
            ..Flight::default()
        };
        Ok(())
    }

    fn has_cookie(&self, cookie: &Cookie) -> bool {
        let proof = self.knock.as_ref().map(|knock| knock.body.proof);
        proof == Some(Proof::Cookie(*cookie))
    }

    /// Goes on with a Knock. The Noise message stays the same for the same key, so
    /// that a Welcome to an earlier Knock is one to this.
    fn knock(&mut self, pin: ServerPin, proof: Proof) {
        if let Some(knock) = self.knock.as_mut().filter(|knock| knock.pin == pin) {
            knock.body.proof = proof;
            return;
        }
        // It fails for no pin and no randomness; without it nothing can be said.
        let begun =
            noise::Initiator::begin(&pin, &prologue(self.attempt), *self.ephemeral.as_bytes());
        self.knock = begun.ok().map(|(noise, message)| Knocking {
            pin,
            noise,
            body: KnockBody {
                hint: pin.hint(),
                proof,
                noise: message,
            },
        });
    }

    fn take_welcome(&mut self, now_us: u64, body: &[u8]) -> Option<Established> {
        let knock = self.knock.as_mut()?;
        let mut payload = [0; HELLO_BYTES];
        if body.len() > payload.len() {
            return None;
        }
        let (bytes, split) = knock.noise.finish(body, &mut payload).ok()?;
        let payload = payload.get(..bytes).and_then(WelcomePayload::parse)?;
        let id: ConnectionId = payload.connection_id;
        Some(Established {
            keys: SessionKeys::of_client(id, split, now_us),
            reset_token: payload.reset_token,
            ticket: (knock.pin, payload.ticket),
            rtt_us: self.flight.rtt_us(now_us).or(self.rtt_us),
        })
    }
}

// === impl Flight ===

impl Flight {
    fn sent(&mut self, now_us: u64) {
        if self.sends == 0 {
            self.first_sent_us = now_us;
        }
        let wait_us = RESEND_FIRST_US << self.sends.min(8);
        self.due_us = now_us.saturating_add(wait_us.min(RESEND_MAX_US));
        self.sends = self.sends.saturating_add(1);
    }

    /// Known where the packet was sent only once.
    fn rtt_us(&self, now_us: u64) -> Option<u64> {
        (self.sends == 1).then(|| now_us.saturating_sub(self.first_sent_us))
    }
}
