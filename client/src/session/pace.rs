//! Keeps a session under the packet rate that the server grants it, so that
//! nothing is refused for going too fast.
//!
//! Two meters (the generic cell rate algorithm, as the server's), each a point in
//! time: all packets take three quarters of the burst at most, since what was
//! sent evenly may arrive bunched; cursors take half of rate and burst, so that
//! thousands of them leave room for messages, pulls and pings.

use sluice_protocol::{
    limits::PUSH_ACK_CURSORS_MAX,
    packet::{ConnectAck, Packet, packet::Body},
};

/// How fast packets may go. The default knows no limit.
#[derive(Debug)]
pub(super) struct Pace {
    packets: Meter,
    cursors: Meter,
    /// Cursors in one packet.
    cursors_max: usize,
}

/// How much may be used, and was.
#[derive(Debug, Default)]
struct Meter {
    /// That one unit uses up; 0: no limit.
    interval_us: u64,
    burst_us: u64,
    /// When all that was used will have been paid for.
    paid_at_us: u64,
}

// === impl Pace ===

impl Pace {
    /// What the server grants to this connection.
    pub(super) fn granted(ack: &ConnectAck, now_ms: u64) -> Self {
        let burst = u64::from(ack.packets_burst);
        let interval_us = match u64::from(ack.packets_per_s) {
            0 => 0,
            // A little slower, as no two clocks run alike.
            per_s => 1_000_000_u64.div_ceil(per_s) * 17 / 16 + 1,
        };
        let half = usize::try_from(burst / 2).unwrap_or(usize::MAX);
        let mut pace = Self {
            packets: Meter::new(interval_us, burst / 4 * 3),
            cursors: Meter::new(interval_us * 2, burst / 4),
            cursors_max: match interval_us {
                0 => PUSH_ACK_CURSORS_MAX,
                _ => half.clamp(1, PUSH_ACK_CURSORS_MAX),
            },
        };
        // The login was the first.
        pace.packets.charge(1, now_ms);
        pace
    }

    /// When the next packet may go, if it may not now.
    pub(super) fn wait_until_ms(&self, now_ms: u64) -> Option<u64> {
        self.packets.wait_until_ms(now_ms)
    }

    /// How many cursors may go in one packet now, or when there may be some.
    pub(super) fn cursors(&self, now_ms: u64) -> Result<usize, u64> {
        match self.cursors.wait_until_ms(now_ms) {
            None => Ok(self.cursors_max),
            Some(at_ms) => Err(at_ms),
        }
    }

    /// This packet goes: it counts as one, or as many as it has cursors.
    pub(super) fn went(&mut self, packet: &Packet, now_ms: u64) {
        let cursors = match &packet.body {
            Some(Body::PushAck(ack)) => ack.cursors.len() as u64,
            _ => 0,
        };
        self.packets.charge(cursors.max(1), now_ms);
        self.cursors.charge(cursors, now_ms);
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::granted(&ConnectAck::default(), 0)
    }
}

// === impl Meter ===

impl Meter {
    fn new(interval_us: u64, burst: u64) -> Self {
        Self {
            interval_us,
            burst_us: interval_us.saturating_mul(burst.max(1)),
            paid_at_us: 0,
        }
    }

    fn wait_until_ms(&self, now_ms: u64) -> Option<u64> {
        let now_us = now_ms.saturating_mul(1000);
        let paid_at_us = self.paid_at_us.max(now_us).saturating_add(self.interval_us);
        let at_us = paid_at_us.saturating_sub(self.burst_us);
        (at_us > now_us).then(|| at_us.div_ceil(1000))
    }

    fn charge(&mut self, units: u64, now_ms: u64) {
        let now_us = now_ms.saturating_mul(1000);
        let cost_us = self.interval_us.saturating_mul(units);
        self.paid_at_us = self.paid_at_us.max(now_us).saturating_add(cost_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_protocol::packet::{Cursor, Ping, PushAck};

    const NOW_MS: u64 = 1_790_000_000_000;

    fn granted(packets_per_s: u32, packets_burst: u32) -> Pace {
        let ack = ConnectAck {
            packets_per_s,
            packets_burst,
            ..ConnectAck::default()
        };
        Pace::granted(&ack, NOW_MS)
    }

    fn ping() -> Packet {
        Packet {
            id: 0,
            body: Some(Body::Ping(Ping {})),
        }
    }

    fn ack(cursors: usize) -> Packet {
        let ack = PushAck {
            cursors: vec![Cursor::default(); cursors],
            ..PushAck::default()
        };
        Packet {
            id: 0,
            body: Some(Body::PushAck(ack)),
        }
    }

    #[test]
    fn a_part_of_the_burst_and_then_below_the_rate() {
        let mut pace = granted(1_000, 4_000);
        let mut now_ms = NOW_MS;
        let mut sent = 0;
        while now_ms < NOW_MS + 10_000 {
            match pace.wait_until_ms(now_ms) {
                Some(at_ms) => {
                    assert!(at_ms > now_ms);
                    now_ms = at_ms;
                }
                None => {
                    pace.went(&ping(), now_ms);
                    sent += 1;
                }
            }
        }
        assert!((3_000 + 9_000..3_000 + 10_000).contains(&sent), "{sent}");
    }

    #[test]
    fn cursors_leave_half_of_it_to_others() {
        let mut pace = granted(1_000, 4_000);
        let mut told = 0;
        while let Ok(most) = pace.cursors(NOW_MS) {
            pace.went(&ack(most), NOW_MS);
            told += most;
        }
        assert!((1_000..1_064).contains(&told), "{told}");
        assert_eq!(pace.wait_until_ms(NOW_MS), None);
        let at_ms = pace.cursors(NOW_MS).unwrap_err();
        assert!(pace.cursors(at_ms).is_ok());
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = granted(0, 0);
        for _ in 0..1_000 {
            assert_eq!(pace.cursors(NOW_MS), Ok(64));
            pace.went(&ack(64), NOW_MS);
        }
        assert_eq!(pace.wait_until_ms(NOW_MS), None);
    }

    #[test]
    fn the_least_limit_still_lets_things_go() {
        let mut pace = granted(1, 1);
        let at_ms = pace.wait_until_ms(NOW_MS).unwrap();
        assert!(pace.wait_until_ms(at_ms).is_none());
        assert_eq!(pace.cursors(at_ms), Ok(1));
        pace.went(&ack(1), at_ms);
        assert!(pace.wait_until_ms(at_ms).is_some());
    }
}
