//! The messages that are followed, of one order.

use std::time::Duration;

use hashbrown::HashMap;
use sluice_protocol::{ClientMsgId, UserId};

use crate::{report::Report, timeline::Timeline, tracer::Sighting, watch::Order};

/// Bounded by its order. Messages are numbered through all orders, so that a number of
/// a former one names nothing.
#[derive(Debug)]
pub(crate) struct Table {
    order: Option<Order>,
    began_us: u64,
    /// Unix time at which the clock was at 0, as of that moment: the two drift apart.
    origin_unix_us: u64,
    /// Number of the first timeline.
    first: u32,
    timelines: Vec<Timeline>,
    by_name: HashMap<(UserId, ClientMsgId), u32>,
    messages_over: u64,
}

/// When new messages are no longer begun, those under way are still followed for so long.
pub const SETTLE: Duration = Duration::from_secs(5);

// === impl Table ===

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            order: None,
            began_us: 0,
            origin_unix_us: 0,
            first: 1,
            timelines: Vec::new(),
            by_name: HashMap::new(),
            messages_over: 0,
        }
    }

    /// Forgets all that it has, and begins anew.
    pub(crate) fn begin(&mut self, order: Option<Order>, now_us: u64, unix_us: u64) {
        let used = u32::try_from(self.timelines.len()).unwrap_or(u32::MAX);
        *self = Self {
            order,
            began_us: now_us,
            origin_unix_us: unix_us.saturating_sub(now_us),
            // After four billion messages the numbers begin again.
            first: self.first.checked_add(used).unwrap_or(1),
            ..Self::new()
        };
    }

    /// True once nothing is followed any more.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        now_us
            >= self
                .begins_until_us()
                .saturating_add(SETTLE.as_micros() as u64)
    }

    /// The number of a message, if it is followed, or is from now on.
    pub(crate) fn number(&mut self, sighting: &Sighting<'_>, now_us: u64) -> Option<u32> {
        let order = self.order.as_ref()?;
        let name = (sighting.sender.clone(), sighting.message);
        if let Some(number) = self.by_name.get(&name) {
            return Some(*number);
        }
        let (sender, message) = (sighting.sender, sighting.message);
        if now_us >= self.begins_until_us()
            || !order.watch.wants(sender, message, sighting.connection)
        {
            return None;
        }
        let taken = self.timelines.len();
        if taken >= order.messages_max {
            let over = u64::from(sighting.is_fresh);
            self.messages_over = self.messages_over.saturating_add(over);
            return None;
        }
        let number = self.first.checked_add(u32::try_from(taken).ok()?)?;
        let timeline = Timeline::new(sender.clone(), message, sighting.connection);
        self.timelines.push(timeline);
        self.by_name.insert(name, number);
        Some(number)
    }

    pub(crate) fn timeline(&mut self, number: u32) -> Option<&mut Timeline> {
        let index = number.checked_sub(self.first)?;
        self.timelines.get_mut(usize::try_from(index).ok()?)
    }

    pub(crate) fn report(&self, now_us: u64) -> Report {
        let left_us = self.begins_until_us().saturating_sub(now_us);
        Report {
            armed: left_us > 0,
            order: self.order.clone(),
            left_ms: left_us.div_ceil(1_000),
            messages_over: self.messages_over,
            messages: self
                .timelines
                .iter()
                .map(|timeline| timeline.row(self.origin_unix_us))
                .collect(),
        }
    }

    fn begins_until_us(&self) -> u64 {
        let for_us = self.order.as_ref().map_or(0, |it| it.for_s * 1_000_000);
        self.began_us.saturating_add(for_us)
    }
}
