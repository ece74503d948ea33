//! The client's end of a session, from the Hello to the CLOSE.
//!
//! One socket, one session:
//!
//! ```text
//! loop {
//!     transmit() until None ─▶ socket
//!     wait for a datagram ─▶ receive(), for timeout() ─▶ on_timeout(), for a message ─▶ send()
//! }
//! ```
//!
//! Messages may be sent at once; they leave when the session exists.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AddressTicket, Channel, Config, ConnectError, Connector, End, Established, HELLO_BYTES, Header,
    ReceiveError, ResetToken, SendError, ServerPin, ServerPins, Session, SessionKeys, Side, Sink,
    Source, sealed::Sealed,
};

/// One session at the client.
#[derive(Debug)]
pub struct ClientConnection {
    stage: Stage,
    ticket: Option<(ServerPin, AddressTicket)>,
    was_moved: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting {
        connector: Box<Connector>,
        /// Keeps what is sent before its time.
        session: Box<Session>,
    },
    Open {
        sealed: Box<Sealed>,
        reset_token: ResetToken,
    },
    Failed(ConnectError),
}

// === impl ClientConnection ===

impl ClientConnection {
    /// Begins. `ticket` is what [`ClientConnection::take_ticket`] gave in the last session, if
    /// there was one. `attempt` and `ephemeral` are fresh random bytes.
    pub fn connect(
        now_us: u64,
        pins: ServerPins,
        ticket: Option<(ServerPin, AddressTicket)>,
        attempt: [u8; 8],
        ephemeral: [u8; 32],
        config: Arc<Config>,
    ) -> Self {
        let connector = Connector::new(now_us, pins, ticket, attempt, ephemeral);
        Self {
            stage: Stage::Connecting {
                connector: Box::new(connector),
                session: Box::new(Session::new(Side::Client, config, now_us, None)),
            },
            ticket: None,
            was_moved: false,
        }
    }

    /// Whether the handshake is over.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Why the handshake failed, if it has.
    pub fn failure(&self) -> Option<ConnectError> {
        match &self.stage {
            Stage::Failed(error) => Some(*error),
            _ => None,
        }
    }

