//! Noise NK (<https://noiseprotocol.org/noise.html>), by `snow`, reduced to what
//! is used of it: one message each way, then two keys.
//!
//! ```text
//! <- s                  the client has pinned the server's key
//! -> e, es              first message, no payload: it could be replayed
//! <- e, ee              second message, with a payload
//! ```

use curve25519_dalek::MontgomeryPoint;
use snow::{
    Builder, HandshakeState,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};

use super::{ServerPin, secret::Secret};

/// The name of the protocol, which both sides hash first.
pub(crate) const NAME: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
/// Of the first message: an X25519 public key and a tag.
pub(crate) const FIRST_BYTES: usize = 32 + 16;
/// What the second message adds to its payload.
pub(crate) const SECOND_OVERHEAD_BYTES: usize = 32 + 16;

/// The two keys of a session.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) to_server: Secret,
    pub(crate) to_client: Secret,
}

/// The other side does not have the key that it should, or its message was
/// changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// The client between the two messages.
#[derive(Debug)]
pub(crate) struct Initiator(HandshakeState);

/// Hands out given bytes as randomness, so that nothing here draws any.
struct Given([u8; 32]);

struct Resolver([u8; 32]);

// === impl Initiator ===

impl Initiator {
    /// `ephemeral` is 32 fresh random bytes.
    pub(crate) fn begin(
        pin: &ServerPin,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<(Self, [u8; FIRST_BYTES]), Refused> {
        let builder = builder(ephemeral, prologue)?;
        let mut state = builder
            .remote_public_key(pin.as_bytes())?
            .build_initiator()?;
        let mut message = [0; FIRST_BYTES];
        state.write_message(&[], &mut message)?;
        Ok((Self(state), message))
    }

    /// Reads the answer; `payload` has as many bytes as the message has, or more.
    pub(crate) fn finish(
        &mut self,
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<(usize, Split), Refused> {
        let bytes = self.0.read_message(message, payload)?;
        Ok((bytes, split(&mut self.0)))
    }
}

/// The server's part, in one: reads the client's message, writes the answer with
/// `payload` to `answer`. `ephemeral` is 32 fresh random bytes.
pub(crate) fn respond(
    key: &Secret,
    prologue: &[u8],
    ephemeral: [u8; 32],
    message: &[u8; FIRST_BYTES],
    payload: &[u8],
    answer: &mut [u8],
) -> Result<Split, Refused> {
    let builder = builder(ephemeral, prologue)?;
    let mut state = builder
        .local_private_key(key.as_bytes())?
        .build_responder()?;
    state.read_message(message, &mut [0; FIRST_BYTES])?;
    state.write_message(payload, answer)?;
    Ok(split(&mut state))
}

/// The public key of a secret one.
pub(crate) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*secret).to_bytes()
}

fn builder(ephemeral: [u8; 32], prologue: &[u8]) -> Result<Builder<'_>, Refused> {
    let params: NoiseParams = NAME.parse()?;
    let resolver = Box::new(Resolver(ephemeral));
    Ok(Builder::with_resolver(params, resolver).prologue(prologue)?)
}

fn split(state: &mut HandshakeState) -> Split {
    let (to_server, to_client) = state.dangerously_get_raw_split();
    Split {
        to_server: Secret::from_bytes(to_server),
        to_client: Secret::from_bytes(to_client),
    }
}

impl From<snow::Error> for Refused {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

// === impl Resolver ===

impl Random for Given {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        // One key is drawn in a handshake; there is nothing to give for a second.
        let given = self.0.get(..out.len()).ok_or(snow::Error::Rng)?;
        out.copy_from_slice(given);
        Ok(())
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Given(self.0)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}
