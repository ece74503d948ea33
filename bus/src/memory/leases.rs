//! Which gateways live, by the clock.

use std::{collections::BTreeMap, time::Duration};

use sluice_protocol::Incarnation;
use tokio::time::Instant;

/// Leases by gateway. Those that ran out are remembered, so that a gateway
/// that comes back late learns that its routes are void.
#[derive(Debug, Default)]
pub(super) struct Leases {
    lives: BTreeMap<Incarnation, Life>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Until(Instant),
    Lapsed,
}

/// Lapsed lives that are remembered; the oldest are forgotten first.
const LAPSED_MAX_LIVES: usize = 1024;

// === impl Leases ===

impl Leases {
    /// Registers or renews. False if the gateway's life had run out before.
    pub(super) fn renew(&mut self, gateway: Incarnation, now: Instant, ttl: Duration) -> bool {
        let before = self.lives.insert(gateway, Life::Until(now + ttl));
        match before {
            None => true,
            Some(Life::Until(end)) => end > now,
            Some(Life::Lapsed) => false,
        }
    }

    pub(super) fn release(&mut self, gateway: Incarnation) {
        self.lives.remove(&gateway);
    }

    pub(super) fn is_alive(&self, gateway: Incarnation, now: Instant) -> bool {
        matches!(self.lives.get(&gateway), Some(Life::Until(end)) if *end > now)
    }

    pub(super) fn alive(&self, now: Instant) -> Vec<Incarnation> {
        let lives = self.lives.keys().copied();
        lives
            .filter(|gateway| self.is_alive(*gateway, now))
            .collect()
    }

    /// Whether [`Leases::lapse`] would find any.
    pub(super) fn has_run_out(&self, now: Instant) -> bool {
        self.lives
            .values()
            .any(|life| matches!(life, Life::Until(end) if *end <= now))
    }

    /// Marks the lives that have run out and returns them: once each.
    pub(super) fn lapse(&mut self, now: Instant) -> Vec<Incarnation> {
        let mut lapsed = Vec::new();
        for (gateway, life) in &mut self.lives {
            if matches!(life, Life::Until(end) if *end <= now) {
                *life = Life::Lapsed;
                lapsed.push(*gateway);
            }
        }
        self.forget_oldest();
        lapsed
    }

    fn forget_oldest(&mut self) {
        let dead = self.lives.iter().filter(|(_, life)| **life == Life::Lapsed);
        let dead: Vec<_> = dead.map(|(gateway, _)| *gateway).collect();
        for gateway in dead.iter().rev().skip(LAPSED_MAX_LIVES) {
            self.lives.remove(gateway);
        }
    }
}
