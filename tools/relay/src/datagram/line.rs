//! One direction of a bad line: packets go in, and come out late, twice, damaged or never.
//!
//! Holds no socket and no clock; time comes in as an argument. Never looks into the packets, so
//! that it serves UDP payloads and whole IP packets alike. Bounded in bytes and packets: past
//! either a packet is dropped and said to be, as the full buffer of a router does.

use crate::bandwidth::Bandwidth;
use crate::plan::FaultPlan;
use crate::schedule::{Direction, Fates, Lateness};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use tokio::time::Instant;

/// Above this many bytes under way a packet is dropped.
pub(crate) const UNDER_WAY_MAX_BYTES: usize = 256 * 1024;
/// Above this many packets under way one more is dropped.
const UNDER_WAY_MAX_PACKETS: usize = 1024;

/// One direction of a line, with the faults that the plan has for datagrams; rebinds, stalls and
/// blackouts concern both directions and are not its business.
///
/// Jitter alone keeps the order; `reorder` picks packets that later ones overtake. A packet that
/// is lost, or of which only one bit is flipped, has used the line's bandwidth all the same.
#[derive(Debug)]
pub struct Line {
    fates: Fates,
    lateness: Lateness,
    bandwidth: Bandwidth,
    mtu_bytes: usize,
    under_way: BinaryHeap<Reverse<Packet>>,
    under_way_bytes: usize,
    /// When the last packet is due that kept the order.
    in_order_due: Instant,
    next_number: u64,
}

/// What a line did to a packet. Nothing at all, by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// The plan lost it.
    pub lost: bool,
    /// The plan doubled it.
    pub doubled: bool,
    /// The plan lets others overtake it.
    pub held_back: bool,
    /// The plan flipped a bit of it.
    pub corrupted: bool,
    /// It was larger than the line allows, and dropped.
    pub too_large: bool,
    /// There was no room for it (or for its double), and it was dropped.
    pub overflowed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
}

// === impl Line ===

impl Line {
    /// The line of flow `flow` in one direction, which begins now. The seed, the flow's number and
    /// the direction alone decide the fate of the n-th packet.
    pub fn new(plan: &FaultPlan, seed: u64, flow: u64, way: Direction, now: Instant) -> Self {
        Line {
            fates: Fates::new(plan, seed, flow, way),
            lateness: Lateness::new(plan, seed, flow, way),
            bandwidth: Bandwidth::new(plan, now),
            mtu_bytes: plan.mtu_bytes(),
            under_way: BinaryHeap::new(),
            under_way_bytes: 0,
            in_order_due: now,
            next_number: 0,
        }
    }

    /// Puts a packet on its way.
    pub fn push(&mut self, mut bytes: Vec<u8>, now: Instant) -> Passage {
        // Drawn for every packet, dropped or not, so that the next one's fate stays its own.
        let (fate, lateness) = (self.fates.draw(), self.lateness.draw());
        let mut passage = Passage::default();
        if bytes.len() > self.mtu_bytes {
            passage.too_large = true;
            return passage;
        }
        if !self.has_room_for(bytes.len()) {
            passage.overflowed = true;
            return passage;
        }
        let passed = self.bandwidth.pass(bytes.len(), now);
        if fate.lost {
            passage.lost = true;
            return passage;
        }
        if let (Some(bit), false) = (fate.flipped_bit, bytes.is_empty()) {
            let bit = (bit % (bytes.len() as u64 * 8)) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            passage.corrupted = true;
        }
        let mut due = self.in_order_due.max(passed + lateness);
        match fate.held_back {
            Some(longer) => {
                due += longer;
                passage.held_back = true;
            }
            None => self.in_order_due = due,
        }
        let double = fate.copy_after.map(|after| (due + after, bytes.clone()));
        self.enter(due, bytes);
        if let Some((due, bytes)) = double {
            passage.doubled = self.has_room_for(bytes.len());
            passage.overflowed = !passage.doubled;
            if passage.doubled {
                self.enter(due, bytes);
            }
        }
        passage
    }

    /// When the next packet is due, if there is one.
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(packet)| packet.due)
    }

    /// Takes off the next packet if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(packet) = self.under_way.pop()?;
        self.under_way_bytes -= packet.bytes.len();
        if self.under_way.is_empty() {
            // An idle line owns no buffer.
            self.under_way = BinaryHeap::new();
        }
        Some(packet.bytes)
    }

    /// How many bytes are under way.
    pub fn under_way_bytes(&self) -> usize {
        self.under_way_bytes
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.under_way_bytes + bytes <= UNDER_WAY_MAX_BYTES
            && self.under_way.len() < UNDER_WAY_MAX_PACKETS
    }

    fn enter(&mut self, due: Instant, bytes: Vec<u8>) {
        self.under_way_bytes += bytes.len();
        let number = self.next_number;
        self.next_number += 1;
        self.under_way.push(Reverse(Packet { due, number, bytes }));
    }
}

