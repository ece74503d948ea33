//! The levels of the wheel: 128 slots each, list heads and occupancy bitmaps.
//!
//! A tick lies at the level of the highest group of seven bits in which it differs from the
//! present.
//! Two things follow, and the wheel rests on both. Every slot in use lies at or after the present
//! and none wraps around, so the first set bit of a level is its earliest slot. And everything at
//! a level comes before everything at the level above, so the lowest level in use holds the
//! earliest slot of all.

use std::mem;

use crate::slab::NIL;

/// Bits of a tick that a level resolves.
const SLOT_BITS: u32 = 7;
/// Slots a level: the bits of one bitmap word.
const SLOTS: usize = u128::BITS as usize;
/// Levels it takes to span 64 bits.
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;

/// One slot of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

impl SlotId {
    /// The slot of `tick` as seen from `now`, which must not be later.
    #[inline]
    pub(crate) fn of(tick: u64, now: u64) -> Self {
        debug_assert!(tick >= now, "a slot in the past would never be visited");
        let lowest_level = SLOTS as u64 - 1;
        let level = ((tick ^ now) | lowest_level).ilog2() / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as u32 % SLOTS as u32;
        Self(level * SLOTS as u32 + slot)
    }

    /// The slot that was packed by [`SlotId::bits`].
    #[inline]
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The slot as a small number, below `LEVELS * SLOTS`.
    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// Whether every timer in it belongs to one and the same tick.
    #[inline]
    pub(crate) fn is_single_tick(self) -> bool {
        self.level() == 0
    }

    #[inline]
    fn level(self) -> usize {
        self.0 as usize / SLOTS
    }

    #[inline]
    fn mask(self) -> u128 {
        1 << (self.0 % SLOTS as u32)
    }
}

/// List heads and bitmaps of all levels.
pub(crate) struct Levels {
    /// First entry of each slot; as long as the highest level that was ever in use.
    heads: Vec<u32>,
    /// One bit a slot that holds an entry.
    occupied: [u128; LEVELS],
    /// One bit a level that holds an entry.
    in_use: u16,
}

impl Levels {
    pub(crate) fn new() -> Self {
        Self {
            heads: Vec::new(),
            occupied: [0; LEVELS],
            in_use: 0,
        }
    }

    /// The earliest slot that holds an entry, and the tick at which its time begins.
    #[inline]
    pub(crate) fn earliest(&self, now: u64) -> Option<(SlotId, u64)> {
        if self.in_use == 0 {
            return None;
        }
        let level = self.in_use.trailing_zeros();
        let slot = self.occupied[level as usize].trailing_zeros();
        let shift = level * SLOT_BITS;
        let window = (now >> shift) & !(SLOTS as u64 - 1);
        let tick = (window | u64::from(slot)) << shift;
        Some((SlotId(level * SLOTS as u32 + slot), tick))
    }

    /// Makes `index` the first entry of the slot and returns the one that was (or `NIL`).
    #[inline]
    pub(crate) fn push(&mut self, id: SlotId, index: u32) -> u32 {
        if id.0 as usize >= self.heads.len() {
            self.grow(id.level());
        }
        self.occupied[id.level()] |= id.mask();
        self.in_use |= 1 << id.level();
        mem::replace(&mut self.heads[id.0 as usize], index)
    }

    /// Puts `next` in the place of a first entry that leaves; `NIL` leaves the slot empty.
    #[inline]
    pub(crate) fn replace_head(&mut self, id: SlotId, next: u32) {
        self.heads[id.0 as usize] = next;
        if next == NIL {
            self.mark_empty(id);
        }
    }

    /// Empties the slot and returns its first entry.
    pub(crate) fn take(&mut self, id: SlotId) -> u32 {
        self.mark_empty(id);
        mem::replace(&mut self.heads[id.0 as usize], NIL)
    }

    #[inline]
    fn mark_empty(&mut self, id: SlotId) {
        let level = id.level();
        self.occupied[level] &= !id.mask();
        if self.occupied[level] == 0 {
            self.in_use &= !(1 << level);
        }
    }

    /// Most wheels use the lowest few levels only, so the upper ones cost nothing until then.
    #[cold]
    fn grow(&mut self, level: usize) {
        let slots = (level + 1) * SLOTS;
        self.heads.reserve_exact(slots - self.heads.len());
        self.heads.resize(slots, NIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_begins_at_or_before_each_tick_it_holds() {
        let times = [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            1 << 36,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX,
        ];
        for (i, &now) in times.iter().enumerate() {
            for &tick in &times[i..] {
                let mut levels = Levels::new();
                let id = SlotId::of(tick, now);
                levels.push(id, 0);
                let (found, begins) = levels.earliest(now).expect("one slot is in use");
                assert_eq!(found, id);
                assert!(begins >= now && begins <= tick, "{now} {tick} {begins}");
                assert!(!id.is_single_tick() || begins == tick);
            }
        }
    }

    #[test]
    fn the_lowest_level_is_the_earliest() {
        let mut levels = Levels::new();
        for tick in [1 << 40, 70_000, 20_000, 200, 50] {
            levels.push(SlotId::of(tick, 40), 0);
        }
        let mut begins = Vec::new();
        while let Some((id, tick)) = levels.earliest(40) {
            begins.push(tick);
            levels.take(id);
        }
        assert_eq!(begins, [50, 128, 16_384, 65_536, 1 << 40]);
    }

    #[test]
    fn only_levels_in_use_take_memory() {
        let mut levels = Levels::new();
        assert_eq!(levels.heads.capacity(), 0);
        levels.push(SlotId::of(5, 0), 0);
        assert_eq!(levels.heads.len(), SLOTS);
        levels.push(SlotId::of(u64::MAX, 0), 0);
        assert_eq!(levels.heads.len(), LEVELS * SLOTS);
    }
}
