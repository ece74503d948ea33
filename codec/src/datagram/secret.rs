//! 32 secret bytes, and the one keyed hash that everything is derived with.

use std::fmt;

use blake2::{Blake2sMac256, digest::Mac};
use zeroize::ZeroizeOnDrop;

/// A key; its bytes are overwritten when it goes, and never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; Self::BYTES]);

// === impl Secret ===

impl Secret {
    pub(crate) const BYTES: usize = 32;

    pub(crate) const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// A secret for one purpose. Whoever has it can't get at this one.
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        Self(self.hash(&[purpose.as_bytes()]))
    }

    /// BLAKE2s-256 (RFC 7693) with this as its key, over the parts one after the
    /// other. Each use has a secret of its own and parts of fixed lengths, so no
    /// two inputs run into one.
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = <Blake2sMac256 as Mac>::new((&self.0).into());
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The first half of [`Secret::hash`].
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(self.hash(parts)) {
            *to = from;
        }
        half
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Compares without telling by its time where the first difference lies.
pub(crate) fn equal(left: &[u8; 16], right: &[u8; 16]) -> bool {
    let differing = left.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}