// === impl Packet ===

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn line(faults: &str, start: Instant) -> Line {
        Line::new(&faults.parse().unwrap(), 7, 0, Direction::Up, start)
    }

    /// All that is under way, with when each is due.
    fn rest(line: &mut Line) -> Vec<(Instant, Vec<u8>)> {
        std::iter::from_fn(|| {
            let due = line.next_due()?;
            assert_eq!(line.pop_due(due - MS), None);
            Some((due, line.pop_due(due).unwrap()))
        })
        .collect()
    }

    #[test]
    fn without_faults_packets_leave_at_once_and_in_order() {
        let start = Instant::now();
        let mut line = line("", start);
        for byte in 0..100 {
            assert_eq!(line.push(vec![byte; 9], start), Passage::default());
        }
        assert_eq!(line.under_way_bytes(), 900);
        let expected: Vec<_> = (0..100).map(|byte| (start, vec![byte; 9])).collect();
        assert_eq!(rest(&mut line), expected);
        assert_eq!(line.under_way_bytes(), 0);
        assert_eq!(line.push(Vec::new(), start), Passage::default());
        assert_eq!(line.pop_due(start), Some(Vec::new()));
    }

    #[test]
    fn jitter_keeps_the_order_and_reorder_breaks_it() {
        let start = Instant::now();
        let arrivals = |faults: &str| -> Vec<u32> {
            let mut line = line(faults, start);
            for number in 0..400u32 {
                line.push(number.to_be_bytes().to_vec(), start + MS * number);
            }
            let number = |bytes: Vec<u8>| u32::from_be_bytes(bytes.try_into().unwrap());
            let rest = rest(&mut line).into_iter();
            rest.map(|(_, bytes)| number(bytes)).collect()
        };
        let in_order: Vec<_> = (0..400).collect();
        assert_eq!(arrivals("delay_ms=5,jitter_ms=50"), in_order);
        let mut shuffled = arrivals("reorder=0.2");
        let overtaken = shuffled.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(overtaken > 40, "{overtaken} overtaken of 400");
        shuffled.sort_unstable();
        assert_eq!(shuffled, in_order);
    }

    #[test]
    fn a_corrupted_packet_differs_by_one_bit() {
        let start = Instant::now();
        let mut line = line("corrupt=1", start);
        for bytes in 1..200 {
            assert!(line.push(vec![0; bytes], start).corrupted);
            let ones: u32 = rest(&mut line)[0]
                .1
                .iter()
                .map(|byte| byte.count_ones())
                .sum();
            assert_eq!(ones, 1);
        }
        assert_eq!(line.push(Vec::new(), start), Passage::default());
    }

    #[test]
    fn a_double_comes_after_and_large_ones_never() {
        let start = Instant::now();
        let mut line = line("dup=1,delay_ms=40,mtu_bytes=10", start);
        assert!(line.push(vec![1; 10], start).doubled);
        assert!(line.push(vec![1; 11], start).too_large);
        let arrived = rest(&mut line);
        assert_eq!(arrived.len(), 2);
        assert_eq!(arrived[0].0, start + MS * 40);
        assert!((arrived[0].0..=arrived[0].0 + MS * 20).contains(&arrived[1].0));
        assert_eq!(arrived[0].1, arrived[1].1);
    }

    #[test]
    fn a_full_line_drops_and_says_so() {
        let start = Instant::now();
        let mut wide = line("delay_ms=1", start);
        while !wide.push(vec![0; 16 * 1024], start).overflowed {}
        assert_eq!(wide.under_way_bytes(), UNDER_WAY_MAX_BYTES);
        wide.pop_due(start + MS).unwrap();
        assert!(!wide.push(vec![0; 16 * 1024], start).overflowed);

        let mut crumbs = line("dup=1", start);
        while !crumbs.push(vec![0], start).overflowed {}
        assert_eq!(crumbs.under_way.len(), UNDER_WAY_MAX_PACKETS);
    }

    proptest! {
        #[test]
        fn nothing_is_made_up_and_room_is_given_back(
            packets in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..50), 0u32..5), 0..200),
            seed in any::<u64>(),
        ) {
            let plan = "loss=0.2,dup=0.2,reorder=0.3,delay_ms=3,jitter_ms=9,bandwidth_kbps=100";
            let mut now = Instant::now();
            let mut line = Line::new(&plan.parse().unwrap(), seed, 1, Direction::Down, now);
            let mut expected = 0;
            for (bytes, gap_ms) in &packets {
                now += MS * *gap_ms;
                let passage = line.push(bytes.clone(), now);
                expected += usize::from(!passage.lost) + usize::from(passage.doubled);
            }
            let arrived = rest(&mut line);
            prop_assert_eq!(arrived.len(), expected);
            prop_assert!(arrived.iter().all(|(_, got)| packets.iter().any(|(sent, _)| sent == got)));
            prop_assert_eq!(line.under_way_bytes(), 0);
        }
    }
}
