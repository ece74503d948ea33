//! What the channels of one loop share while one of them is worked on.

use std::sync::Arc;

use hashbrown::HashMap;
use sluice_protocol::{ConnectionId, DeviceId, UserId};
use sluice_timer::Wheel;

use crate::{
    ack_tally::AckTally, clock::Now, datagram::Outgoing, handover::Handovers, metrics::LoopMetrics,
    output::OutputPool, shared::Shared, slab::ChannelKey, traces::LoopTraces,
};

/// One loop's tools: time, timers, lists of work, pools. No channel is in here,
/// so a channel and the bench can be borrowed side by side.
pub(crate) struct Workbench {
    pub(crate) shared: Arc<Shared>,
    pub(crate) event_loop: u16,
    /// Read once a turn.
    pub(crate) now: Now,
    /// One entry a channel at most, by its slot; it is cancelled before another gets
    /// the slot.
    pub(crate) wheel: Wheel<u32>,
    /// Channels with output to write at the end of the turn.
    pub(crate) dirty: Vec<ChannelKey>,
    /// Channels with more to read, or with room to write, in the next turn.
    pub(crate) ready: Vec<ChannelKey>,
    pub(crate) pool: OutputPool,
    /// Datagrams to be sent at the end of the turn.
    pub(crate) outgoing: Outgoing,
    pub(crate) tally: AckTally,
    pub(crate) orphans: Orphans,
    pub(crate) handovers: Handovers,
    pub(crate) metrics: LoopMetrics,
    pub(crate) traces: LoopTraces,
    pub(crate) random: Random,
    pub(crate) draining: bool,
}

/// Channels that closed while their login was under way: should the service
/// bind them after all, they are unbound when its answer comes.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    logins: HashMap<ChannelKey, (UserId, DeviceId, u64)>,
}

/// Jitter: fast, and no secret (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(crate) struct Random(u64);

/// Logins that are remembered after their channel closed.
const ORPHANS_MAX: usize = 16_384;
/// For at most this long.
const ORPHAN_TTL_MS: u64 = 60_000;

// === impl Workbench ===

impl Workbench {
    /// Of a loop that has nothing to do yet.
    pub(crate) fn new(shared: Arc<Shared>, event_loop: u16, outgoing: Outgoing, seed: u64) -> Self {
        let now = shared.clock.now();
        let timers_max = shared.config.connections_per_loop_max as usize + 1;
        Self {
            traces: LoopTraces::new(shared.tracer.clone()),
            shared,
            event_loop,
            now,
            wheel: Wheel::new(8, timers_max, now.mono_ms),
            dirty: Vec::new(),
            ready: Vec::new(),
            pool: OutputPool::default(),
            outgoing,
            tally: AckTally::default(),
            orphans: Orphans::default(),
            handovers: Handovers::default(),
            metrics: LoopMetrics::new(),
            random: Random::seeded(seed),
            draining: false,
        }
    }

    pub(crate) fn connection_id(&self, key: ChannelKey) -> ConnectionId {
        ConnectionId {
            incarnation: self.shared.incarnation,
            event_loop: self.event_loop,
            slot: key.slot,
            generation: key.generation,
        }
    }

    /// Takes a connection out of the directory, some time soon.
    pub(crate) fn unbind(&self, user: UserId, device: DeviceId, key: ChannelKey) {
        let connection = self.connection_id(key);
        if !self.shared.unbinder.unbind(user, device, connection) {
            self.metrics.unbinds_dropped.increment(1);
        }
    }

    /// The same for a connection that services believe in although it is over.
    pub(crate) fn unbind_stale(&self, user: &str, key: ChannelKey) {
        if let Ok(user) = UserId::parse(user) {
            let connection = self.connection_id(key);
            self.shared.unbinder.unbind_stale(user, connection);
        }
    }

    /// A delay from `min_ms` to twice that.
    pub(crate) fn spread_ms(&mut self, min_ms: u32) -> u32 {
        let spread = (u64::from(self.random.next()) * u64::from(min_ms)) >> 32;
        // Below min_ms, so it fits.
        min_ms.saturating_add(spread as u32)
    }
}

// === impl Orphans ===

impl Orphans {
    pub(crate) fn remember(
        &mut self,
        key: ChannelKey,
        user: UserId,
        device: DeviceId,
        now_ms: u64,
    ) {
        if self.logins.len() >= ORPHANS_MAX {
            self.logins
                .retain(|_, (_, _, since_ms)| now_ms.saturating_sub(*since_ms) < ORPHAN_TTL_MS);
        }
        if self.logins.len() < ORPHANS_MAX {
            self.logins.insert(key, (user, device, now_ms));
        }
    }

    pub(crate) fn take(&mut self, key: ChannelKey) -> Option<(UserId, DeviceId)> {
        let (user, device, _) = self.logins.remove(&key)?;
        Some((user, device))
    }
}

// === impl Random ===

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // The upper half is the better one.
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}
