//! The wheel: what is scheduled when, and what has come due.
//!
//! Inside, time is counted in ticks of a power of two of milliseconds, so that no operation
//! divides. The slot an entry waits in never begins later than the entry's own tick, but may begin
//! earlier: because the level is coarse, or because the timer was re-armed to a later time and
//! left where it was. Whenever the time of a slot comes, its entries are looked at one by one and
//! fire or wait again, each by its own deadline; both cases are one code path.

use std::error::Error;
use std::fmt;

use crate::levels::{Levels, SlotId};
use crate::slab::{Link, MAX_ENTRIES, NIL, Slab, TimerHandle};

/// Marks the `prev` of a slot's first entry, which then names the slot.
const FIRST_IN_SLOT: u32 = MAX_ENTRIES;

/// As many timers as the wheel may hold are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WheelFull;

impl fmt::Display for WheelFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the timing wheel is full")
    }
}

impl Error for WheelFull {}

/// A timing wheel whose timers each carry a small payload, such as a slot number or a key.
///
/// The wheel's present is the latest time that [`new`](Wheel::new) or
/// [`advance`](Wheel::advance) was told; the other operations don't need to know the time.
pub struct Wheel<T> {
    slab: Slab<T>,
    levels: Levels,
    /// The present, in ticks. The slot of this very tick may hold entries that are overdue.
    now: u64,
    /// A tick is `1 << tick_shift` milliseconds.
    tick_shift: u32,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel at `now_ms`, for at most `capacity_entries` pending timers (and never more
    /// than 2^31). Takes no heap memory yet.
    ///
    /// A tick lasts `tick_ms` rounded down to a power of two, at least 1: finer than asked, never
    /// coarser.
    pub fn new(tick_ms: u64, capacity_entries: usize, now_ms: u64) -> Self {
        let tick_shift = tick_ms.max(1).ilog2();
        Self {
            slab: Slab::new(capacity_entries),
            levels: Levels::new(),
            now: now_ms >> tick_shift,
            tick_shift,
        }
    }

    /// Arms a timer that fires on the first [`advance`](Wheel::advance) to `deadline_ms` or later,
    /// by the tick. A deadline that has passed fires on the next `advance`.
    ///
    /// # Errors
    ///
    /// [`WheelFull`] when [`capacity`](Wheel::capacity) timers are pending.
    #[inline]
    pub fn schedule(&mut self, deadline_ms: u64, payload: T) -> Result<TimerHandle, WheelFull> {
        let handle = self.slab.insert(deadline_ms, payload).ok_or(WheelFull)?;
        self.link(handle.index(), self.due_tick(deadline_ms));
        Ok(handle)
    }

    /// Disarms a timer and returns its payload; `None` if it fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        self.slab.live_mut(handle)?;
        self.unlink(handle.index());
        Some(self.slab.remove(handle.index()))
    }

    /// Moves a timer to another deadline, under the same handle; `false` if it fired or was
    /// cancelled before, and nothing happens then.
    ///
    /// Later is cheaper than earlier: the timer stays in its slot and is moved when that comes up.
    #[inline]
    pub fn rearm(&mut self, handle: TimerHandle, deadline_ms: u64) -> bool {
        let Some(entry) = self.slab.live_mut(handle) else {
            return false;
        };
        let earlier = deadline_ms < entry.deadline_ms;
        entry.deadline_ms = deadline_ms;
        if earlier {
            self.unlink(handle.index());
            self.link(handle.index(), self.due_tick(deadline_ms));
        }
        true
    }