    /// Why the session has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.session().and_then(Session::end)
    }

    /// For the next session with this server, once; to be used once. It is there when the
    /// handshake is over.
    pub fn take_ticket(&mut self) -> Option<(ServerPin, AddressTicket)> {
        self.ticket.take()
    }

    /// Whether the server has seen this side come from another address, once: if this
    /// side has not moved, a NAT has forgotten it.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.was_moved)
    }

    /// What [`super::ServerConnection::send_token`] handed over, once.
    pub fn take_token(&mut self) -> Option<Box<[u8]>> {
        self.session_mut().and_then(Session::take_token)
    }

    /// Takes a datagram, which is opened in place. Messages in it go to `sink`.
    /// What is not from the server is passed over.
    ///
    /// # Errors
    /// See [`ReceiveError`]. Only after a violation has the session ended.
    pub fn receive(
        &mut self,
        now_us: u64,
        datagram: &mut [u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), ReceiveError> {
        match (&mut self.stage, Header::parse(datagram)) {
            (Stage::Connecting { connector, .. }, Ok(Header::Handshake(_))) => {
                match connector.receive(now_us, datagram) {
                    Ok(Some(established)) => self.open(now_us, established),
                    Ok(None) => {}
                    Err(error) => self.stage = Stage::Failed(error),
                }
                Ok(())
            }
            (Stage::Open { sealed, .. }, Ok(Header::Session(header))) => {
                let received = sealed.receive(now_us, &header, datagram, Source::Current, sink)?;
                self.was_moved |= received.is_challenged;
                Ok(())
            }
            (
                Stage::Open {
                    sealed,
                    reset_token,
                },
                Ok(Header::Reset(token)),
            ) => {
                if *reset_token == token {
                    sealed.session.on_reset();
                }
                Ok(())
            }
            _ => Err(ReceiveError::NotSealed),
        }
    }

    /// Takes a message for sending; it goes out with [`ClientConnection::transmit`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&mut self, now_us: u64, channel: Channel, payload: Bytes) -> Result<(), SendError> {
        match self.session_mut() {
            Some(session) => session.send(now_us, channel, payload),
            None => Err(SendError::Closed),
        }
    }

    /// Appends the next datagram to `out`; its length, or none if none is due. To
    /// be called until it gives none.
    pub fn transmit(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<usize> {
        match &mut self.stage {
            Stage::Connecting { connector, .. } => {
                let start = out.len();
                out.resize(start + HELLO_BYTES, 0);
                let sent = connector.transmit(now_us, &mut out[start..]);
                out.truncate(start + sent.unwrap_or_default().unwrap_or(0));
                sent.unwrap_or_else(|error| {
                    self.stage = Stage::Failed(error);
                    None
                })
            }
            Stage::Open { sealed, .. } => sealed.transmit(now_us, out),
            Stage::Failed(_) => None,
        }
    }

    /// When [`ClientConnection::on_timeout`] must be called. None: all is over.
    pub fn timeout(&self) -> Option<u64> {
        match &self.stage {
            Stage::Connecting { connector, .. } => Some(connector.timeout_us()),
            Stage::Open { sealed, .. } => sealed.session.timeout(),
            Stage::Failed(_) => None,
        }
    }

    /// Time has passed. Early calls do nothing.
    pub fn on_timeout(&mut self, now_us: u64) {
        if let Stage::Open { sealed, .. } = &mut self.stage {
            sealed.session.on_timeout(now_us);
        }
    }

    /// The client's network has changed, or its socket is another one: the server
    /// is to learn the new address at once, and the path is measured anew.
    pub fn rebind(&mut self, now_us: u64) {
        if let Stage::Open { sealed, .. } = &mut self.stage {
            sealed.session.rebind(now_us);
        }
    }

    /// Has the server answer; see [`Session::ping`].
    pub fn ping(&mut self, now_us: u64) {
        if let Stage::Open { sealed, .. } = &mut self.stage {
            sealed.session.ping(now_us);
        }
    }

    /// Other bounds hold from now on: after the login the client knows which
    /// silence the server bears. Those of the keepalive can only fall.
    pub fn configure(&mut self, config: Arc<Config>) {
        if let Some(session) = self.session_mut() {
            session.configure(config);
        }
    }

    /// Ends the session with a code and a reason of up to 255 bytes. What was sent
    /// before goes along as far as it fits into one packet.
    pub fn close(&mut self, now_us: u64, code: u16, reason: &str) {
        if let Some(session) = self.session_mut() {
            session.close(now_us, code, reason);
        }
    }

    /// Hands on what the sink had no room for; see [`Session::drain`].
    pub fn drain(&mut self, sink: &mut Sink<'_>) {
        if let Some(session) = self.session_mut() {
            session.drain(sink);
        }
    }

    /// Its state: round trip, what waits, what it holds. None where the handshake failed.
    pub fn session(&self) -> Option<&Session> {
        match &self.stage {
            Stage::Connecting { session, .. } => Some(session),
            Stage::Open { sealed, .. } => Some(&sealed.session),
            Stage::Failed(_) => None,
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Connecting { session, .. } => Some(session),
            Stage::Open { sealed, .. } => Some(&mut sealed.session),
            Stage::Failed(_) => None,
        }
    }

    fn open(&mut self, now_us: u64, established: Established) {
        let failed = Stage::Failed(ConnectError::TimedOut);
        let Stage::Connecting { mut session, .. } = std::mem::replace(&mut self.stage, failed)
        else {
            return;
        };
        session.begin(now_us, established.rtt_us);
        let keys: SessionKeys = established.keys;
        self.ticket = Some(established.ticket);
        self.stage = Stage::Open {
            sealed: Box::new(Sealed {
                keys,
                session: *session,
            }),
            reset_token: established.reset_token,
        };
    }
}
