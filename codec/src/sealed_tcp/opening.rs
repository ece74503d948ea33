//! The server's side before it is known whether a TCP connection is encrypted.

use super::{
    ANSWER_BYTES, OPENING_BYTES, PREFIX, PROLOGUE, SealedError,
    frames::{SealedState, halves},
};
use crate::{
    FrameError, Input,
    datagram::{ServerKeys, noise, secret::Secret},
};

/// The first bytes of a connection, up to a whole opening.
#[derive(Debug)]
pub(crate) struct Opening {
    keys: ServerKeys,
    ephemeral: Secret,
    bytes: [u8; OPENING_BYTES],
    len: usize,
}

/// What the first bytes amount to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing was consumed: it is a plain connection.
    Plain,
    /// It isn't all there.
    More,
    /// Write the answer; what follows is sealed.
    Opened(Vec<u8>, Box<SealedState>),
}

// === impl Opening ===

impl Opening {
    pub(crate) fn new(keys: ServerKeys, ephemeral: [u8; 32]) -> Self {
        let ephemeral = Secret::from_bytes(ephemeral);
        Self {
            keys,
            ephemeral,
            bytes: [0; OPENING_BYTES],
            len: 0,
        }
    }

    pub(crate) fn advance(&mut self, input: &mut Input<'_>) -> Result<Step, FrameError> {
        match input.rest().first() {
            None => return Ok(Step::More),
            Some(first) if self.len == 0 && *first != PREFIX[0] => return Ok(Step::Plain),
            Some(_) => {}
        }
        let arrived = input.take(OPENING_BYTES - self.len);
        let room = self.bytes.iter_mut().skip(self.len);
        for (to, from) in room.zip(&*arrived) {
            *to = *from;
        }
        self.len += arrived.len();
        let told = self.len.min(PREFIX.len());
        if self.bytes.get(..told) != PREFIX.get(..told) {
            return Err(SealedError::Opening.into());
        }
        if self.len < OPENING_BYTES {
            return Ok(Step::More);
        }
        let (answer, state) = self.open()?;
        Ok(Step::Opened(answer, state))
    }

    fn open(&self) -> Result<(Vec<u8>, Box<SealedState>), SealedError> {
        let body = self.bytes.get(PREFIX.len()..).unwrap_or_default();
        let (hint, body) = body.split_first_chunk().ok_or(SealedError::Opening)?;
        let first = body.first_chunk().ok_or(SealedError::Opening)?;
        let key = self.keys.by_hint(*hint).ok_or(SealedError::Key)?;
        let mut answer = vec![0; ANSWER_BYTES];
        let (prefix, second) = answer.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(&PREFIX);
        let ephemeral = *self.ephemeral.as_bytes();
        let split = noise::respond(key.secret(), PROLOGUE, ephemeral, first, &[], second);
        let (sealer, opener) = halves(split.map_err(|noise::Refused| SealedError::Key)?, false);
        Ok((answer, Box::new(SealedState::new(sealer, opener))))
    }

    pub(crate) const fn is_begun(&self) -> bool {
        self.len > 0
    }
}
