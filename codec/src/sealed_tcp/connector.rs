//! The client's side of an encrypted stream.

use super::{
    ANSWER_BYTES, OPENING_BYTES, PREFIX, PROLOGUE, SealedError, StreamOpener, StreamSealer,
    frames::halves,
};
use crate::datagram::{ServerPin, noise};

/// A client that has opened a stream, and has no answer yet.
#[derive(Debug)]
pub struct StreamConnector(noise::Initiator);

/// Both directions of a stream, for [`crate::PacketCodec::sealed`].
#[derive(Debug)]
pub struct SealedStream {
    /// What is sent.
    pub sealer: StreamSealer,
    /// What comes.
    pub opener: StreamOpener,
}

// === impl StreamConnector ===

impl StreamConnector {
    /// Bytes of the server's answer.
    pub const ANSWER_BYTES: usize = ANSWER_BYTES;

    /// Opens a stream to the server of this pin: what is to be written first.
    /// `ephemeral` is 32 fresh random bytes.
    ///
    /// # Errors
    /// None with a real pin.
    pub fn begin(pin: ServerPin, ephemeral: [u8; 32]) -> Result<(Self, Vec<u8>), SealedError> {
        let begun = noise::Initiator::begin(&pin, PROLOGUE, ephemeral);
        let (noise, first) = begun.map_err(|noise::Refused| SealedError::Key)?;
        let mut opening = Vec::with_capacity(OPENING_BYTES);
        opening.extend(PREFIX);
        opening.extend(pin.hint());
        opening.extend(first);
        Ok((Self(noise), opening))
    }

    /// Takes the server's answer. A server that doesn't have the key closes
    /// without one.
    ///
    /// # Errors
    /// It is no answer, or not from the server of this pin.
    pub fn finish(
        mut self,
        answer: &[u8; Self::ANSWER_BYTES],
    ) -> Result<SealedStream, SealedError> {
        let second = answer.strip_prefix(&PREFIX).ok_or(SealedError::Opening)?;
        let finished = self.0.finish(second, &mut [0; ANSWER_BYTES]);
        let (_, split) = finished.map_err(|noise::Refused| SealedError::Key)?;
        let (sealer, opener) = halves(split, true);
        Ok(SealedStream { sealer, opener })
    }
}
