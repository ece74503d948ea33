//! Remembers the nonces of connect packets, so that a recorded one is useless.
//! Only of those that came with a verified token: whoever has none could fill
//! the memory and shut everybody out. A resume token works once (the store sees
//! to that), so a recorded packet with one is useless anyway.
//!
//! Two generations: a nonce is kept for one to two spans in which its packet's
//! time would still be taken. Bounded, and of each nonce only a keyed hash is kept:
//! 8 bytes and the table's slack. With a million of them a fresh nonce is taken for
//! a used one once in 2⁴⁴ logins, and the client's next one is not.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use parking_lot::Mutex;
use sluice_protocol::{Refusal, limits::NONCE_BYTES, packet::ErrorCode};

/// Nonces seen by all loops. A lock, since it is taken once a login.
#[derive(Debug)]
pub(crate) struct ReplayGuard {
    skew_max_ms: u64,
    entries_max: usize,
    /// Keyed: nobody can aim at another's nonce.
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// Hashes of nonces.
#[derive(Debug, Default)]
struct Seen {
    young: HashTable<u64>,
    old: HashTable<u64>,
    young_since_ms: u64,
}

/// What is to be said of a connect packet's nonce and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReplayVerdict {
    Fresh,
    Refused(Refusal),
    /// No more nonces can be remembered for so long.
    Full {
        retry_after_ms: u64,
    },
}

// === impl ReplayGuard ===

impl ReplayGuard {
    pub(crate) fn new(skew_max_ms: u64, entries_max: usize) -> Self {
        Self {
            skew_max_ms,
            entries_max,
            hasher: RandomState::new(),
            seen: Mutex::default(),
        }
    }

    /// Holds the packet's time against the clock and, if its sender has `proven`
    /// who it is, remembers its nonce.
    pub(crate) fn check(
        &self,
        nonce: &[u8],
        time_ms: u64,
        proven: bool,
        now_unix_ms: u64,
    ) -> ReplayVerdict {
        let Ok(nonce) = <[u8; NONCE_BYTES]>::try_from(nonce) else {
            let reason = format!("nonce must have {NONCE_BYTES} bytes");
            return ReplayVerdict::Refused(Refusal::bad_request(reason));
        };
        if time_ms.abs_diff(now_unix_ms) > self.skew_max_ms {
            return ReplayVerdict::Refused(Refusal::new(
                ErrorCode::ClockSkew,
                "time_ms is too far off the server's clock; server_time_ms tells it",
            ));
        }
        if proven {
            self.remember(nonce, now_unix_ms)
        } else {
            ReplayVerdict::Fresh
        }
    }

    fn remember(&self, nonce: [u8; NONCE_BYTES], now_unix_ms: u64) -> ReplayVerdict {
        // A packet's time is taken from skew before to skew after the clock, so
        // after two skews it has become useless.
        let span_ms = self.skew_max_ms.saturating_mul(2).max(1);
        let hash = self.hasher.hash_one(nonce);
        let mut seen = self.seen.lock();
        let age_ms = now_unix_ms.saturating_sub(seen.young_since_ms);
        if age_ms >= span_ms {
            seen.old = std::mem::take(&mut seen.young);
            if age_ms >= span_ms.saturating_mul(2) {
                seen.old = HashTable::new();
            }
            seen.young_since_ms = now_unix_ms;
        }
        let has = |table: &HashTable<u64>| table.find(hash, |it| *it == hash).is_some();
        if has(&seen.old) || has(&seen.young) {
            return ReplayVerdict::Refused(Refusal::new(
                ErrorCode::Replayed,
                "this nonce was used before; take 16 fresh random bytes",
            ));
        }
        if seen.young.len() >= self.entries_max {
            let age_ms = now_unix_ms.saturating_sub(seen.young_since_ms);
            return ReplayVerdict::Full {
                retry_after_ms: span_ms.saturating_sub(age_ms),
            };
        }
        seen.young.insert_unique(hash, hash, |hash| *hash);
        ReplayVerdict::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;
    const SKEW_MS: u64 = 1_000;

    fn code(verdict: ReplayVerdict) -> Option<ErrorCode> {
        match verdict {
            ReplayVerdict::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    #[test]
    fn a_nonce_works_once_for_as_long_as_its_time_is_taken() {
        let guard = ReplayGuard::new(SKEW_MS, 100);
        for start in [NOW_MS, NOW_MS + 777, NOW_MS + 50_000] {
            let nonce = start.to_be_bytes().repeat(2);
            // The packet is dated as far ahead as is allowed.
            let dated_ms = start + SKEW_MS;
            let fresh = guard.check(&nonce, dated_ms, true, start);
            assert_eq!(fresh, ReplayVerdict::Fresh);
            for later_ms in (0..10 * SKEW_MS).step_by(100) {
                let code = code(guard.check(&nonce, dated_ms, true, start + later_ms));
                let expected = if later_ms <= 2 * SKEW_MS {
                    ErrorCode::Replayed
                } else {
                    ErrorCode::ClockSkew
                };
                assert_eq!(code, Some(expected), "{later_ms}");
            }
        }
    }

    #[test]
    fn wrong_time_or_length_is_named() {
        let guard = ReplayGuard::new(SKEW_MS, 100);
        let late = guard.check(&[0; 16], NOW_MS - SKEW_MS - 1, false, NOW_MS);
        assert_eq!(code(late), Some(ErrorCode::ClockSkew));
        let short = guard.check(&[0; 15], NOW_MS, false, NOW_MS);
        assert_eq!(code(short), Some(ErrorCode::BadRequest));
    }

    #[test]
    fn a_full_memory_says_when_to_come_again() {
        let guard = ReplayGuard::new(SKEW_MS, 2);
        let check = |n: u8, at_ms| guard.check(&[n; 16], at_ms, true, at_ms);
        assert_eq!(check(1, NOW_MS), ReplayVerdict::Fresh);
        assert_eq!(check(2, NOW_MS), ReplayVerdict::Fresh);
        let full = ReplayVerdict::Full {
            retry_after_ms: 1_500,
        };
        assert_eq!(check(3, NOW_MS + 500), full);
        assert_eq!(check(3, NOW_MS + 2_000), ReplayVerdict::Fresh);
    }

    #[test]
    fn who_has_proven_nothing_takes_no_room() {
        let guard = ReplayGuard::new(SKEW_MS, 1);
        for n in 0..100 {
            let verdict = guard.check(&[n; 16], NOW_MS, false, NOW_MS);
            assert_eq!(verdict, ReplayVerdict::Fresh);
        }
        let verdict = guard.check(&[0; 16], NOW_MS, true, NOW_MS);
        assert_eq!(verdict, ReplayVerdict::Fresh);
    }
}
