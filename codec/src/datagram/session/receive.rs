//! A packet that came in.

use super::super::{
    End, Violation,
    frame::Frame,
    incoming::{Inlet, Sink},
    path::PathCheck,
};
use super::{Active, Session, Side};

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The address that packets are sent to.
    Current,
    /// Another one. `token` is random: what the peer must give back if packets
    /// are to be sent there from now on.
    Elsewhere {
        /// Not to be guessed.
        token: u64,
        /// The IP address that was proven last, another port: a NAT has forgotten
        /// the client. The path is the one that it was, and who receives there is
        /// proven.
        is_same_host: bool,
    },
}

/// What [`Session::receive`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// The packet came before, or too long ago to tell: nothing was done.
    pub is_duplicate: bool,
    /// The peer has moved: packets go to where this one came from. The old
    /// address is to be kept until one of the next two.
    pub has_moved: bool,
    /// The new address is proven; the old one can be forgotten.
    pub is_path_proven: bool,
    /// The peer asks whether this side is where it seems to be (client).
    pub is_challenged: bool,
}

impl Session {
    /// Takes the payload of the packet `number`, which was opened with the
    /// session's key. `datagram_bytes`: of the whole UDP payload. After an error the
    /// session ends; a CLOSE tells the peer.
    pub fn receive(
        &mut self,
        now_us: u64,
        number: u64,
        payload: &[u8],
        datagram_bytes: usize,
        from: Source,
        sink: &mut Sink<'_>,
    ) -> Result<Received, Violation> {
        let mut received = Received {
            is_duplicate: !self.is_new(number),
            ..Received::default()
        };
        if received.is_duplicate {
            return Ok(received);
        }
        if self.end.is_some() {
            let closing = self.active.as_mut().and_then(|it| it.closing.as_mut());
            closing.into_iter().for_each(|it| it.on_received());
            return Ok(received);
        }
        self.last_received_us = now_us;
        self.activate(now_us).waiting_since_us = u64::MAX;
        if let Source::Elsewhere {
            token,
            is_same_host,
        } = from
            && self.side == Side::Server
            && number >= self.received_next()
        {
            received.has_moved = true;
            if !is_same_host {
                self.reset_path(now_us);
            }
            let active = self.activate(now_us);
            active.path = Some(PathCheck::new(token, !is_same_host));
            active.repeat_under_way(now_us);
        }
        let Some(mut active) = self.active.take() else {
            return Ok(received);
        };
        if from == Source::Current || received.has_moved {
            let path = active.path.iter_mut();
            path.for_each(|path| path.on_came(datagram_bytes as u64));
        }
        let had_path = active.path.is_some();
        let taken = self.take_frames(now_us, &mut active, number, payload, from, sink);
        received.is_path_proven = had_path && active.path.is_none();
        received.is_challenged = active.response.is_some();
        self.active = Some(active);
        match taken {
            Ok(Some(code)) => self.finish(End::ClosedByPeer(code)),
            Ok(None) => self.settle(now_us),
            Err(violation) => self.fail(now_us, violation),
        }
        taken.map(|_| received)
    }

    /// The code of a CLOSE, if there is one.
    fn take_frames(
        &mut self,
        now_us: u64,
        active: &mut Active,
        number: u64,
        mut payload: &[u8],
        from: Source,
        sink: &mut Sink<'_>,
    ) -> Result<Option<u16>, Violation> {
        if payload.is_empty() {
            return Err(Violation::Empty);
        }
        let (mut is_eliciting, mut is_pinged) = (false, false);
        let (mut is_answer, mut is_challenged) = (false, false);
        let mut close = None;
        while !payload.is_empty() {
            let frame = Frame::take(&mut payload)?;
            is_eliciting |= frame.is_eliciting();
            match frame {
                Frame::Padding => {}
                Frame::Ping => is_pinged = true,
                Frame::Ack(ack) => {
                    is_answer = true;
                    self.on_ack(now_us, active, &ack)?;
                }
                Frame::Credit(limit) => self.credit.raise(limit),
                Frame::PathChallenge(token) => {
                    is_challenged = true;
                    active.response = Some(token);
                }
                Frame::PathResponse(token) => {
                    let is_proven = |path: &PathCheck| path.is_proven_by(token);
                    if from == Source::Current && active.path.as_ref().is_some_and(is_proven) {
                        active.path = None;
                    }
                }
                Frame::Close { code, .. } => close = Some(code),
                Frame::Token(token) if self.side == Side::Client => {
                    active.token_in = Some(token.into());
                }
                Frame::Token(_) => {}
                Frame::Data(data) => {
                    active.had_messages = true;
                    let mut inlet = Inlet {
                        numbers: &mut self.numbers,
                        credit: &mut self.credit,
                        sink: &mut *sink,
                    };
                    active.incoming.receive(number, &data, &mut inlet)?;
                }
            }
        }
        if is_challenged {
            self.keepalive.on_moved(&self.config);
        } else if is_answer {
            self.keepalive.on_answered();
        }
        active.is_credit_due |= self.credit.should_tell();
        active.received.insert(now_us, number, is_eliciting);
        if is_pinged {
            // Nothing more is likely to come that the ACK could wait for.
            active.received.hurry(now_us);
        }
        Ok(close)
    }
}
