//! How often a user may do something costly, like trying a password or adding
//! people to groups: a token bucket each, in a bounded table.

use hashbrown::HashMap;
use parking_lot::Mutex;
use sluice_protocol::UserId;

pub(super) const MINUTE_MS: u64 = 60_000;
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Counts what users do; shared by all calls.
#[derive(Debug)]
pub(crate) struct RateLimit {
    buckets: Mutex<HashMap<UserId, Bucket>>,
    /// So many in a span.
    max: u64,
    span_ms: u64,
    users_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In times × the span, so that it refills in whole numbers.
    tokens: u64,
    filled_ms: u64,
}

// === impl RateLimit ===

impl RateLimit {
    pub(crate) fn new(max: u32, span_ms: u64, users_max: usize) -> Self {
        Self {
            buckets: Mutex::default(),
            max: u64::from(max.max(1)),
            span_ms: span_ms.max(1),
            users_max: users_max.max(1),
        }
    }

    /// Takes so many, or none and says after how many seconds there are as many
    /// again. Who asks for more than there ever are takes all there may be.
    pub(crate) fn take(&self, user: &UserId, times: usize, now_ms: u64) -> Result<(), u32> {
        let full = self.max.saturating_mul(self.span_ms);
        let wanted = u64::try_from(times).unwrap_or(u64::MAX).min(self.max) * self.span_ms;
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(user) && buckets.len() >= self.users_max {
            self.make_room(&mut buckets, now_ms);
        }
        let bucket = buckets.entry_ref(user).or_insert(Bucket {
            tokens: full,
            filled_ms: now_ms,
        });
        let refill = now_ms
            .saturating_sub(bucket.filled_ms)
            .saturating_mul(self.max);
        bucket.tokens = bucket.tokens.saturating_add(refill).min(full);
        bucket.filled_ms = now_ms;
        match bucket.tokens.checked_sub(wanted) {
            Some(rest) => {
                bucket.tokens = rest;
                Ok(())
            }
            None => {
                let wait_ms = (wanted - bucket.tokens).div_ceil(self.max);
                Err(u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX))
            }
        }
    }

    /// Forgets who has been quiet for a span; if that is nobody, everybody:
    /// filling the table costs an attacker a password hash an entry.
    fn make_room(&self, buckets: &mut HashMap<UserId, Bucket>, now_ms: u64) {
        buckets.retain(|_, bucket| bucket.filled_ms.saturating_add(self.span_ms) > now_ms);
        if buckets.len() >= self.users_max {
            buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn attempts_come_back_with_time() {
        let limit = RateLimit::new(2, MINUTE_MS, 10);
        let alice = user("alice");
        assert_eq!(limit.take(&alice, 1, 0), Ok(()));
        assert_eq!(limit.take(&alice, 1, 0), Ok(()));
        assert_eq!(limit.take(&alice, 1, 0), Err(30));
        assert_eq!(limit.take(&user("bob"), 1, 0), Ok(()));
        assert_eq!(limit.take(&alice, 1, 29_999), Err(1));
        assert_eq!(limit.take(&alice, 1, 30_000), Ok(()));
        // A clock that steps back gives nothing away.
        assert!(limit.take(&alice, 1, 0).is_err());
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let limit = RateLimit::new(1000, HOUR_MS, 10);
        let alice = user("alice");
        assert_eq!(limit.take(&alice, 600, 0), Ok(()));
        assert_eq!(limit.take(&alice, 500, 0), Err(360));
        assert_eq!(limit.take(&alice, 400, 0), Ok(()));
        assert_eq!(limit.take(&alice, 0, 0), Ok(()));
        assert_eq!(limit.take(&alice, 500, HOUR_MS / 2 - 1), Err(1));
        assert_eq!(limit.take(&alice, 500, HOUR_MS / 2), Ok(()));
        // More than there ever are: all, and never for nothing.
        assert_eq!(limit.take(&alice, usize::MAX, HOUR_MS), Err(1800));
        assert_eq!(limit.take(&alice, usize::MAX, 2 * HOUR_MS), Ok(()));
        assert_eq!(limit.take(&alice, 1, 2 * HOUR_MS), Err(4));
    }

    #[test]
    fn the_table_is_bounded() {
        let limit = RateLimit::new(1, MINUTE_MS, 8);
        for n in 0..100 {
            assert_eq!(limit.take(&user(&format!("u{n}")), 1, 0), Ok(()));
        }
        assert!(limit.buckets.lock().len() <= 8);
    }
}
