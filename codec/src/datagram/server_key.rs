//! The server's long-lived key, and what clients know of it.
//!
//! A client has pinned the public half of at least one of the server's keys: the
//! pin comes with the client's settings, not over the network. To change keys,
//! clients get the new pin beside the old one, then the server gets the new key
//! before the old one, then the old ones go.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{noise, secret::Secret};

/// An X25519 key pair of a server.
#[derive(Clone)]
pub struct ServerKey {
    secret: Secret,
    pin: ServerPin,
}

/// The public half of a [`ServerKey`], as a client pins it. Its text is base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerPin([u8; Self::BYTES]);

/// The keys of a server, the one for new sessions first, and the secrets that
/// are derived from that one. Cheap to clone: all event loops share it.
#[derive(Clone, Debug)]
pub struct ServerKeys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    keys: Vec<ServerKey>,
    /// Of all keys, one after the other.
    hints: Vec<u8>,
    cookie: Secret,
    connection: Secret,
    ticket: Secret,
    nonce: Secret,
    reset: Secret,
}

/// The pins that a client accepts, 1 to 8. Its text is theirs, with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPins(Vec<ServerPin>);

/// A key or pin that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64, or not of 32 bytes.
    #[error("a key is 32 bytes in base64 (44 characters)")]
    Text,
    /// None, or more than there may be.
    #[error("{given} keys or pins were given; 1 to {max} are possible")]
    Count {
        /// So many.
        given: usize,
        /// So many may be.
        max: usize,
    },
    /// Two keys of one server begin with the same 4 bytes of public key.
    #[error("two of the keys have the same hint; replace one")]
    SameHint,
}

// === impl ServerKey ===

impl ServerKey {
    /// From its 32 secret bytes. Fresh random ones make a new key.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let pin = ServerPin(noise::public_key(&secret));
        Self {
            secret: Secret::from_bytes(secret),
            pin,
        }
    }

    /// From the text of [`ServerKey::secret_text`]; space around it is passed over.
    ///
    /// # Errors
    /// [`KeyError::Text`].
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self::from_secret)
    }

    /// The secret half in base64, for a file that only the server may read.
    pub fn secret_text(&self) -> String {
        BASE64_STANDARD.encode(self.secret.as_bytes())
    }

    /// The public half.
    pub const fn pin(&self) -> ServerPin {
        self.pin
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Without the secret.
impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerKey").field(&self.pin).finish()
    }
}

// === impl ServerPin ===

impl ServerPin {
    /// Bytes of a public key.
    pub const BYTES: usize = 32;
    /// Bytes of a [`ServerPin::hint`].
    pub const HINT_BYTES: usize = 4;

    /// A public key.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The public key's first bytes, by which the two sides tell each other
    /// which key they mean.
    pub const fn hint(&self) -> [u8; Self::HINT_BYTES] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }
}

impl fmt::Display for ServerPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ServerPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServerPin {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

// === impl ServerKeys ===

impl ServerKeys {
    /// A server has at most so many keys.
    pub const MAX: usize = 4;

    /// The first is the one for new sessions where the client knows it. What is
    /// derived from it (cookies, tickets, reset tokens) holds over a restart with
    /// the same first key.
    ///
    /// `node` tells apart the servers that share keys, and stays the same when
    /// one of them starts anew: with it no server can be made to reset a session
    /// of another.
    ///
    /// # Errors
    /// No key, too many, or two with the same hint.
    pub fn new(keys: Vec<ServerKey>, node: &str) -> Result<Self, KeyError> {
        let count = KeyError::Count {
            given: keys.len(),
            max: Self::MAX,
        };
        let first = match keys.first() {
            Some(first) if keys.len() <= Self::MAX => first.secret.clone(),
            _ => return Err(count),
        };
        let mut hints: Vec<_> = keys.iter().map(|key| key.pin.hint()).collect();
        hints.sort_unstable();
        hints.dedup();
        if hints.len() != keys.len() {
            return Err(KeyError::SameHint);
        }
        let shared = Shared {
            hints: keys.iter().flat_map(|key| key.pin.hint()).collect(),
            keys,
            cookie: first.derive("sluice datagram cookie"),
            connection: first.derive("sluice datagram connection id"),
            ticket: first.derive("sluice datagram ticket"),
            nonce: first.derive("sluice datagram ticket nonce"),
            reset: first.derive("sluice datagram reset").derive(node),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The pins that clients should have, the one for new sessions first.
    pub fn pins(&self) -> impl Iterator<Item = ServerPin> + '_ {
        self.shared.keys.iter().map(ServerKey::pin)
    }

    pub(crate) fn by_hint(&self, hint: [u8; ServerPin::HINT_BYTES]) -> Option<&ServerKey> {
        self.shared.keys.iter().find(|key| key.pin.hint() == hint)
    }

    pub(crate) fn hints(&self) -> &[u8] {
        &self.shared.hints
    }

    pub(crate) fn cookie_secret(&self) -> &Secret {
        &self.shared.cookie
    }

    pub(crate) fn connection_secret(&self) -> &Secret {
        &self.shared.connection
    }

    pub(crate) fn ticket_secret(&self) -> &Secret {
        &self.shared.ticket
    }

    pub(crate) fn nonce_secret(&self) -> &Secret {
        &self.shared.nonce
    }

    pub(crate) fn reset_secret(&self) -> &Secret {
        &self.shared.reset
    }
}

// === impl ServerPins ===

impl ServerPins {
    /// A client has at most so many pins.
    pub const MAX: usize = 8;

    /// The pins that a client accepts.
    ///
    /// # Errors
    /// None or too many.
    pub fn new(pins: Vec<ServerPin>) -> Result<Self, KeyError> {
        if pins.is_empty() || pins.len() > Self::MAX {
            return Err(KeyError::Count {
                given: pins.len(),
                max: Self::MAX,
            });
        }
        Ok(Self(pins))
    }

    /// The first one first.
    pub fn iter(&self) -> impl Iterator<Item = ServerPin> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn by_hint(&self, hint: [u8; ServerPin::HINT_BYTES]) -> Option<ServerPin> {
        self.0.iter().copied().find(|pin| pin.hint() == hint)
    }
}

impl From<ServerPin> for ServerPins {
    fn from(pin: ServerPin) -> Self {
        Self(vec![pin])
    }
}

impl FromStr for ServerPins {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for ServerPins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pin) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{pin}")?;
        }
        Ok(())
    }
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = BASE64_STANDARD
        .decode(text.trim())
        .map_err(|_| KeyError::Text)?;
    bytes.try_into().map_err(|_| KeyError::Text)
}
