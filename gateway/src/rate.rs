//! A rate limit in eight bytes: the generic cell rate algorithm (ITU-T I.371),
//! which keeps one point in time instead of a bucket and its filling.

/// How much is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Microseconds that one unit uses up; 0: no limit.
    interval_us: u64,
    /// How far ahead of the clock a meter may run.
    burst_us: u64,
}

/// How much was used, by one connection or one address.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateMeter {
    /// When all that was taken will have been paid for.
    paid_at_us: u64,
}

// === impl Rate ===

impl Rate {
    /// `per_s` units a second in the long run, `burst` at once; 0: no limit.
    pub(crate) fn per_second(per_s: u32, burst: u32) -> Self {
        Self::every(1_000_000, per_s, burst)
    }

    /// `per_min` units a minute, all at once if need be; 0: no limit.
    pub(crate) fn per_minute(per_min: u32) -> Self {
        Self::every(60_000_000, per_min, per_min)
    }

    fn every(span_us: u64, units: u32, burst: u32) -> Self {
        let interval_us = match u64::from(units) {
            0 => 0,
            units => (span_us / units).max(1),
        };
        Self {
            interval_us,
            burst_us: interval_us.saturating_mul(u64::from(burst.max(1))),
        }
    }
}

// === impl RateMeter ===

impl RateMeter {
    /// Takes one unit, or says in how many milliseconds there will be one.
    pub(crate) fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), u64> {
        // Where loops share a meter, another's clock may be ahead of this one's.
        if rate.interval_us == 0 {
            return Ok(());
        }
        let now_us = now_ms.saturating_mul(1000);
        let paid_at_us = self.paid_at_us.max(now_us).saturating_add(rate.interval_us);
        let over_us = (paid_at_us - now_us).saturating_sub(rate.burst_us);
        if over_us > 0 {
            return Err(over_us.div_ceil(1000));
        }
        self.paid_at_us = paid_at_us;
        Ok(())
    }

    /// Takes `units` more that are refused in no case: what exceeds the burst is
    /// a debt, and nothing is given until it has been paid.
    pub(crate) fn charge(&mut self, rate: Rate, units: u64, now_ms: u64) {
        let now_us = now_ms.saturating_mul(1000);
        let cost_us = rate.interval_us.saturating_mul(units);
        self.paid_at_us = self.paid_at_us.max(now_us).saturating_add(cost_us);
    }

    /// True when a further unit would be refused.
    pub(crate) fn is_exhausted(&self, rate: Rate, now_ms: u64) -> bool {
        let mut trial = *self;
        trial.take(rate, now_ms).is_err()
    }

    /// The number to be kept of it; 0 once everything has been paid for.
    pub(crate) fn pack(&self, now_ms: u64) -> u64 {
        match self.is_rested(now_ms) {
            true => 0,
            false => self.paid_at_us,
        }
    }

    pub(crate) fn unpack(paid_at_us: u64) -> Self {
        Self { paid_at_us }
    }

    /// True when everything has been paid for: as good as a new meter.
    pub(crate) fn is_rested(&self, now_ms: u64) -> bool {
        self.paid_at_us <= now_ms.saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::per_second(10, 5);
        let mut meter = RateMeter::default();
        let taken = (0..100).filter(|_| meter.take(rate, 1_000).is_ok()).count();
        assert_eq!(taken, 5);
        assert_eq!(meter.take(rate, 1_000), Err(100));
        assert!(meter.is_exhausted(rate, 1_099));
        assert_eq!(meter.take(rate, 1_100), Ok(()));
        let taken = (0..100)
            .filter(|i| meter.take(rate, 1_100 + i * 100).is_ok())
            .count();
        assert_eq!(taken, 99);
        assert!(meter.is_rested(1_000_000));
    }

    #[test]
    fn a_charge_is_a_debt_that_must_be_paid() {
        let rate = Rate::per_second(10, 5);
        let mut meter = RateMeter::default();
        assert_eq!(meter.take(rate, 1_000), Ok(()));
        meter.charge(rate, 63, 1_000);
        // 64 units were taken of 5: 59 are owed, and the next is the 60th.
        assert_eq!(meter.take(rate, 1_000), Err(6_000));
        assert_eq!(meter.take(rate, 6_999), Err(1));
        assert_eq!(meter.take(rate, 7_000), Ok(()));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut meter = RateMeter::default();
        meter.charge(Rate::per_second(0, 0), u64::MAX, 5);
        assert!((0..1_000_000).all(|_| meter.take(Rate::per_second(0, 0), 5).is_ok()));
        assert!((0..1_000).all(|_| meter.take(Rate::per_minute(0), 5).is_ok()));
        assert!(
            meter.take(Rate::per_second(0, 0), 4).is_ok(),
            "an earlier clock"
        );
    }
}
