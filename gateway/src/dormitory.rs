//! Where the packed state of sleeping connections lies: cells of a few sizes, cut
//! from large chunks.
//!
//! A block of its own each would lie in the holes that a burst of logins left in the
//! heap, and hold on to the memory around it: twice what it needs, as measured with
//! 60,000 sessions. A chunk is a mapping of its own. Chunks go back to the system when
//! nobody sleeps in cells of their size any more; where it is one, it stays.
//!
//! Cost: up to 15 bytes a sleeper are left over in its cell; laying down and taking
//! up are a copy each. What is taken up is overwritten, since keys are in it.

use zeroize::{Zeroize, Zeroizing};

/// Cells are this many bytes, or twice, three times … as many.
const STEP_BYTES: usize = 16;
/// Nobody larger sleeps.
pub(crate) const CELL_MAX_BYTES: usize = 4096;
/// As much as the allocator doesn't take from its heap, however it is set up. What isn't
/// used of it takes no memory.
const CHUNK_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Dormitory {
    /// By size; the first has cells of one step.
    rooms: Vec<Room>,
}

/// Where somebody sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bed {
    cell: u32,
    length: u16,
}

/// The cells of one size.
#[derive(Debug, Default)]
struct Room {
    chunks: Vec<Zeroizing<Box<[u8]>>>,
    free: Vec<u32>,
    /// Cells that were ever used, the free ones among them.
    used: u32,
}

// === impl Dormitory ===

impl Dormitory {
    pub(crate) fn new() -> Self {
        let rooms = (0..CELL_MAX_BYTES / STEP_BYTES).map(|_| Room::default());
        Self {
            rooms: rooms.collect(),
        }
    }

    /// Lays a copy of the bytes down; `None` if they are too many.
    pub(crate) fn lay(&mut self, bytes: &[u8]) -> Option<Bed> {
        let length = u16::try_from(bytes.len()).ok()?;
        let (room, cell_bytes) = self.room(length)?;
        let cell = room.take(cell_bytes)?;
        let bed = Bed { cell, length };
        room.bytes_mut(bed, cell_bytes)?.copy_from_slice(bytes);
        Some(bed)
    }

    /// What lies there.
    pub(crate) fn look(&self, bed: Bed) -> &[u8] {
        let (index, cell_bytes) = size_of_cell(bed.length);
        let room = self.rooms.get(index);
        let place = place_of(bed, cell_bytes);
        let bytes = room.and_then(|room| room.chunks.get(place.0)?.get(place.1));
        bytes.unwrap_or_default()
    }

    /// Wipes what lies there; the cell is free.
    pub(crate) fn clear(&mut self, bed: Bed) {
        if let Some((room, cell_bytes)) = self.room(bed.length)
            && let Some(bytes) = room.bytes_mut(bed, cell_bytes)
        {
            bytes.zeroize();
            room.give(bed.cell);
        }
    }

    /// Memory of a cell in which this many bytes lie.
    pub(crate) fn cell_bytes(length: usize) -> usize {
        length.div_ceil(STEP_BYTES).max(1) * STEP_BYTES
    }

    /// Of its chunks, what nobody sleeps in.
    #[cfg(test)]
    pub(crate) fn vacant_bytes(&self) -> usize {
        let vacant = self.rooms.iter().zip(1..).map(|(room, steps)| {
            let slept_in = room.used as usize - room.free.len();
            room.chunks.len() * CHUNK_BYTES - slept_in * steps * STEP_BYTES
        });
        vacant.sum()
    }

    fn room(&mut self, length: u16) -> Option<(&mut Room, usize)> {
        let (index, cell_bytes) = size_of_cell(length);
        Some((self.rooms.get_mut(index)?, cell_bytes))
    }
}

// === impl Room ===

impl Room {
    fn take(&mut self, cell_bytes: usize) -> Option<u32> {
        if let Some(cell) = self.free.pop() {
            return Some(cell);
        }
        let cell = self.used;
        let chunk = cell as usize / (CHUNK_BYTES / cell_bytes);
        if chunk == self.chunks.len() {
            let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
            self.chunks.push(Zeroizing::new(chunk));
        }
        self.used = self.used.checked_add(1)?;
        Some(cell)
    }

