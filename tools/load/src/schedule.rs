//! When messages are due: fixed ahead, so that a slow answer delays no later message
//! on paper, and each is counted from when it was due (no coordinated omission).

use crate::clock::SECOND_NS;

/// How fast messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Pace {
    /// So many a second in all, whatever becomes of them.
    PerSecond(f64),
    /// As fast as each client's window lets them: a message is due when there is room.
    Window,
}

/// The due times of a run: senders take turns, evenly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start_ns: u64,
    period_ns: f64,
    senders: u64,
    /// Messages of all senders that were due.
    pub(crate) taken: u64,
    total: u64,
}

// === impl Pace ===

impl Pace {
    /// What was asked for; `None`: as fast as windows let them.
    pub fn per_s(self) -> Option<f64> {
        match self {
            Self::PerSecond(per_s) => Some(per_s),
            Self::Window => None,
        }
    }
}

// === impl Schedule ===

impl Schedule {
    /// `per_s` messages a second of `senders` clients for a span.
    pub(crate) fn new(start_ns: u64, per_s: f64, senders: usize, span_ns: u64) -> Self {
        Self {
            start_ns,
            period_ns: SECOND_NS as f64 / per_s,
            senders: senders.max(1) as u64,
            taken: 0,
            total: (per_s * span_ns as f64 / SECOND_NS as f64) as u64,
        }
    }

    /// When the next message is due; `None` after the last.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (self.taken < self.total).then(|| self.at(self.taken))
    }

    /// Whose turn it is, if it is due.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<(usize, u64)> {
        let due_ns = self.next_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let sender = (self.taken % self.senders) as usize;
        self.taken += 1;
        Some((sender, due_ns))
    }

    /// When a sender's message of this number is due.
    pub(crate) fn due_ns(&self, sender: usize, number: u64) -> u64 {
        self.at(number * self.senders + sender as u64)
    }

    fn at(&self, index: u64) -> u64 {
        self.start_ns + (index as f64 * self.period_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns_and_each_message_is_due_when_it_was_said() {
        let mut schedule = Schedule::new(1_000, 1_000.0, 3, 10_000_000);
        assert!(schedule.take(999).is_none());
        let mut numbers = [0; 3];
        let mut due = Vec::new();
        while let Some((sender, due_ns)) = schedule.take(u64::MAX) {
            assert_eq!(schedule.due_ns(sender, numbers[sender]), due_ns);
            numbers[sender] += 1;
            due.push(due_ns);
        }
        assert_eq!(numbers, [4, 3, 3]);
        assert_eq!(due.first(), Some(&1_000));
        assert_eq!(due.last(), Some(&9_001_000));
        assert_eq!(schedule.next_ns(), None);
    }
}
