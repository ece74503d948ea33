//! The durable pushes of one connection that wait for their PushAck.
//!
//! Numbers count from 1 and are never given twice; an ack is cumulative plus
//! ranges above it. The clock of a push starts when its bytes have left the
//! output queue, since on an ordered transport it cannot arrive before; after
//! that it backs off exponentially from the measured RTT. No I/O and no clock
//! in here: time and offsets come in, what is to be written again goes out.
//!
//! Cost: only what is unacked takes room, whatever order the acks come in, and
//! an ack costs what it acks (and the finding of each of its ranges).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use sluice_protocol::PushPrefix;
use sluice_trace::TraceId;

use crate::{
    handover::Unacked,
    rtt::{RtoBounds, RttEstimator},
};

/// An entry on its way to any number of connections; encoded once.
#[derive(Debug)]
pub(crate) struct PushContent {
    pub(crate) kind: PushKind,
    pub(crate) conversation: Arc<str>,
    pub(crate) seq: u64,
    /// An encoded `Entry`; empty in a notice without one.
    pub(crate) entry: Bytes,
    /// The message is followed.
    pub(crate) trace: Option<TraceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushKind {
    Inbox,
    Group,
}

/// Written, or to be written, and not acked.
#[derive(Debug)]
struct InFlight {
    content: Arc<PushContent>,
    user_seq: u64,
    /// When it left the output queue; [`NOT_WRITTEN`] while it is in there.
    written_ms: u64,
    due_ms: u64,
    tries: u8,
}

const NOT_WRITTEN: u64 = u64::MAX;

/// What is to be written again, under its old number.
#[derive(Debug)]
pub(crate) struct Resend {
    pub(crate) number: u64,
    pub(crate) user_seq: u64,
    pub(crate) content: Arc<PushContent>,
}

/// What a turn of the clock brings.
#[derive(Debug, Default)]
pub(crate) struct DuePushes {
    pub(crate) resend: Vec<Resend>,
    /// Given up after their last try.
    pub(crate) failed: Vec<Arc<PushContent>>,
}

/// How often and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryRule {
    pub(crate) rto: RtoBounds,
    pub(crate) tries_max: u8,
    /// Bytes of entries that one turn of the clock writes again; the first
    /// always goes.
    pub(crate) resend_max_bytes: usize,
}

/// Unacked pushes of one connection, by number. The owner bounds it by
/// [`PushWindow::len`] and [`PushWindow::bytes`].
#[derive(Debug)]
pub(crate) struct PushWindow {
    next_number: u64,
    /// Unacked and not given up, by number.
    in_flight: BTreeMap<u64, InFlight>,
    /// Where in the output each unwritten push ends, in order.
    unwritten: VecDeque<(u64, u64)>,
    bytes: usize,
    /// No push is due before this; may be too early, never too late.
    next_due_ms: u64,
}

// === impl PushContent ===

impl PushContent {
    pub(crate) fn prefix(&self, user_seq: u64) -> PushPrefix<'_> {
        match self.kind {
            PushKind::Inbox => PushPrefix::Inbox { user_seq },
            PushKind::Group => PushPrefix::Group {
                conversation_id: &self.conversation,
                seq: self.seq,
            },
        }
    }
}

// === impl PushWindow ===

impl PushWindow {
    /// An empty window whose first push will have this number.
    pub(crate) fn new(next_number: u64) -> Self {
        Self {
            next_number,
            in_flight: BTreeMap::new(),
            unwritten: VecDeque::new(),
            bytes: 0,
            next_due_ms: NOT_WRITTEN,
        }
    }

