//! Collects what the server is to be told has arrived: push numbers of this
//! connection, and per conversation what came by pulling.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use sluice_protocol::{
    ConversationId,
    limits::{PUSH_ACK_CURSORS_MAX, PUSH_ACK_RANGES_MAX},
    packet,
};

use super::pace::Pace;

/// Ranges above a gap that are kept; with more, the lowest gap is given up, as
/// the server has forgotten that push long since.
const RANGES_KEPT_MAX: usize = 4 * PUSH_ACK_RANGES_MAX;

/// Conversations whose acks are remembered until they have surely arrived.
const ACKED_MAX: usize = 256;
/// Cursors that may wait; with so many nothing more is pulled.
const CURSORS_MAX: usize = 20_000;
/// This much is told at once, without waiting for more.
const TOLD_AT_ONCE: usize = 32;
/// An ack sent this long before the connection was lost has arrived.
const ACKED_DOUBT_MS: u64 = 30_000;

/// What is to be acked.
#[derive(Debug, Default)]
pub(super) struct PushAcks {
    /// All up to here.
    cumulative: u64,
    /// First to last, above a gap.
    ranges: BTreeMap<u64, u64>,
    cursors: HashMap<ConversationId, u64>,
    /// What was acked lately, up to which seq and when: should the connection be
    /// lost, these acks may be lost with it.
    acked: HashMap<ConversationId, (u64, u64)>,
    /// Numbers that the next packet tells first.
    untold: usize,
    /// When it is to be told.
    due_ms: Option<u64>,
    /// That time has come.
    is_due: bool,
}

// === impl PushAcks ===

