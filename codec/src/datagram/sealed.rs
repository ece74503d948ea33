//! A session under its keys: the part that both ends' connections share.

use super::{OpenError, violation::End};
use super::{Received, Session, SessionHeader, SessionKeys, Sink, Source, TAG_BYTES, Violation};

/// A datagram that did nothing, or ended the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// It is no sealed packet.
    #[error("the datagram is no packet of a session")]
    NotSealed,
    /// It is not from the peer, or damaged, or too late: dropped.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The peer broke the rules: the session has ended, a CLOSE is due.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Keys and session.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) keys: SessionKeys,
    pub(crate) session: Session,
}

// === impl Sealed ===

impl Sealed {
    /// Opens a datagram and takes what it holds.
    pub(crate) fn receive(
        &mut self,
        now_us: u64,
        header: &SessionHeader,
        datagram: &mut [u8],
        source: Source,
        sink: &mut Sink<'_>,
    ) -> Result<Received, ReceiveError> {
        let bytes = datagram.len();
        let largest = self.session.received_next().checked_sub(1);
        let opened = self.keys.open(now_us, header, largest, datagram);
        if opened == Err(OpenError::TooManyForgeries) {
            self.session.finish(End::Forged);
        }
        let (number, payload) = opened?;
        let received = self
            .session
            .receive(now_us, number, payload, bytes, source, sink);
        Ok(received?)
    }

    /// Appends the next datagram to `out`; its length, or none if none is due.
    pub(crate) fn transmit(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let sent = self.try_transmit(now_us, out);
        if sent.is_none() {
            out.truncate(start);
        }
        sent
    }

    fn try_transmit(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let number = self.session.next_packet();
        let acked = self.session.acked_next().checked_sub(1);
        let Some(header_bytes) = self.keys.header_bytes(number, acked) else {
            // 2²⁹ packets of ACKs without one to them: no peer of ours.
            self.session.finish(End::Silent);
            return None;
        };
        out.resize(start + header_bytes, 0);
        self.session
            .transmit(now_us, header_bytes + TAG_BYTES, out)?;
        out.resize(out.len() + TAG_BYTES, 0);
        let sealed = self.keys.seal(now_us, number, acked, &mut out[start..]);
        if sealed.is_err() {
            self.session.finish(End::Exhausted);
            return None;
        }
        Some(out.len() - start)
    }
}
