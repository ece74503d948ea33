//! What a returning client shows in place of a cookie.
//!
//! The server gives it with the Welcome, sealed. It says that somebody at this IP address
//! had a session lately, so that the first packet may be answered by a session at
//! once: a round trip saved, and nothing else. It is no login, holds no key, and
//! is bound to the IP address, not to the port, which a returning client has new.

use std::net::IpAddr;

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce};

use super::{ServerKeys, cookie::ip_bytes, secret::Secret};

/// How long a ticket holds, and how long tickets are sealed with the same key.
pub const TICKET_LIFETIME_MS: u64 = 24 * 3_600_000;

/// Sealed by a server, opaque to the client. A client should use each once: who
/// sees it twice knows the client again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressTicket([u8; Self::BYTES]);

// === impl AddressTicket ===

impl AddressTicket {
    /// Nonce, sealed end of its time, tag.
    pub const BYTES: usize = 12 + 8 + 16;

    /// As it was told by the server.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// To be kept by the client, and told to it by the server.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// A ticket for a client at this address; `nonce` is a fresh one.
    pub fn seal(keys: &ServerKeys, address: IpAddr, unix_ms: u64, nonce: [u8; 12]) -> Self {
        let until_ms = unix_ms.saturating_add(TICKET_LIFETIME_MS);
        let mut sealed = until_ms.to_be_bytes();
        let cipher = cipher(keys.ticket_secret(), unix_ms / TICKET_LIFETIME_MS);
        let nonce = Nonce::from(nonce);
        let tag = cipher.encrypt_in_place_detached(&nonce, &ip_bytes(address), &mut sealed);
        // It fails for more than 256 GiB only.
        let tag = tag.unwrap_or_default();
        let mut bytes = [0; Self::BYTES];
        let from = nonce.iter().chain(&sealed).chain(&tag);
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
        }
        Self(bytes)
    }

    /// True if the ticket was made for this address and its time is not over.
    pub(crate) fn holds(&self, keys: &ServerKeys, address: IpAddr, unix_ms: u64) -> bool {
        let Some((nonce, rest)) = self.0.split_first_chunk::<12>() else {
            return false;
        };
        let Some((sealed, tag)) = rest.split_first_chunk::<8>() else {
            return false;
        };
        let Some(tag) = tag.first_chunk::<16>() else {
            return false;
        };
        let epoch = unix_ms / TICKET_LIFETIME_MS;
        [epoch, epoch.saturating_sub(1)].into_iter().any(|epoch| {
            let mut until_ms = *sealed;
            let opened = cipher(keys.ticket_secret(), epoch).decrypt_in_place_detached(
                nonce.into(),
                &ip_bytes(address),
                &mut until_ms,
                tag.into(),
            );
            opened.is_ok() && unix_ms < u64::from_be_bytes(until_ms)
        })
    }
}

fn cipher(secret: &Secret, epoch: u64) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&secret.hash(&[&epoch.to_be_bytes()]).into())
}
