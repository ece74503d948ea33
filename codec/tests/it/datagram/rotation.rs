//! Keys change while packets are lost, late and repeated.

use proptest::prelude::*;
use sluice_codec::datagram::{Established, KEY_OVERLAP_US, SessionKeys};

use super::{
    pair::{NOW_US, handshake},
    sealing::{header, open_at, seal_at},
};

/// More than this many packets are not under way, so that no number is misread.
const UNDER_WAY_MAX: usize = 30;

#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    Rotate,
    /// One of those under way arrives; it may arrive again.
    Deliver(prop::sample::Index),
    Lose(prop::sample::Index),
    /// What has arrived is acknowledged.
    Acknowledge,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Send),
        2 => Just(Step::Rotate),
        8 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        2 => any::<prop::sample::Index>().prop_map(Step::Lose),
        3 => Just(Step::Acknowledge),
        1 => (0..2 * KEY_OVERLAP_US).prop_map(Step::Wait),
    ]
}

struct UnderWay {
    number: u64,
    /// Changes of the key before it.
    changes: u64,
    datagram: Vec<u8>,
}

struct Model {
    sender: SessionKeys,
    receiver: SessionKeys,
    now_us: u64,
    next: u64,
    acked: Option<u64>,
    received: Option<u64>,
    under_way: Vec<UnderWay>,
    sent_changes: u64,
    sent_phase: bool,
    seen_changes: u64,
    seen_at_us: u64,
}

impl Model {
    fn new() -> Self {
        let (Established { keys: sender, .. }, accepted) = handshake();
        Self {
            sender,
            receiver: accepted.keys,
            now_us: NOW_US,
            next: 0,
            acked: None,
            received: None,
            under_way: Vec::new(),
            sent_changes: 0,
            sent_phase: false,
            seen_changes: 0,
            seen_at_us: 0,
        }
    }

    fn send(&mut self) {
        if self.under_way.len() == UNDER_WAY_MAX {
            self.under_way.remove(0);
        }
        let (number, payload) = (self.next, self.next.to_be_bytes());
        self.next += 1;
        let datagram = seal_at(&mut self.sender, self.now_us, number, self.acked, &payload);
        let phase = header(&datagram).key_phase;
        self.sent_changes += u64::from(phase != self.sent_phase);
        self.sent_phase = phase;
        self.under_way.push(UnderWay {
            number,
            changes: self.sent_changes,
            datagram,
        });
    }

    /// Opens what must open, and nothing that is from two keys ago.
    fn deliver(&mut self, at: usize) -> Result<(), TestCaseError> {
        let UnderWay {
            number,
            changes,
            datagram,
        } = &self.under_way[at];
        let mut datagram = datagram.clone();
        let opened = open_at(
            &mut self.receiver,
            self.now_us,
            self.received,
            &mut datagram,
        );
        // The sender waits for an acknowledgement, so it is never two ahead.
        prop_assert!(*changes <= self.seen_changes + 1);
        let in_overlap = self.now_us < self.seen_at_us + KEY_OVERLAP_US;
        let must_open =
            *changes >= self.seen_changes || *changes + 1 == self.seen_changes && in_overlap;
        prop_assert_eq!(opened.is_ok(), must_open, "{:?}", opened);
        if let Ok((opened, payload)) = opened {
            prop_assert_eq!(opened, *number);
            prop_assert_eq!(payload, number.to_be_bytes());
            self.received = self.received.max(Some(*number));
            if *changes > self.seen_changes {
                self.seen_changes = *changes;
                self.seen_at_us = self.now_us;
            }
        }
        Ok(())
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send => self.send(),
            Step::Rotate => self.sender.rotate(),
            Step::Acknowledge => self.acked = self.received,
            Step::Wait(us) => self.now_us += us,
            Step::Deliver(_) | Step::Lose(_) if self.under_way.is_empty() => {}
            Step::Deliver(index) => self.deliver(index.index(self.under_way.len()))?,
            Step::Lose(index) => {
                self.under_way.remove(index.index(self.under_way.len()));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_schedule_parts_the_two_sides(steps in prop::collection::vec(step(), 0..200)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step)?;
        }
        // Whatever happened, the next packet opens.
        model.send();
        model.deliver(model.under_way.len() - 1)?;
    }
}
