//! Where the packed state of sleeping connections lies: cells of a few sizes, cut
//! from large chunks.
//!
//! A block of its own each would lie in the holes that a burst of logins left in the
//! heap, and hold on to the memory around it: twice what it needs, as measured with
//! 60,000 sessions. A chunk is a mapping of its own. Whoever lies down takes a cell of
//! the first chunk that has one, and everybody is woken by a heartbeat sooner or later:
//! so those that are left of many gather in the first chunks, and the others go back to
//! the system. One that is empty stays for each size.
//!
//! Cost: up to 15 bytes a sleeper are left over in its cell; laying down and taking
//! up are a copy each. What is taken up is overwritten, since keys are in it.

use std::collections::BTreeSet;

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
    chunks: Vec<Chunk>,
    /// Those with a free cell.
    open: BTreeSet<u32>,
    /// The one that is mapped though nobody sleeps in it.
    spare: Option<u32>,
}

#[derive(Debug, Default)]
struct Chunk {
    /// None while it is with the system.
    bytes: Option<Zeroizing<Box<[u8]>>>,
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
        let chunk = room.and_then(|room| room.chunks.get(place.0)?.bytes.as_ref());
        let bytes = chunk.and_then(|chunk| chunk.get(place.1));
        bytes.unwrap_or_default()
    }

    /// Wipes what lies there; the cell is free.
    pub(crate) fn clear(&mut self, bed: Bed) {
        if let Some((room, cell_bytes)) = self.room(bed.length)
            && let Some(bytes) = room.bytes_mut(bed, cell_bytes)
        {
            bytes.zeroize();
            room.give(bed.cell, cell_bytes);
        }
    }

    /// Memory of a cell in which this many bytes lie.
    pub(crate) fn cell_bytes(length: usize) -> usize {
        length.div_ceil(STEP_BYTES).max(1) * STEP_BYTES
    }

    /// Of its chunks, what nobody sleeps in.
    #[cfg(test)]
    pub(crate) fn vacant_bytes(&self) -> usize {
        let rooms = self.rooms.iter().zip(1..);
        let vacant = rooms.flat_map(|(room, steps)| {
            let mapped = room.chunks.iter().filter(|chunk| chunk.bytes.is_some());
            mapped.map(move |chunk| CHUNK_BYTES - chunk.slept_in() * steps * STEP_BYTES)
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
        let in_chunk = cells_in_chunk(cell_bytes);
        let index = match self.open.first() {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.chunks.len()).ok()?;
                // Each cell has a number.
                index.checked_add(1)?.checked_mul(in_chunk)?;
                self.chunks.push(Chunk::default());
                self.open.insert(index);
                index
            }
        };
        let chunk = self.chunks.get_mut(index as usize)?;
        let cell = chunk.take();
        if chunk.slept_in() == in_chunk as usize {
            self.open.remove(&index);
        }
        if self.spare == Some(index) {
            self.spare = None;
        }
        Some(index * in_chunk + cell)
    }

    fn give(&mut self, cell: u32, cell_bytes: usize) {
        let in_chunk = cells_in_chunk(cell_bytes);
        let index = cell / in_chunk;
        let Some(chunk) = self.chunks.get_mut(index as usize) else {
            return;
        };
        chunk.free.push(cell % in_chunk);
        self.open.insert(index);
        if chunk.slept_in() > 0 {
            return;
        }
        // One stays: whoever is alone in it may be woken by every datagram that
        // names it, forged ones too, and to wipe and map a chunk costs much more than
        // to wake somebody. The first one: it is taken next.
        let first = self.spare.map_or(index, |spare| spare.min(index));
        let other = self.spare.map(|spare| spare.max(index));
        self.spare = Some(first);
        if let Some(chunk) = other.and_then(|other| self.chunks.get_mut(other as usize)) {
            *chunk = Chunk::default();
        }
    }

    fn bytes_mut(&mut self, bed: Bed, cell_bytes: usize) -> Option<&mut [u8]> {
        let (chunk, range) = place_of(bed, cell_bytes);
        self.chunks.get_mut(chunk)?.bytes.as_mut()?.get_mut(range)
    }
}

// === impl Chunk ===

impl Chunk {
    /// A free cell, of which there is one.
    fn take(&mut self) -> u32 {
        self.bytes
            .get_or_insert_with(|| Zeroizing::new(vec![0; CHUNK_BYTES].into_boxed_slice()));
        self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        })
    }

    fn slept_in(&self) -> usize {
        self.used as usize - self.free.len()
    }
}

/// Cells are small beside a chunk.
fn cells_in_chunk(cell_bytes: usize) -> u32 {
    (CHUNK_BYTES / cell_bytes) as u32
}

/// Index of the room, and the bytes of its cells.
fn size_of_cell(length: u16) -> (usize, usize) {
    let cell_bytes = Dormitory::cell_bytes(length.into());
    (cell_bytes / STEP_BYTES - 1, cell_bytes)
}

/// The chunk, and where in it.
fn place_of(bed: Bed, cell_bytes: usize) -> (usize, std::ops::Range<usize>) {
    let in_chunk = cells_in_chunk(cell_bytes);
    let start = (bed.cell % in_chunk) as usize * cell_bytes;
    let chunk = (bed.cell / in_chunk) as usize;
    (chunk, start..start + usize::from(bed.length))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn mapped(room: &Room) -> usize {
        let mapped = room.chunks.iter().filter(|chunk| chunk.bytes.is_some());
        mapped.count()
    }

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
            prop_assert!(dormitory.rooms.iter().all(|room| mapped(room) <= 1));
        }
    }

    #[test]
    fn who_sleeps_alone_maps_no_chunk_at_each_rest() {
        let mut dormitory = Dormitory::new();
        let mut lay = || {
            let bed = dormitory.lay(&[1; 200]).unwrap();
            let at = dormitory.look(bed).as_ptr();
            dormitory.clear(bed);
            assert_eq!(mapped(&dormitory.rooms[12]), 1);
            at
        };
        let first = lay();
        assert!((0..100).all(|_| lay() == first));
        // Many go together, and leave no more than one.
        let beds: Vec<Bed> = (0..12_000)
            .filter_map(|_| dormitory.lay(&[1; 200]))
            .collect();
        assert!(mapped(&dormitory.rooms[12]) > 1);
        beds.into_iter().for_each(|bed| dormitory.clear(bed));
        assert_eq!(mapped(&dormitory.rooms[12]), 1);
        assert_eq!(dormitory.vacant_bytes(), CHUNK_BYTES);
    }

    #[test]
    fn what_many_have_left_goes_back_though_some_stay() {
        let mut dormitory = Dormitory::new();
        let beds: Vec<Bed> = (0..60_000)
            .filter_map(|_| dormitory.lay(&[1; 200]))
            .collect();
        let (stay, go): (Vec<_>, Vec<_>) =
            (beds.into_iter().enumerate()).partition(|(number, _)| number % 5_000 == 0);
        go.into_iter().for_each(|(_, bed)| dormitory.clear(bed));
        // Each is woken by its next heartbeat, if by nothing else.
        for (_, bed) in stay {
            dormitory.clear(bed);
            assert!(dormitory.lay(&[1; 200]).is_some());
        }
        let vacant_bytes = dormitory.vacant_bytes();
        assert!(vacant_bytes < 2 * CHUNK_BYTES, "{vacant_bytes}");
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