impl PushAcks {
    /// This push has arrived (again).
    pub(super) fn arrived(&mut self, number: u64, due_ms: u64) {
        // A repeated push is acked again: the ack was lost.
        self.untold += 1;
        self.due_ms.get_or_insert(due_ms);
        if number == 0 || number <= self.cumulative {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((&start, &end)) = self.ranges.range(..=number).next_back() {
            if end >= number {
                return;
            }
            if end + 1 == number {
                first = start;
            }
        }
        if let Some(end) = number.checked_add(1).and_then(|n| self.ranges.remove(&n)) {
            last = end;
        }
        self.ranges.insert(first, last);
        if self.ranges.len() > RANGES_KEPT_MAX
            && let Some((_, last)) = self.ranges.pop_first()
        {
            self.cumulative = last;
        }
        while let Some(entry) = self.ranges.first_entry()
            && *entry.key() <= self.cumulative.saturating_add(1)
        {
            self.cumulative = self.cumulative.max(entry.remove());
        }
    }

    /// All entries of this conversation up to `seq` are acked now, on this connection.
    pub(super) fn acked(&mut self, conversation: &ConversationId, seq: u64, now_ms: u64) {
        if self.acked.len() >= ACKED_MAX {
            self.acked
                .retain(|_, (_, at_ms)| is_doubtful(*at_ms, now_ms));
        }
        if self.acked.len() < ACKED_MAX || self.acked.contains_key(conversation) {
            let (acked, at_ms) = self.acked.entry(conversation.clone()).or_default();
            (*acked, *at_ms) = (seq.max(*acked), now_ms);
        }
    }

    /// All entries of this conversation up to `seq` have come, this one by a pull
    /// or on an earlier connection.
    pub(super) fn unpushed(&mut self, conversation: &ConversationId, seq: u64, due_ms: u64) {
        let cursor = self.cursors.entry(conversation.clone()).or_default();
        *cursor = seq.max(*cursor);
        self.due_ms.get_or_insert(due_ms);
    }

    /// Numbers start again with each connection; cursors stay, and take over
    /// for the numbers whose acks may be lost.
    pub(super) fn connection_lost(&mut self, now_ms: u64) {
        for (conversation, (seq, at_ms)) in self.acked.drain() {
            if is_doubtful(at_ms, now_ms) {
                let cursor = self.cursors.entry(conversation).or_default();
                *cursor = seq.max(*cursor);
            }
        }
        self.cumulative = 0;
        self.ranges.clear();
        self.untold = 0;
        self.due_ms = None;
        self.is_due = false;
    }

    /// On a new connection: the cursors that are left go out.
    pub(super) fn connected(&mut self, due_ms: u64) {
        self.due_ms = (!self.cursors.is_empty()).then_some(due_ms);
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Notes that the time has come: it need not be waited for any more.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if self.due_ms.is_some_and(|due| due <= now_ms) {
            self.hurry();
        }
    }

    /// All that is untold is due now.
    pub(super) fn hurry(&mut self) {
        self.due_ms = None;
        self.is_due = true;
    }

    /// Cursors wait in such a number that no more should come.
    pub(super) fn is_full(&self) -> bool {
        self.cursors.len() >= CURSORS_MAX
    }

    /// The next packet, if one is due, with as many cursors as `pace` allows.
    pub(super) fn poll(&mut self, now_ms: u64, pace: &Pace) -> Option<packet::PushAck> {
        self.expire(now_ms);
        if !self.is_due && self.untold + self.cursors.len() < TOLD_AT_ONCE {
            return None;
        }
        let room = pace.cursors(now_ms);
        let ack = self.take(now_ms, room.unwrap_or(0));
        match room {
            // More follows at once.
            Ok(_) if !self.cursors.is_empty() => self.hurry(),
            Err(at_ms) if !self.cursors.is_empty() => {
                self.is_due = false;
                self.due_ms = Some(at_ms);
            }
            _ => {
                self.is_due = false;
                self.due_ms = None;
            }
        }
        ack
    }

    fn take(&mut self, now_ms: u64, cursors_max: usize) -> Option<packet::PushAck> {
        if self.untold == 0 && (self.cursors.is_empty() || cursors_max == 0) {
            return None;
        }
        self.untold = 0;
        let left = self.cursors.extract_if(|_, _| true);
        let told: Vec<_> = left.take(cursors_max.min(PUSH_ACK_CURSORS_MAX)).collect();
        for (conversation, seq) in &told {
            self.acked(conversation, *seq, now_ms);
        }
        let cursors = told.into_iter().map(|(conversation, seq)| packet::Cursor {
            conversation_id: conversation.to_string(),
            seq,
        });
        let cursors = cursors.collect();
        let ranges = self.ranges.iter().take(PUSH_ACK_RANGES_MAX);
        Some(packet::PushAck {
            cumulative: self.cumulative,
            ranges: ranges.flat_map(|(&first, &last)| [first, last]).collect(),
            cursors,
        })
    }
}

fn is_doubtful(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) < ACKED_DOUBT_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn cursors_go_out_in_packets_of_bounded_size() {
        let mut acks = PushAcks::default();
        for n in 0..150 {
            let group = ConversationId::parse(&format!("g:{n}")).unwrap();
            acks.unpushed(&group, n, 5);
        }
        assert_eq!(acks.due_ms(), Some(5));
        let sizes: Vec<_> = std::iter::from_fn(|| acks.poll(5, &Pace::default()))
            .map(|ack| ack.cursors.len())
            .collect();
        assert_eq!(sizes, [64, 64, 22]);
    }

    proptest! {
        #[test]
        fn ranges_tell_exactly_what_has_arrived(numbers in prop::collection::vec(1_u64..80, 0..120)) {
            let mut acks = PushAcks::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                acks.arrived(number, 0);
                model.insert(number);
            }
            let told = acks.poll(0, &Pace::default()).unwrap_or_default();
            let mut numbers: BTreeSet<u64> = (1..=told.cumulative).collect();
            for pair in told.ranges.chunks(2) {
                prop_assert!(pair[0] > told.cumulative + 1 && pair[0] <= pair[1]);
                numbers.extend(pair[0]..=pair[1]);
            }
            prop_assume!(told.ranges.len() < 2 * PUSH_ACK_RANGES_MAX);
            prop_assert_eq!(numbers, model);
        }
    }
}
