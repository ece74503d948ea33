//! Inputs for the driver and the tests: seeds, damaged and joined.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// Makes inputs by a seed; the same seed, the same inputs.
#[derive(Debug)]
pub struct Mutator {
    rng: SmallRng,
    seeds: Vec<Vec<u8>>,
    input: Vec<u8>,
}

const INPUT_MAX_BYTES: usize = 4096;
/// Where counters turn over and lengths meet their bounds.
const EDGES: [u8; 10] = [0, 1, 0x3f, 0x40, 0x7e, 0x7f, 0x80, 0xc0, 0xfe, 0xff];

// === impl Mutator ===

impl Mutator {
    /// From these seeds; random bytes where there are none.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            seeds,
            input: Vec::new(),
        }
    }

    /// Another one.
    pub fn next_input(&mut self) -> &[u8] {
        let rng = &mut self.rng;
        self.input.clear();
        if self.seeds.is_empty() || rng.random_ratio(1, 4) {
            let count = rng.random_range(0..400);
            self.input.extend((0..count).map(|_| rng.random::<u8>()));
        } else {
            let seed = rng.random_range(0..self.seeds.len());
            self.input.extend_from_slice(&self.seeds[seed]);
        }
        for _ in 0..rng.random_range(0..8) {
            damage(rng, &self.seeds, &mut self.input);
        }
        self.input.truncate(INPUT_MAX_BYTES);
        &self.input
    }
}

fn damage(rng: &mut SmallRng, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(0..64)).min(input.len());
    match rng.random_range(0..8) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => {
            let piece: Vec<u8> = (0..rng.random_range(1..32)).map(|_| rng.random()).collect();
            drop(input.splice(at..at, piece));
        }
        3 => {
            let piece = input[at..end].to_vec();
            drop(input.splice(at..at, piece));
        }
        4 if !seeds.is_empty() => {
            let other = &seeds[rng.random_range(0..seeds.len())];
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => input[at..end]
            .iter_mut()
            .for_each(|byte| *byte = rng.random()),
        6 => input[at..end].iter_mut().take(2).for_each(|byte| {
            *byte = EDGES[rng.random_range(0..EDGES.len())];
        }),
        _ => input[at..end].iter_mut().take(1).for_each(|byte| {
            *byte ^= 1 << rng.random_range(0..8);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_follow_the_seed() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, vec![vec![1, 2, 3]]);
            let inputs = (0..100).map(|_| mutator.next_input().to_vec());
            inputs.collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
