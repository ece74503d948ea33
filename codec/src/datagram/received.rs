//! Which packets have come: the replay window and the ACKs that are owed.
//!
//! One bitmap of 1,024 bits serves both. It is looked at only after a packet was
//! opened, so nobody without the keys can move it.

use super::{
    config::{ACK_DELAY_MAX_US, REPLAY_WINDOW_PACKETS},
    frame::Ack,
};

const WORDS: usize = REPLAY_WINDOW_PACKETS as usize / 64;
/// Ranges told in one ACK. Older ones were told in ACKs before, each several
/// times; what all of these failed to tell costs a packet sent twice.
const RANGES_TOLD: usize = 8;
/// Packets that ask for an ACK before it is sent without delay.
const ACK_EVERY: u8 = 2;
/// Delays in vain, less those that saved a packet: from the most on no ACK is delayed, until
/// there are none left.
const VAIN_MAX: u8 = 8;
/// Counted at first.
const VAIN_FIRST: u8 = 5;
const NEVER: u64 = u64::MAX;

/// The packets received, from the oldest that would still be taken.
#[derive(Debug)]
pub(crate) struct Received {
    bits: [u64; WORDS],
    /// One above the largest received.
    next: u64,
    /// Below it nothing is taken: it came before this record was begun.
    base: u64,
    /// Below it nothing needs telling: the peer knows.
    told: u64,
    /// When the largest came.
    largest_us: u64,
    ack_at_us: u64,
    /// When the packet came whose ACK is, or might have been, held back for company.
    held_us: u64,
    unacked: u8,
    vain: u8,
    /// ACKs are not delayed: it saved nothing.
    is_prompt: bool,
}

// === impl Received ===

impl Received {
    /// All packets below `next` count as received.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            bits: [0; WORDS],
            next,
            base: next,
            told: next,
            largest_us: 0,
            ack_at_us: NEVER,
            held_us: NEVER,
            unacked: 0,
            vain: VAIN_FIRST,
            is_prompt: false,
        }
    }

    /// One above the largest received.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether the packet has not come before, as far as can be told.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        number >= self.base
            && self.next - number <= REPLAY_WINDOW_PACKETS
            && self.bits[word(number)] & bit(number) == 0
    }

    /// Notes a packet that [`Received::is_new`]. `eliciting`: it asks for an ACK.
    pub(crate) fn insert(&mut self, now_us: u64, number: u64, eliciting: bool) {
        let in_order = number == self.next;
        if number >= self.next {
            self.clear(self.next, number);
            self.next = number.saturating_add(1);
            self.largest_us = now_us;
        }
        self.bits[word(number)] |= bit(number);
        self.told = self.told.min(number);
        if eliciting {
            self.unacked = self.unacked.saturating_add(1);
            if !self.on_company(now_us) {
                self.held_us = now_us;
            }
            let at_once = !in_order || self.unacked >= ACK_EVERY || self.is_prompt;
            let at_us = if at_once {
                now_us
            } else {
                now_us + ACK_DELAY_MAX_US
            };
            self.ack_at_us = self.ack_at_us.min(at_us);
        }
    }

    /// Something goes out, or comes in, that one ACK less is sent for if the last was held
    /// back. Tells whether one was, or would have been: the delay is over otherwise.
    pub(crate) fn on_company(&mut self, now_us: u64) -> bool {
        let held_us = std::mem::replace(&mut self.held_us, NEVER);
        if held_us == NEVER {
            return false;
        }
        let is_in_time = now_us <= held_us.saturating_add(ACK_DELAY_MAX_US);
        self.vain = match is_in_time {
            true => self.vain.saturating_sub(1),
            false => (self.vain + 1).min(VAIN_MAX),
        };
        self.is_prompt = match self.vain {
            0 => false,
            VAIN_MAX => true,
            _ => self.is_prompt,
        };
        is_in_time
    }

    /// Makes the ACK that is owed go without delay.
    pub(crate) fn hurry(&mut self, now_us: u64) {
        self.ack_at_us = self.ack_at_us.min(now_us);
    }

    /// When an ACK must be sent.
    pub(crate) fn ack_at_us(&self) -> Option<u64> {
        (self.ack_at_us != NEVER).then_some(self.ack_at_us)
    }

    /// The ACK that tells what has come. None if nothing is owed.
    pub(crate) fn ack(&mut self, now_us: u64) -> Option<Ack> {
        if self.unacked == 0 {
            return None;
        }
        let mut ack = Ack::new(now_us.saturating_sub(self.largest_us));
        let floor = self
            .told
            .max(self.next.saturating_sub(REPLAY_WINDOW_PACKETS));
        let mut above = self.next;
        while above > floor && ack.ranges().len() < RANGES_TOLD {
            let low = self.run(above, floor, true);
            if low < above {
                ack.push(low, above - 1);
            }
            above = self.run(low, floor, false);
        }
        self.unacked = 0;
        self.ack_at_us = NEVER;
        Some(ack)
    }

    /// The peer has got an ACK whose largest number was `largest`.
    pub(crate) fn on_ack_acked(&mut self, largest: u64) {
        self.told = self.told.max(largest.saturating_add(1)).min(self.next);
    }

    /// Whether packets are missing that could still come.
    pub(crate) fn has_gaps(&self) -> bool {
        let floor = self
            .told
            .max(self.next.saturating_sub(REPLAY_WINDOW_PACKETS));
        self.run(self.next, floor, true) > floor
    }

    /// Walks down from `above` while packets were (or were not) received; the
    /// lowest of the run, at least `floor`.
    fn run(&self, mut above: u64, floor: u64, received: bool) -> u64 {
        while above > floor {
            let top = above - 1;
            let mut bits = self.bits[word(top)] << (63 - top % 64);
            if !received {
                bits = !bits;
            }
            let within = top % 64 + 1;
            let ones = u64::from(bits.leading_ones()).min(within);
            above -= ones;
            if ones < within {
                break;
            }
        }
        above.max(floor)
    }

    /// Forgets the bits of the packets from `from` to `to`, which is the largest now.
    fn clear(&mut self, from: u64, to: u64) {
        if to - from >= REPLAY_WINDOW_PACKETS {
            self.bits = [0; WORDS];
            return;
        }
        for number in from..=to {
            self.bits[word(number)] &= !bit(number);
        }
    }
}

fn word(number: u64) -> usize {
    (number / 64) as usize % WORDS
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn the_window_is_a_set(base in 0u64..3000, steps in prop::collection::vec(0u64..200, 1..400)) {
            let mut received = Received::new(base);
            let mut model = BTreeSet::new();
            let mut next = base;
            for step in steps {
                let number = (next + step).saturating_sub(150);
                let new = number >= base
                    && (number >= next || next - number <= REPLAY_WINDOW_PACKETS)
                    && !model.contains(&number);
                prop_assert_eq!(received.is_new(number), new, "{}", number);
                if new {
                    received.insert(0, number, true);
                    model.insert(number);
                    next = next.max(number + 1);
                }
                if let Some(ack) = received.ack(0) {
                    let mut told = Vec::new();
                    for (low, high) in ack.ranges() {
                        told.extend((*low..=*high).rev());
                    }
                    let known = model.iter().rev().take(told.len()).copied().collect::<Vec<_>>();
                    prop_assert_eq!(told, known);
                }
            }
        }
    }
}
