//! Where a loop keeps its connections: slots that are found by index and
//! checked by generation.

use sluice_protocol::ConnectionId;

/// Names a channel of one loop, never reused while the loop lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChannelKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Slots in chunks: growing moves nobody, so the slab never holds twice what
/// it needs.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: Vec<u32>,
    len: u32,
    capacity: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

const CHUNK_SLOTS: usize = 256;

// === impl ChannelKey ===

impl ChannelKey {
    /// The part of a connection id that its loop goes by.
    pub(crate) fn of(connection: ConnectionId) -> Self {
        Self {
            slot: connection.slot,
            generation: connection.generation,
        }
    }

    /// As one number, for poll tokens and timers.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            // Truncation takes the two halves apart again.
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

// === impl Slab ===

impl<T> Slab<T> {
    /// Memory of one slot.
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// Takes no memory until it is used.
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
            // The last slot number is left for tokens that name no channel.
            capacity: capacity.min(u32::MAX - 1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// True when nothing more can be put in.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.grown() >= self.capacity as usize
    }

    fn grown(&self) -> usize {
        let full_chunks = self.chunks.len().saturating_sub(1) * CHUNK_SLOTS;
        full_chunks + self.chunks.last().map_or(0, Vec::len)
    }

    /// Puts in what `make` makes of its key; `None` when all slots are taken.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(ChannelKey) -> T) -> Option<ChannelKey> {
        let index = self.free.pop().or_else(|| self.grow())?;
        let slot = self.slot_mut(index)?;
        let key = ChannelKey {
            slot: index,
            generation: slot.generation,
        };
        slot.value = Some(make(key));
        self.len += 1;
        Some(key)
    }

    pub(crate) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut T> {
        let slot = self.slot_mut(key.slot)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: ChannelKey) -> Option<T> {
        let slot = self.slot_mut(key.slot)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.len -= 1;
        if let Some(slot) = self.slot_mut(key.slot) {
            // A slot whose generations are used up is left out for good.
            if let Some(next) = slot.generation.checked_add(1) {
                slot.generation = next;
                self.free.push(key.slot);
            }
        }
        Some(value)
    }

    pub(crate) fn get(&self, key: ChannelKey) -> Option<&T> {
        let index = key.slot as usize;
        let chunk = self.chunks.get(index / CHUNK_SLOTS)?;
        let slot = chunk.get(index % CHUNK_SLOTS)?;
        (slot.generation == key.generation).then_some(slot.value.as_ref()?)
    }

    /// Of what this slot holds, if anything.
    pub(crate) fn key_at(&self, index: u32) -> Option<ChannelKey> {
        let chunk = self.chunks.get(index as usize / CHUNK_SLOTS)?;
        let slot = chunk.get(index as usize % CHUNK_SLOTS)?;
        slot.value.as_ref()?;
        Some(ChannelKey {
            slot: index,
            generation: slot.generation,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChannelKey, &T)> {
        self.iter_from(0)
    }

    /// Those in this slot and behind it.
    pub(crate) fn iter_from(&self, slot: u32) -> impl Iterator<Item = (ChannelKey, &T)> {
        let (chunk, within) = (slot as usize / CHUNK_SLOTS, slot as usize % CHUNK_SLOTS);
        let slots = self.chunks.iter().skip(chunk).flatten().skip(within);
        slots.zip(slot..).filter_map(|(slot, index)| {
            let key = ChannelKey {
                slot: index,
                generation: slot.generation,
            };
            Some((key, slot.value.as_ref()?))
        })
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = index as usize;
        self.chunks
            .get_mut(index / CHUNK_SLOTS)?
            .get_mut(index % CHUNK_SLOTS)
    }

    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.grown()).ok()?;
        if index >= self.capacity {
            return None;
        }
        if self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.len() == CHUNK_SLOTS)
        {
            self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
        }
        self.chunks.last_mut()?.push(Slot {
            generation: 0,
            value: None,
        });
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_reused() {
        let mut slab = Slab::new(1_000);
        let keys: Vec<_> = (0..1_000)
            .map(|i| slab.insert_with(|_| i).unwrap())
            .collect();
        assert!(slab.is_full());
        assert_eq!(slab.insert_with(|_| 1), None);
        assert_eq!(slab.get_mut(keys[999]), Some(&mut 999));
        assert_eq!(slab.remove(keys[500]), Some(500));
        assert_eq!(slab.remove(keys[500]), None);
        assert_eq!(slab.key_at(500), None);
        let again = slab.insert_with(|_| 7).unwrap();
        assert_eq!((again.slot, again.generation), (500, 1));
        assert_eq!(slab.get_mut(keys[500]), None);
        assert_eq!(slab.get_mut(again), Some(&mut 7));
        assert_eq!(slab.key_at(500), Some(again));
        assert_eq!(slab.key_at(1_000), None);
        assert_eq!(ChannelKey::from_bits(again.to_bits()), again);
        assert_eq!((slab.len(), slab.iter().count()), (1_000, 1_000));
        assert_eq!(slab.iter().count(), 1_000);
        for slot in [0, 1, 255, 256, 700, 999, 1_000, 5_000] {
            let from: Vec<_> = slab.iter_from(slot).map(|(key, _)| key.slot).collect();
            assert_eq!(from, (slot..1_000).collect::<Vec<_>>());
        }
    }
}
