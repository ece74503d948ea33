//! The slab: timer entries addressed by index, reused through a free list.
//!
//! The links of the lists lie in a vector of their own. A list visits its entries in no order of
//! memory, so the walk over a long one waits for each next link to be fetched; eight bytes a link
//! stay in the cache four times longer than whole entries, and what else an entry holds is fetched
//! while the walk goes on.
//!
//! An entry's generation rises by one when it is taken and by one when it is given back, so it is
//! odd while the timer lives, and a handle (always odd) can't match a free entry. It wraps after
//! 2^31 timers in the same entry; only a handle kept for exactly that long could be mistaken.

use std::num::NonZeroU32;

/// No entry: the end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// Most entries a slab may hold: indices stay below the bit that marks a first entry's `prev`.
pub(crate) const MAX_ENTRIES: u32 = 1 << 31;

/// A claim on one scheduled timer: 8 bytes, also inside an `Option`.
///
/// It goes stale when the timer fires or is cancelled, and is harmless from then on. It means
/// something only to the wheel that issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerHandle {
    index: u32,
    generation: NonZeroU32,
}

impl TimerHandle {
    /// As one number, for an owner that packs what it holds.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// What [`TimerHandle::to_bits`] gave; `None` of a number that it can't have given.
    pub fn from_bits(bits: u64) -> Option<Self> {
        Some(Self {
            // Truncation takes the two halves apart again.
            index: bits as u32,
            generation: NonZeroU32::new((bits >> 32) as u32)?,
        })
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// One timer.
pub(crate) struct Entry<T> {
    pub(crate) deadline_ms: u64,
    payload: T,
    generation: u32,
}

/// The place of an entry in a list.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    /// Next in the slot's list, or in the free list.
    pub(crate) next: u32,
    /// Previous in the slot's list; for the first one the slot itself, marked by the wheel.
    pub(crate) prev: u32,
}

/// Entries up to a fixed number of them.
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    links: Vec<Link>,
    /// Head of the free list; last freed, first reused, while it is warm in the cache.
    free: u32,
    live: u32,
    capacity: u32,
}

impl<T: Copy> Slab<T> {
    /// A slab for up to `capacity` entries (at most `MAX_ENTRIES`); allocates nothing yet.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity)
            .unwrap_or(MAX_ENTRIES)
            .min(MAX_ENTRIES);
        Self {
            entries: Vec::new(),
            links: Vec::new(),
            free: NIL,
            live: 0,
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live as usize
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Takes an entry, linked to nothing; `None` when all are taken.
    #[inline]
    pub(crate) fn insert(&mut self, deadline_ms: u64, payload: T) -> Option<TimerHandle> {
        let index = if self.free == NIL {
            self.append(deadline_ms, payload)?
        } else {
            let index = self.free;
            self.free = self.link(index).next;
            let entry = self.at_mut(index);
            entry.deadline_ms = deadline_ms;
            entry.payload = payload;
            index
        };
        self.live += 1;
        let entry = self.at_mut(index);
        entry.generation = entry.generation.wrapping_add(1);
        // The generation is odd here, so `1 | generation` only tells the type that it isn't zero.
        let generation = NonZeroU32::MIN | entry.generation;
        Some(TimerHandle { index, generation })
    }

    /// Gives back a live entry that is in no list any more; handles to it are stale from here on.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> T {
        self.link_mut(index).next = self.free;
        self.free = index;
        self.live -= 1;
        let entry = self.at_mut(index);
        entry.generation = entry.generation.wrapping_add(1);
        entry.payload
    }

    /// The entry of a handle, unless the handle is stale.
    #[inline]
    pub(crate) fn live_mut(&mut self, handle: TimerHandle) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(handle.index as usize)?;
        (entry.generation == handle.generation.get()).then_some(entry)
    }

    /// The entry at an index that a list holds.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> &Entry<T> {
        &self.entries[index as usize]
    }

    #[inline]
    fn at_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize]
    }

    /// The place of an entry in its list.
    #[inline]
    pub(crate) fn link(&self, index: u32) -> Link {
        self.links[index as usize]
    }

    /// The place of an entry in its list, to change it.
    #[inline]
    pub(crate) fn link_mut(&mut self, index: u32) -> &mut Link {
        &mut self.links[index as usize]
    }

    /// A new entry at the end. The vectors double, but never past the capacity.
    fn append(&mut self, deadline_ms: u64, payload: T) -> Option<u32> {
        let used = self.entries.len();
        let left = self.capacity() - used;
        if left == 0 {
            return None;
        }
        if used == self.entries.capacity() {
            let more = used.max(4).min(left);
            self.entries.reserve_exact(more);
            self.links.reserve_exact(more);
        }
        self.entries.push(Entry {
            deadline_ms,
            payload,
            generation: 0,
        });
        self.links.push(Link {
            next: NIL,
            prev: NIL,
        });
        Some(used as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_takes_32_bytes_and_a_handle_8() {
        assert_eq!(size_of::<Entry<u64>>() + size_of::<Link>(), 32);
        assert_eq!(size_of::<TimerHandle>(), 8);
        assert_eq!(size_of::<Option<TimerHandle>>(), 8);
    }

    #[test]
    fn a_handle_may_be_kept_as_a_number() {
        let mut slab: Slab<u8> = Slab::new(8);
        for payload in 0..8 {
            let handle = slab.insert(0, payload).expect("room for eight");
            assert_eq!(TimerHandle::from_bits(handle.to_bits()), Some(handle));
        }
        assert_eq!(TimerHandle::from_bits(7), None);
    }

    #[test]
    fn the_generation_wraps_without_reviving_a_handle() {
        let mut slab: Slab<u8> = Slab::new(1);
        let first = slab.insert(0, 1).expect("room for one");
        slab.remove(first.index());
        // As if 2^31 - 1 timers had come and gone in this entry.
        slab.at_mut(0).generation = u32::MAX - 1;

        let last = slab.insert(0, 2).expect("room for one");
        assert_eq!(last.generation.get(), u32::MAX);
        assert!(slab.live_mut(first).is_none());
        assert_eq!(slab.remove(last.index()), 2);
        assert_eq!(slab.at(0).generation, 0);

        // A handle from one whole lap ago never matches the free entry, and the last one is stale.
        assert!(slab.live_mut(first).is_none() && slab.live_mut(last).is_none());
        let again = slab.insert(0, 3).expect("room for one");
        assert_eq!(again.generation.get(), 1);
        assert!(slab.live_mut(last).is_none() && slab.live_mut(again).is_some());
    }

    #[test]
    fn memory_grows_with_use_and_stops_at_the_capacity() {
        let mut slab: Slab<u64> = Slab::new(100);
        assert_eq!((slab.entries.capacity(), slab.links.capacity()), (0, 0));
        let handles: Vec<_> = (0..100).map_while(|i| slab.insert(i, i)).collect();
        assert_eq!((handles.len(), slab.entries.capacity()), (100, 100));
        assert!(slab.insert(0, 0).is_none());
        slab.remove(handles[40].index());
        assert_eq!(slab.insert(0, 0).map(TimerHandle::index), Some(40));
        assert_eq!((slab.len(), slab.links.capacity()), (100, 100));
    }

    #[test]
    fn an_absurd_capacity_is_cut_to_what_an_index_reaches() {
        assert_eq!(Slab::<u8>::new(usize::MAX).capacity(), MAX_ENTRIES as usize);
    }
}
