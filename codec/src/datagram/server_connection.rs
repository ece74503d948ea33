//! The server's end of a session, from the Welcome to the CLOSE.
//!
//! Whoever holds the sessions of an event loop keeps them by connection id:
//!
//! ```text
//! Header::Session   ─▶ by its connection id ─▶ receive(); unknown: Acceptor::reset()
//! Header::Handshake ─▶ Acceptor::receive() ─▶ Knock: known and welcome() is some: send that again
//!                                                    unknown: Acceptor::accept(), ServerConnection::new()
//! after each of these, and after send() and on_timeout(): transmit() until it gives none, then arm timeout()
//! ```

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{
    Accepted, Answer, Channel, Config, ConnectionId, End, ReceiveError, SendError, Session,
    SessionHeader, SessionKeys, Side, Sink, Source, sealed::Sealed,
};
use crate::packed::{put_address, take_address};

/// A session of which no packet was opened ends after this long.
const CONFIRM_MAX_US: u64 = 10_000_000;

/// One session at the server. About 350 bytes, and no heap while nothing is under way.
#[derive(Debug)]
pub struct ServerConnection {
    sealed: Sealed,
    address: SocketAddr,
    /// Until the client's first packet.
    unconfirmed: Option<Box<Unconfirmed>>,
    /// While the present address isn't proven: the one that was.
    proven_address: Option<Box<SocketAddr>>,
}

#[derive(Debug)]
struct Unconfirmed {
    welcome: Answer,
    until_us: u64,
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The peer's address.
    pub address: SocketAddr,
    /// Bytes that were appended.
    pub bytes: usize,
}

// === impl ServerConnection ===

impl ServerConnection {
    /// A session that was accepted from `address`. The Welcome is to be sent to it.
    pub fn new(now_us: u64, accepted: Accepted, address: SocketAddr, config: Arc<Config>) -> Self {
        Self {
            sealed: Sealed {
                keys: accepted.keys,
                session: Session::new(Side::Server, config, now_us, None),
            },
            address,
            unconfirmed: Some(Box::new(Unconfirmed {
                welcome: accepted.answer,
                until_us: now_us + CONFIRM_MAX_US,
            })),
            proven_address: None,
        }
    }

    /// The session's name.
    pub fn connection_id(&self) -> ConnectionId {
        self.sealed.keys.connection_id()
    }

    /// The Welcome, to be sent again when its Knock comes again; none after the
    /// client's first packet.
    pub fn welcome(&self) -> Option<&Answer> {
        self.unconfirmed.as_ref().map(|it| &it.welcome)
    }

    /// The peer's address, as of the newest packet.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a datagram for this session, which is opened in place. Messages
    /// in it go to `sink`. `token` is random, and asked of the peer should it have
    /// moved. True when the peer has just proven that it is at
    /// [`ServerConnection::address`], after it had moved.
    ///
    /// # Errors
    /// See [`ReceiveError`]. Only after a violation has the session ended.
    pub fn receive(
        &mut self,
        now_us: u64,
        header: &SessionHeader,
        datagram: &mut [u8],
        from: SocketAddr,
        token: u64,
        sink: &mut Sink<'_>,
    ) -> Result<bool, ReceiveError> {
        // Only of a proven address another port may be taken for a NAT's doing.
        let proven = self.proven_address.as_deref().unwrap_or(&self.address);
        let source = match from == self.address {
            true => Source::Current,
            false => Source::Elsewhere {
                token,
                is_same_host: from.ip() == proven.ip(),
            },
        };
        let received = self
            .sealed
            .receive(now_us, header, datagram, source, sink)?;
        self.unconfirmed = None;
        if received.has_moved {
            let old = std::mem::replace(&mut self.address, from);
            self.proven_address.get_or_insert_with(|| Box::new(old));
        }
        if received.is_path_proven {
            self.proven_address = None;
        }
        Ok(received.is_path_proven)
    }

