//! How often a password may be tried, by user id: a token bucket each, in a
//! bounded table.

use hashbrown::HashMap;
use parking_lot::Mutex;
use sluice_protocol::UserId;

const MINUTE_MS: u64 = 60_000;

/// Counts attempts; shared by all calls.
#[derive(Debug)]
pub(crate) struct LoginLimit {
    buckets: Mutex<HashMap<UserId, Bucket>>,
    per_minute: u64,
    users_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In attempts × [`MINUTE_MS`], so that it refills in whole numbers.
    tokens: u64,
    filled_ms: u64,
}

// === impl LoginLimit ===

impl LoginLimit {
    pub(crate) fn new(per_minute: u32, users_max: usize) -> Self {
        Self {
            buckets: Mutex::default(),
            per_minute: u64::from(per_minute.max(1)),
            users_max: users_max.max(1),
        }
    }

    /// Takes one attempt, or says after how many seconds there is one again.
    pub(crate) fn take(&self, user: &UserId, now_ms: u64) -> Result<(), u32> {
        let full = self.per_minute * MINUTE_MS;
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
            .saturating_mul(self.per_minute);
        bucket.tokens = bucket.tokens.saturating_add(refill).min(full);
        bucket.filled_ms = now_ms;
        match bucket.tokens.checked_sub(MINUTE_MS) {
            Some(rest) => {
                bucket.tokens = rest;
                Ok(())
            }
            None => {
                let wait_ms = (MINUTE_MS - bucket.tokens).div_ceil(self.per_minute);
                Err(u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX))
            }
        }
    }

    /// Forgets who has been quiet for a minute; if that is nobody, everybody:
    /// filling the table costs an attacker a password hash an entry.
    fn make_room(&self, buckets: &mut HashMap<UserId, Bucket>, now_ms: u64) {
        buckets.retain(|_, bucket| bucket.filled_ms.saturating_add(MINUTE_MS) > now_ms);
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
        let limit = LoginLimit::new(2, 10);
        let alice = user("alice");
        assert_eq!(limit.take(&alice, 0), Ok(()));
        assert_eq!(limit.take(&alice, 0), Ok(()));
        assert_eq!(limit.take(&alice, 0), Err(30));
        assert_eq!(limit.take(&user("bob"), 0), Ok(()));
        assert_eq!(limit.take(&alice, 29_999), Err(1));
        assert_eq!(limit.take(&alice, 30_000), Ok(()));
        // A clock that steps back gives nothing away.
        assert!(limit.take(&alice, 0).is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let limit = LoginLimit::new(1, 8);
        for n in 0..100 {
            assert_eq!(limit.take(&user(&format!("u{n}")), 0), Ok(()));
        }
        assert!(limit.buckets.lock().len() <= 8);
    }
}
