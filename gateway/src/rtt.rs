//! Round trip times and the retransmission timeout, after RFC 6298.

use sluice_codec::packed::{put_number, take_narrow};

/// Smoothed RTT of one connection, in eight bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RttEstimator {
    /// Milliseconds times 8; 0: nothing measured yet.
    srtt_x8: u32,
    /// Milliseconds times 4.
    rttvar_x4: u32,
}

/// Bounds of the retransmission timeout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RtoBounds {
    pub(crate) initial_ms: u32,
    pub(crate) min_ms: u32,
    pub(crate) max_ms: u32,
}

/// A sample beyond this says nothing about a network.
const SAMPLE_MAX_MS: u64 = 60_000;

// === impl RttEstimator ===

impl RttEstimator {
    /// A measured round trip. Never of something that was sent twice (Karn).
    pub(crate) fn sample(&mut self, rtt_ms: u64) {
        // Clamped far below u32; at least one, so that 0 can mean "none".
        let rtt = rtt_ms.clamp(1, SAMPLE_MAX_MS) as u32;
        if self.srtt_x8 == 0 {
            self.srtt_x8 = rtt * 8;
            self.rttvar_x4 = rtt * 2;
            return;
        }
        let off_by = rtt.abs_diff(self.srtt_x8 / 8);
        // RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|, SRTT = 7/8 SRTT + 1/8 R.
        self.rttvar_x4 = self.rttvar_x4 - self.rttvar_x4 / 4 + off_by;
        self.srtt_x8 = (self.srtt_x8 - self.srtt_x8 / 8 + rtt).max(1);
    }

    pub(crate) fn pack(self, out: &mut Vec<u8>) {
        put_number(out, self.srtt_x8.into());
        put_number(out, self.rttvar_x4.into());
    }

    pub(crate) fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            srtt_x8: take_narrow(input)?,
            rttvar_x4: take_narrow(input)?,
        })
    }

    /// Milliseconds; `None` before the first sample.
    pub(crate) fn srtt_ms(&self) -> Option<u32> {
        (self.srtt_x8 > 0).then_some(self.srtt_x8 / 8)
    }

    /// When to give up waiting for the answer to a first try.
    pub(crate) fn rto_ms(&self, bounds: RtoBounds) -> u32 {
        let Some(srtt_ms) = self.srtt_ms() else {
            return bounds.initial_ms;
        };
        // RTO = SRTT + 4 RTTVAR.
        (srtt_ms + self.rttvar_x4).clamp(bounds.min_ms, bounds.max_ms.max(bounds.min_ms))
    }

    /// The wait after the given number of tries: doubled each time, bounded,
    /// and up to an eighth longer by `random`, so that clients don't march in step.
    pub(crate) fn backoff_ms(&self, bounds: RtoBounds, tries: u8, random: u32) -> u64 {
        let doubled = u64::from(self.rto_ms(bounds)) << tries.saturating_sub(1).min(16);
        let wait_ms = doubled.min(u64::from(bounds.max_ms.max(bounds.min_ms)));
        wait_ms + (wait_ms / 8 * u64::from(random >> 16)) / 0x1_0000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RtoBounds = RtoBounds {
        initial_ms: 3_000,
        min_ms: 200,
        max_ms: 10_000,
    };

    #[test]
    fn follows_the_rfc() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.rto_ms(BOUNDS), 3_000);
        rtt.sample(100);
        // SRTT = R, RTTVAR = R/2, RTO = R + 4 * R/2.
        assert_eq!((rtt.srtt_ms(), rtt.rto_ms(BOUNDS)), (Some(100), 300));
        for _ in 0..100 {
            rtt.sample(100);
        }
        assert_eq!(rtt.rto_ms(BOUNDS), 200);
        rtt.sample(5_000);
        assert!(rtt.rto_ms(BOUNDS) > 4_000);
        rtt.sample(u64::MAX);
        assert_eq!(rtt.rto_ms(BOUNDS), 10_000);
    }

    #[test]
    fn backs_off_within_bounds() {
        let rtt = RttEstimator::default();
        assert_eq!(rtt.backoff_ms(BOUNDS, 1, 0), 3_000);
        assert_eq!(rtt.backoff_ms(BOUNDS, 2, 0), 6_000);
        assert_eq!(rtt.backoff_ms(BOUNDS, 3, 0), 10_000);
        assert_eq!(rtt.backoff_ms(BOUNDS, u8::MAX, 0), 10_000);
        let longest = rtt.backoff_ms(BOUNDS, 3, u32::MAX);
        assert!((11_200..=11_250).contains(&longest), "{longest}");
    }
}
