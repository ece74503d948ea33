//! [`ProducerCounts`]: what a reader of a `down` stream has missed.

use hashbrown::HashMap;

/// Producers remembered; worker ids are below 1024.
const PRODUCERS_MAX: usize = 1024;

/// Where each producer's count of its entries stands (SPEC.md, 14.4). Kept by
/// the reader of a `down` stream, from the stream's beginning.
#[derive(Debug, Default)]
pub struct ProducerCounts {
    last: HashMap<u64, u64>,
}

// === impl ProducerCounts ===

impl ProducerCounts {
    /// False when entries before this one are missing. Repeats are no gap, and
    /// neither is a producer that begins anew at 1.
    pub fn follows(&mut self, producer: u64, counter: u64) -> bool {
        if counter == 0 {
            // A producer that cannot count.
            return true;
        }
        match self.last.get_mut(&producer) {
            Some(last) => {
                let follows = counter <= last.saturating_add(1);
                if counter > *last || counter == 1 {
                    *last = counter;
                }
                follows
            }
            None => {
                if self.last.len() >= PRODUCERS_MAX {
                    self.last.clear();
                }
                self.last.insert(producer, counter);
                // The stream is as young as its reader, so a producer's first
                // entry here must be its first.
                counter <= 1
            }
        }
    }

    /// The stream was made anew: nothing is known of what was in it.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_noticed_and_a_repeat_is_none() {
        let mut counts = ProducerCounts::default();
        assert!(counts.follows(1, 1));
        assert!(counts.follows(1, 2));
        assert!(counts.follows(1, 2));
        assert!(!counts.follows(1, 4));
        assert!(counts.follows(1, 5));
        assert!(counts.follows(1, 1), "the producer has restarted");
        assert!(counts.follows(1, 2));
        assert!(!counts.follows(2, 3), "its first entries are missing");
        assert!(counts.follows(3, 1));
        assert!(counts.follows(0, 0) && counts.follows(0, 0));
    }
}