    fn give(&mut self, cell: u32) {
        self.free.push(cell);
        // One chunk stays: whoever is alone in it may be woken by every datagram that
        // names it, forged ones too, and to wipe and map a chunk costs much more than
        // to wake somebody.
        if self.free.len() == self.used as usize && self.chunks.len() > 1 {
            *self = Self::default();
        }
    }

    fn bytes_mut(&mut self, bed: Bed, cell_bytes: usize) -> Option<&mut [u8]> {
        let (chunk, range) = place_of(bed, cell_bytes);
        self.chunks.get_mut(chunk)?.get_mut(range)
    }
}

/// Index of the room, and the bytes of its cells.
fn size_of_cell(length: u16) -> (usize, usize) {
    let cell_bytes = Dormitory::cell_bytes(length.into());
    (cell_bytes / STEP_BYTES - 1, cell_bytes)
}

/// The chunk, and where in it.
fn place_of(bed: Bed, cell_bytes: usize) -> (usize, std::ops::Range<usize>) {
    let a_chunk = CHUNK_BYTES / cell_bytes;
    let cell = bed.cell as usize;
    let start = cell % a_chunk * cell_bytes;
    (cell / a_chunk, start..start + usize::from(bed.length))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everybody_finds_what_was_laid_down(
            turns in prop::collection::vec((any::<bool>(), 0..=CELL_MAX_BYTES, any::<u8>()), 1..300)
        ) {
            let mut dormitory = Dormitory::new();
            let mut told: HashMap<usize, (Bed, Vec<u8>)> = HashMap::new();
            for (number, (lay, length, byte)) in turns.into_iter().enumerate() {
                if lay {
                    // Few sizes, so that cells are used again.
                    let bytes = vec![byte; length / 700 * 40];
                    let bed = dormitory.lay(&bytes).unwrap();
                    told.insert(number, (bed, bytes));
                } else if let Some(&key) = told.keys().next() {
                    let (bed, _) = told.remove(&key).unwrap();
                    dormitory.clear(bed);
                }
                for (bed, bytes) in told.values() {
                    prop_assert_eq!(dormitory.look(*bed), bytes.as_slice());
                }
            }
            for (bed, _) in told.into_values() {
                dormitory.clear(bed);
            }
            prop_assert!(dormitory.rooms.iter().all(|room| room.chunks.len() <= 1));
        }
    }

    #[test]
    fn who_sleeps_alone_maps_no_chunk_at_each_rest() {
        let mut dormitory = Dormitory::new();
        let mut lay = || {
            let bed = dormitory.lay(&[1; 200]).unwrap();
            let at = dormitory.look(bed).as_ptr();
            dormitory.clear(bed);
            assert_eq!(dormitory.rooms[12].chunks.len(), 1);
            at
        };
        let first = lay();
        assert!((0..100).all(|_| lay() == first));
        // Many go together, and leave nothing.
        let beds: Vec<Bed> = (0..12_000)
            .filter_map(|_| dormitory.lay(&[1; 200]))
            .collect();
        assert!(dormitory.rooms[12].chunks.len() > 1);
        beds.into_iter().for_each(|bed| dormitory.clear(bed));
        assert!(dormitory.rooms[12].chunks.is_empty());
    }

    #[test]
    fn what_is_too_large_is_not_laid_down() {
        let mut dormitory = Dormitory::new();
        assert!(dormitory.lay(&[1; CELL_MAX_BYTES]).is_some());
        assert_eq!(dormitory.lay(&[1; CELL_MAX_BYTES + 1]), None);
        assert_eq!(dormitory.lay(&vec![1; 1 << 20]), None);
    }

    #[test]
    fn cells_of_several_chunks_do_not_touch() {
        let mut dormitory = Dormitory::new();
        let of = |number: u32| [number.to_be_bytes(); 50].concat();
        let beds: Vec<Bed> = (0..12_000)
            .map(|number| dormitory.lay(&of(number)).unwrap())
            .collect();
        assert_eq!(Dormitory::cell_bytes(200), 208);
        for bed in beds.iter().step_by(2) {
            dormitory.clear(*bed);
            assert!(dormitory.look(*bed).iter().all(|byte| *byte == 0));
        }
        for (bed, number) in beds.iter().zip(0..).skip(1).step_by(2) {
            assert_eq!(dormitory.look(*bed), of(number));
        }
    }
}
