//! Which numbers of a sequence have come: each is counted once, and holes may fill.

/// Numbers from 0 on, of which up to 128 may be ahead of a hole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    next: u64,
    /// Bit n: `next + 1 + n` has come.
    ahead: u128,
}

/// What a number was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// It comes for the first time.
    New,
    /// It had come before.
    Again,
    /// It is so far ahead that nothing is known about it.
    TooFar,
}

/// Numbers ahead of a hole that are known.
pub(crate) const AHEAD_MAX: u64 = 128;

// === impl Sequence ===

impl Sequence {
    /// All below this have come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// All below this count as come.
    pub(crate) fn start_at(next: u64) -> Self {
        Self { next, ahead: 0 }
    }

    /// How many have come behind a hole.
    pub(crate) fn ahead(&self) -> u32 {
        self.ahead.count_ones()
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        match number.checked_sub(self.next) {
            None => true,
            Some(0) => false,
            Some(distance) => distance <= AHEAD_MAX && self.ahead >> (distance - 1) & 1 == 1,
        }
    }

    /// This one has come.
    pub(crate) fn take(&mut self, number: u64) -> Came {
        let Some(distance) = number.checked_sub(self.next) else {
            return Came::Again;
        };
        match distance {
            0 => {
                let run = self.ahead.trailing_ones();
                self.next += 1 + u64::from(run);
                self.ahead = self.ahead.checked_shr(run + 1).unwrap_or(0);
                Came::New
            }
            1..=AHEAD_MAX => {
                let bit = 1 << (distance - 1);
                if self.ahead & bit != 0 {
                    return Came::Again;
                }
                self.ahead |= bit;
                Came::New
            }
            _ => Came::TooFar,
        }
    }

    /// First and last of each run behind the hole.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let Self { next, mut ahead } = *self;
        let mut at = next + 1;
        std::iter::from_fn(move || {
            if ahead == 0 {
                return None;
            }
            let skip = ahead.trailing_zeros();
            ahead >>= skip;
            let run = ahead.trailing_ones();
            ahead = ahead.checked_shr(run).unwrap_or(0);
            let first = at + u64::from(skip);
            at = first + u64::from(run);
            Some((first, at - 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(numbers in prop::collection::vec(0..120_u64, 0..300)) {
            let (mut sequence, mut model) = (Sequence::default(), HashSet::new());
            for number in numbers {
                let expected = if model.insert(number) { Came::New } else { Came::Again };
                prop_assert_eq!(sequence.take(number), expected);
            }
            for number in 0..250 {
                prop_assert_eq!(sequence.contains(number), model.contains(&number));
            }
            let next = (0..).find(|number| !model.contains(number)).unwrap();
            prop_assert_eq!(sequence.next(), next);
            let in_ranges: HashSet<u64> =
                sequence.ranges().flat_map(|(first, last)| first..=last).collect();
            let above = model.into_iter().filter(|number| *number > next).collect();
            prop_assert_eq!(in_ranges.len(), sequence.ahead() as usize);
            prop_assert_eq!(in_ranges, above);
        }
    }

    #[test]
    fn what_is_too_far_is_not_taken() {
        let mut sequence = Sequence::start_at(5);
        assert_eq!(sequence.take(4), Came::Again);
        assert_eq!(sequence.take(5 + AHEAD_MAX + 1), Came::TooFar);
        assert_eq!(sequence.take(5 + AHEAD_MAX), Came::New);
        for number in 5..5 + AHEAD_MAX {
            assert_eq!(sequence.take(number), Came::New);
        }
        assert_eq!(sequence.next(), 5 + AHEAD_MAX + 1);
    }
}