    /// Moves the present to `now_ms` and appends the payloads of all timers that are due to
    /// `expired`, tick by tick in order (within a tick in no particular order; overdue ones first).
    ///
    /// The payloads go to a vector, and not to a callback, so that whoever handles them is free to
    /// schedule, cancel and re-arm on this same wheel. Their handles are stale already. The caller
    /// keeps the vector and clears it, so that in the long run nothing is allocated; at most
    /// [`capacity`](Wheel::capacity) payloads are appended.
    ///
    /// When `now_ms` lies before the wheel's present (the clock went back) nothing happens: no
    /// timer fires until the clock has caught up.
    pub fn advance(&mut self, now_ms: u64, expired: &mut Vec<T>) {
        let target = now_ms >> self.tick_shift;
        if target < self.now {
            return;
        }
        while let Some((slot, tick)) = self.levels.earliest(self.now) {
            if tick > target {
                break;
            }
            // From the first tick of a slot, all that waits in it belongs to a lower level.
            self.now = tick;
            if slot.is_single_tick() {
                self.fire(slot, expired);
            } else {
                self.cascade(slot);
            }
        }
        // What is left begins after `target`, hence is at the same level seen from there.
        self.now = target;
    }

    /// When to call [`advance`](Wheel::advance) next, for the timeout of a poll; `None` when no
    /// timer is pending.
    ///
    /// Never later than the earliest timer fires, which is its deadline rounded up to a tick, or
    /// the wheel's present if that is past. It may be earlier, when timers are to be moved first;
    /// an `advance` to this time always makes progress, so a loop that follows it doesn't spin.
    #[inline]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let (_, tick) = self.levels.earliest(self.now)?;
        Some(tick.saturating_mul(self.tick_ms()))
    }

    /// Pending timers.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no timer is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most timers that may be pending at once.
    pub fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// Length of a tick: how late a timer may be.
    pub fn tick_ms(&self) -> u64 {
        1 << self.tick_shift
    }

    /// The first tick that begins at or after the deadline: where a timer is never early.
    #[inline]
    fn due_tick(&self, deadline_ms: u64) -> u64 {
        let tick = deadline_ms >> self.tick_shift;
        // Adding `tick_ms - 1` before the shift would overflow for the latest deadlines.
        tick + u64::from(tick << self.tick_shift != deadline_ms)
    }

    /// Fires the timers of a single-tick slot that are due; those re-armed to later wait again.
    fn fire(&mut self, slot: SlotId, expired: &mut Vec<T>) {
        let mut index = self.levels.take(slot);
        while index != NIL {
            let next = self.slab.link(index).next;
            let due = self.due_tick(self.slab.at(index).deadline_ms);
            if due <= self.now {
                expired.push(self.slab.remove(index));
            } else {
                self.link(index, due);
            }
            index = next;
        }
    }

    /// Spreads the timers of a coarse slot, whose time has begun, over finer ones.
    fn cascade(&mut self, slot: SlotId) {
        let mut index = self.levels.take(slot);
        while index != NIL {
            let next = self.slab.link(index).next;
            let due = self.due_tick(self.slab.at(index).deadline_ms);
            self.link(index, due);
            index = next;
        }
    }

    /// Puts an entry that is in no list first in the slot of a tick; a past tick counts as now.
    #[inline]
    fn link(&mut self, index: u32, due: u64) {
        let slot = SlotId::of(due.max(self.now), self.now);
        let next = self.levels.push(slot, index);
        *self.slab.link_mut(index) = Link {
            next,
            prev: FIRST_IN_SLOT | slot.bits(),
        };
        if next != NIL {
            self.slab.link_mut(next).prev = index;
        }
    }

    /// Takes an entry out of the list of its slot.
    #[inline]
    fn unlink(&mut self, index: u32) {
        let Link { next, prev } = self.slab.link(index);
        if next != NIL {
            self.slab.link_mut(next).prev = prev;
        }
        if prev & FIRST_IN_SLOT == 0 {
            self.slab.link_mut(prev).next = next;
        } else {
            self.levels
                .replace_head(SlotId::from_bits(prev & !FIRST_IN_SLOT), next);
        }
    }
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("now_ms", &(self.now << self.tick_shift))
            .field("tick_ms", &(1_u64 << self.tick_shift))
            .finish_non_exhaustive()
    }
}
