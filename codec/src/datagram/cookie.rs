//! The proof that a client receives what is sent to its address.
//!
//! A cookie is a keyed hash of the address, the client's attempt and the time
//! in epochs of 15 s. The server keeps nothing of it: it makes the hash again when
//! the cookie comes back, for this epoch and the one before.

use std::net::{IpAddr, SocketAddr};

use super::{
    header::HandshakeHeader,
    secret::{self, Secret},
};

/// How long an epoch is. A cookie holds until the end of the one after its own.
pub const COOKIE_EPOCH_MS: u64 = 15_000;

/// Opaque to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cookie([u8; Self::BYTES]);

// === impl Cookie ===

impl Cookie {
    pub(crate) const BYTES: usize = 16;

    pub(crate) const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(crate) fn bake(
        secret: &Secret,
        peer: SocketAddr,
        hello: &HandshakeHeader,
        now: u64,
    ) -> Self {
        Self::of_epoch(secret, peer, hello, now / COOKIE_EPOCH_MS)
    }

    pub(crate) fn holds(
        &self,
        secret: &Secret,
        peer: SocketAddr,
        hello: &HandshakeHeader,
        unix_ms: u64,
    ) -> bool {
        let epoch = unix_ms / COOKIE_EPOCH_MS;
        [epoch, epoch.saturating_sub(1)].into_iter().any(|epoch| {
            let expected = Self::of_epoch(secret, peer, hello, epoch);
            secret::equal(&self.0, &expected.0)
        })
    }

    fn of_epoch(secret: &Secret, peer: SocketAddr, hello: &HandshakeHeader, epoch: u64) -> Self {
        let parts: [&[u8]; 4] = [
            &epoch.to_be_bytes(),
            &ip_bytes(peer.ip()),
            &peer.port().to_be_bytes(),
            &hello.attempt,
        ];
        Self(secret.mac(&parts))
    }
}

/// The same for an IPv4 address and for that address as a socket of both
/// families shows it.
pub(crate) fn ip_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