    /// Unacked pushes.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of their entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of bookkeeping on the heap, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.in_flight.len() * size_of::<(u64, InFlight)>()
            + self.unwritten.capacity() * size_of::<(u64, u64)>()
    }

    /// The number that the next push gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// When [`PushWindow::take_due`] has something to do at the earliest.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        (self.next_due_ms != NOT_WRITTEN).then_some(self.next_due_ms)
    }

    /// Takes in a push that was appended to the output, where it ends at
    /// `output_offset`, as [`PushWindow::next_number`].
    pub(crate) fn append(&mut self, content: Arc<PushContent>, user_seq: u64, output_offset: u64) {
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += content.entry.len();
        let push = InFlight {
            content,
            user_seq,
            written_ms: NOT_WRITTEN,
            due_ms: NOT_WRITTEN,
            tries: 1,
        };
        self.in_flight.insert(number, push);
        self.unwritten.push_back((output_offset, number));
    }

    /// A push from [`DuePushes::resend`] was appended again.
    pub(crate) fn appended_again(&mut self, number: u64, output_offset: u64) {
        self.unwritten.push_back((output_offset, number));
    }

    /// What nobody has acked, in the order of the numbers.
    pub(crate) fn into_unacked(self) -> Vec<Unacked> {
        let pushes = self.in_flight.into_values().map(|push| Unacked {
            content: push.content,
            user_seq: push.user_seq,
        });
        pushes.collect()
    }

    /// The output was written up to this offset: clocks start.
    pub(crate) fn written(
        &mut self,
        output_offset: u64,
        now_ms: u64,
        rtt: &RttEstimator,
        rto: RtoBounds,
        random: u32,
    ) {
        while let Some((offset, number)) = self.unwritten.front().copied() {
            if offset > output_offset {
                break;
            }
            self.unwritten.pop_front();
            let mut next_due_ms = self.next_due_ms;
            if let Some(push) = self.in_flight.get_mut(&number) {
                push.written_ms = now_ms;
                push.due_ms = now_ms.saturating_add(rtt.backoff_ms(rto, push.tries, random));
                next_due_ms = next_due_ms.min(push.due_ms);
            }
            self.next_due_ms = next_due_ms;
        }
    }

    /// Takes the client's word for what has reached it; numbers that were never
    /// sent, or acked before, change nothing. Calls `acked` with what is new.
    pub(crate) fn acknowledge(
        &mut self,
        cumulative: u64,
        ranges: &[u64],
        now_ms: u64,
        rtt: &mut RttEstimator,
        mut acked: impl FnMut(&PushContent),
    ) {
        let mut sample_ms = None;
        let spans = ranges.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        for (first, last) in [(0, cumulative)].into_iter().chain(spans) {
            while first <= last
                && let Some((&number, _)) = self.in_flight.range(first..=last).next()
                && let Some(push) = self.in_flight.remove(&number)
            {
                self.bytes -= push.content.entry.len();
                if push.tries == 1 && push.written_ms != NOT_WRITTEN {
                    sample_ms = Some(now_ms.saturating_sub(push.written_ms));
                }
                acked(&push.content);
            }
        }
        if let Some(sample_ms) = sample_ms {
            rtt.sample(sample_ms);
        }
    }

    /// What is due by now. Everything in `resend` must be appended to the
    /// output again and reported by [`PushWindow::appended_again`].
    ///
    /// When one push is given up, so are the others that were written more than
    /// once: one `Resync` makes good for all of them.
    pub(crate) fn take_due(
        &mut self,
        now_ms: u64,
        rtt: &RttEstimator,
        rule: RetryRule,
        random: u32,
    ) -> DuePushes {
        let mut due = DuePushes::default();
        let gives_up = self
            .in_flight
            .values()
            .any(|push| push.due_ms <= now_ms && push.tries >= rule.tries_max);
        let mut room_bytes = rule.resend_max_bytes;
        let mut next_due_ms = NOT_WRITTEN;
        let bytes = &mut self.bytes;
        self.in_flight.retain(|&number, push| {
            let entry_bytes = push.content.entry.len();
            if gives_up && (push.tries > 1 || push.due_ms <= now_ms) {
                *bytes -= entry_bytes;
                due.failed.push(Arc::clone(&push.content));
                return false;
            }
            if push.due_ms > now_ms {
                next_due_ms = next_due_ms.min(push.due_ms);
            } else if due.resend.is_empty() || entry_bytes <= room_bytes {
                room_bytes = room_bytes.saturating_sub(entry_bytes);
                push.tries = push.tries.saturating_add(1);
                push.written_ms = NOT_WRITTEN;
                push.due_ms = NOT_WRITTEN;
                due.resend.push(Resend {
                    number,
                    user_seq: push.user_seq,
                    content: Arc::clone(&push.content),
                });
            } else {
                push.due_ms = now_ms.saturating_add(rtt.backoff_ms(rule.rto, push.tries, random));
                next_due_ms = next_due_ms.min(push.due_ms);
            }
            true
        });
        self.next_due_ms = next_due_ms;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RULE: RetryRule = RetryRule {
        rto: RtoBounds {
            initial_ms: 1_000,
            min_ms: 100,
            max_ms: 8_000,
        },
        tries_max: 3,
        resend_max_bytes: usize::MAX,
    };

    fn content(seq: u64) -> Arc<PushContent> {
        Arc::new(PushContent {
            kind: PushKind::Inbox,
            conversation: "p:1:a:b".into(),
            seq,
            entry: Bytes::from_static(b"0123456789"),
            trace: None,
        })
    }

    fn window(pushes: u64) -> PushWindow {
        let mut window = PushWindow::new(1);
        for seq in 1..=pushes {
            window.append(content(seq), seq, seq * 10);
        }
        window
    }

    fn ack(window: &mut PushWindow, cumulative: u64, ranges: &[u64], now_ms: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut rtt = RttEstimator::default();
        window.acknowledge(cumulative, ranges, now_ms, &mut rtt, |content| {
            seqs.push(content.seq);
        });
        seqs
    }

    #[test]
    fn acks_are_cumulative_and_selective_and_bounded_by_what_was_sent() {
        let mut window = window(10);
        assert_eq!(
            ack(&mut window, 2, &[5, 6, 9, u64::MAX], 0),
            [1, 2, 5, 6, 9, 10]
        );
        assert_eq!((window.len(), window.bytes()), (4, 40));
        assert!(ack(&mut window, 2, &[5, 6], 0).is_empty());
        assert!(ack(&mut window, 0, &[7, 3], 0).is_empty());
        assert_eq!(ack(&mut window, u64::MAX, &[], 0), [3, 4, 7, 8]);
        assert_eq!((window.len(), window.next_number()), (0, 11));
    }

    #[test]
    fn acked_pushes_take_no_room_behind_one_that_is_not() {
        let mut window = window(1);
        for seq in 2..10_000 {
            window.append(content(seq), seq, seq * 10);
            window.written(seq * 10, 0, &RttEstimator::default(), RULE.rto, 0);
            assert_eq!(ack(&mut window, 0, &[seq, seq], 0), [seq]);
        }
        assert_eq!((window.len(), window.bytes()), (1, 10));
        assert!(window.heap_bytes() < 1_000, "{}", window.heap_bytes());
        // Nothing is left to walk over, however often the ranges come again.
        let ranges = [2, 9_999].repeat(32);
        for _ in 0..1_000 {
            assert!(ack(&mut window, 0, &ranges, 0).is_empty());
        }
        assert_eq!(ack(&mut window, u64::MAX, &[], 0), [1]);
        assert_eq!(window.next_number(), 10_000);
    }

    #[test]
    fn the_clock_starts_when_the_bytes_have_left() {
        let mut window = window(2);
        let rtt = RttEstimator::default();
        assert_eq!(window.next_due_ms(), None);
        window.written(10, 5_000, &rtt, RULE.rto, 0);
        assert_eq!(window.next_due_ms(), Some(6_000));
        assert!(window.take_due(5_999, &rtt, RULE, 0).resend.is_empty());
        let due = window.take_due(6_000, &rtt, RULE, 0);
        assert_eq!(due.resend.len(), 1);
        assert_eq!((due.resend[0].number, due.resend[0].user_seq), (1, 1));
        // Both are in the output now; neither has a clock.
        window.appended_again(1, 30);
        assert_eq!(window.next_due_ms(), None);
        window.written(30, 7_000, &rtt, RULE.rto, 0);
        // Number 2 on its first try, number 1 on its second.
        assert_eq!(window.next_due_ms(), Some(8_000));
        assert_eq!(window.take_due(8_999, &rtt, RULE, 0).resend.len(), 1);
        assert_eq!(window.next_due_ms(), Some(9_000));
    }

    #[test]
    fn after_the_last_try_it_is_given_up_together_with_its_like() {
        let mut window = window(2);
        let rtt = RttEstimator::default();
        let mut now_ms = 0;
        let (mut offset, mut writes, mut failed) = (20, 2, Vec::new());
        window.written(offset, now_ms, &rtt, RULE.rto, 0);
        while let Some(due_ms) = window.next_due_ms() {
            now_ms = due_ms;
            let due = window.take_due(now_ms, &rtt, RULE, 7);
            for resend in due.resend {
                writes += 1;
                offset += 10;
                window.appended_again(resend.number, offset);
            }
            failed.extend(due.failed.iter().map(|content| content.seq));
            window.written(offset, now_ms, &rtt, RULE.rto, 7);
        }
        assert_eq!((writes, now_ms), (6, 1_000 + 2_000 + 4_000));
        failed.sort_unstable();
        assert_eq!(failed, [1, 2]);
        assert_eq!(
            (window.len(), window.bytes(), window.next_number()),
            (0, 0, 3)
        );
        window.append(content(3), 3, offset + 10);
        assert_eq!(ack(&mut window, 3, &[], now_ms), [3]);
    }

    #[test]
    fn a_push_that_was_sent_twice_gives_no_sample() {
        let mut window = window(1);
        let mut rtt = RttEstimator::default();
        window.written(10, 0, &rtt, RULE.rto, 0);
        assert_eq!(window.take_due(1_000, &rtt, RULE, 0).resend.len(), 1);
        window.appended_again(1, 20);
        window.written(20, 1_000, &rtt, RULE.rto, 0);
        window.acknowledge(1, &[], 1_005, &mut rtt, |_| {});
        assert_eq!(rtt.srtt_ms(), None);
        window.append(content(2), 2, 30);
        window.written(30, 2_000, &rtt, RULE.rto, 0);
        window.acknowledge(2, &[], 2_040, &mut rtt, |_| {});
        assert_eq!(rtt.srtt_ms(), Some(40));
    }

    #[test]
    fn a_burst_of_retries_is_spread() {
        let mut window = window(10);
        let rtt = RttEstimator::default();
        window.written(100, 0, &rtt, RULE.rto, 0);
        let rule = RetryRule {
            resend_max_bytes: 35,
            ..RULE
        };
        assert_eq!(window.take_due(1_000, &rtt, rule, 0).resend.len(), 3);
        assert_eq!(window.next_due_ms(), Some(2_000));
    }

    proptest! {
        #[test]
        fn holds_what_a_set_would_hold(
            steps in prop::collection::vec((0..3_u8, 0..80_u64, 0..80_u64), 1..200)
        ) {
            let mut window = PushWindow::new(1);
            let mut model = BTreeSet::new();
            let mut next = 1;
            for (step, a, b) in steps {
                if step == 0 {
                    for _ in 0..a % 8 {
                        window.append(content(next), next, next);
                        model.insert(next);
                        next += 1;
                    }
                } else {
                    let (cumulative, ranges) = if step == 1 { (a, vec![]) } else { (0, vec![a, b, 7]) };
                    let mut seqs = ack(&mut window, cumulative, &ranges, 0);
                    let mut expected: Vec<u64> = model.iter().copied().filter(|n| {
                        *n <= cumulative || ranges.len() > 1 && (a..=b).contains(n)
                    }).collect();
                    model.retain(|n| !expected.contains(n));
                    seqs.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(seqs, expected);
                }
                prop_assert_eq!(window.len(), model.len());
                prop_assert_eq!(window.next_number(), next);
                prop_assert_eq!(window.bytes(), model.len() * 10);
            }
        }
    }
}