    /// Takes a message for sending; it goes out with [`ServerConnection::transmit`].
    ///
    /// # Errors
    /// See [`SendError`]. [`SendError::Full`]: the client doesn't take what is sent.
    pub fn send(&mut self, now_us: u64, channel: Channel, payload: Bytes) -> Result<(), SendError> {
        self.sealed.session.send(now_us, channel, payload)
    }

    /// Appends the next datagram to `out`, and tells where it goes. To be called
    /// until it gives none.
    pub fn transmit(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<Destination> {
        if self.unconfirmed.is_some() {
            return None;
        }
        if self.sealed.session.take_path_failure()
            && let Some(proven) = self.proven_address.take()
        {
            self.address = *proven;
            self.sealed.session.return_to_old_path(now_us);
        }
        let bytes = self.sealed.transmit(now_us, out)?;
        Some(Destination {
            address: self.address,
            bytes,
        })
    }

    /// When [`ServerConnection::on_timeout`] must be called. None: the session has ended.
    pub fn timeout(&self) -> Option<u64> {
        let at_us = self.sealed.session.timeout();
        match &self.unconfirmed {
            Some(unconfirmed) => at_us.map(|_| unconfirmed.until_us),
            None => at_us,
        }
    }

    /// Time has passed. Early calls do nothing.
    pub fn on_timeout(&mut self, now_us: u64) {
        match &self.unconfirmed {
            Some(unconfirmed) if now_us >= unconfirmed.until_us => {
                self.sealed.session.finish(End::Silent);
            }
            Some(_) => {}
            None => self.sealed.session.on_timeout(now_us),
        }
    }

    /// Ends the session with a code and a reason of up to 255 bytes. What was sent
    /// before goes along as far as it fits into one packet. After the next
    /// [`ServerConnection::transmit`] the session may be dropped; the client is told again by
    /// [`super::Acceptor::reset`] if it missed that.
    pub fn close(&mut self, now_us: u64, code: u16, reason: &str) {
        self.sealed.session.close(now_us, code, reason);
    }

    /// Why the session has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.sealed.session.end()
    }

    /// Hands on what the sink had no room for; see [`Session::drain`].
    pub fn drain(&mut self, sink: &mut Sink<'_>) {
        self.sealed.session.drain(sink);
    }

    /// Its state: round trip, what waits, what it holds.
    pub fn session(&self) -> &Session {
        &self.sealed.session
    }

    /// Hands `token` to the client, which finds it in [`super::ClientConnection::take_token`].
    pub fn send_token(&mut self, now_us: u64, token: &[u8]) {
        self.sealed.session.send_token(now_us, token);
    }

    /// Appends all that a session must remember while nothing is under way, and
    /// answers true; appends nothing and answers false if something is. The keys
    /// are in it: whoever has it wipes it.
    pub fn pack(&self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let is_settled = self.unconfirmed.is_none() && self.proven_address.is_none();
        if !is_settled || !self.sealed.session.pack(out) {
            out.truncate(start);
            return false;
        }
        self.sealed.keys.pack(out);
        put_address(out, self.address);
        true
    }

    /// Takes what [`ServerConnection::pack`] appended off the front.
    pub fn unpack(input: &mut &[u8], config: Arc<Config>) -> Option<Self> {
        let session = Session::unpack(input, config)?;
        let keys = SessionKeys::unpack(input)?;
        Some(Self {
            sealed: Sealed { keys, session },
            address: take_address(input)?,
            unconfirmed: None,
            proven_address: None,
        })
    }

    /// Heap that is held, in bytes, without the payloads to be sent.
    pub fn heap_bytes(&self) -> usize {
        let unconfirmed = self.unconfirmed.as_ref().map_or(0, |it| size_of_val(&**it));
        let address = self
            .proven_address
            .as_ref()
            .map_or(0, |it| size_of_val(&**it));
        unconfirmed + address + self.sealed.keys.held_bytes() + self.sealed.session.heap_bytes()
    }
}
