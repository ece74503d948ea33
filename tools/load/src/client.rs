//! What an engine knows of one client: which of its messages are under way, and
//! which of others' have come.

use crate::{
    driver::Message,
    sequence::{AHEAD_MAX, Came, Sequence},
};

/// One client.
pub(crate) struct Client {
    pub(crate) stage: Stage,
    /// Messages that may be unacked.
    pub(crate) window: u64,
    /// Messages that are due; those from `next` on wait for room.
    pub(crate) offered: u64,
    /// The next to be sent, or to be sent again.
    next: u64,
    /// Those below have been sent at least once.
    sent: u64,
    attempt: u8,
    /// The server has put it off.
    pub(crate) is_paused: bool,
    acks: Sequence,
    received: Sequence,
    /// When messages were due, by number, from the first unacked on.
    /// Empty until it sends something.
    due_ns: Vec<u64>,
    pub(crate) is_dirty: bool,
    pub(crate) is_settling: bool,
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun.
    Idle,
    /// On its way to be logged in.
    Opening,
    /// Logged in.
    Ready,
    /// Its connection was lost.
    Gone,
}

const RING: usize = AHEAD_MAX as usize;

/// Messages that a client may have unacked at most.
pub const WINDOW_MAX: u32 = AHEAD_MAX as u32;

// === impl Client ===

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Idle,
            window: 0,
            offered: 0,
            next: 0,
            sent: 0,
            attempt: 0,
            is_paused: false,
            acks: Sequence::default(),
            received: Sequence::default(),
            due_ns: Vec::new(),
            is_dirty: false,
            is_settling: false,
        }
    }

    /// Its next message, if its window has room for one. `due_ns` tells when a
    /// message of this number is due; the flag, whether it goes out for the first time.
    pub(crate) fn next_message(
        &mut self,
        is_open: bool,
        due_ns: impl FnOnce(u64) -> u64,
    ) -> Option<(Message, bool)> {
        if self.stage != Stage::Ready || self.is_paused {
            return None;
        }
        while self.next < self.sent && self.acks.contains(self.next) {
            self.next += 1;
        }
        let number = self.next;
        let is_first = number == self.sent;
        let base = self.acks.next();
        let has_room = number - base < self.window && (number < self.offered || is_open);
        if is_first && !has_room {
            return None;
        }
        let slot = number as usize % RING;
        if is_first {
            self.due_ns.resize(RING, 0);
            self.due_ns[slot] = due_ns(number);
            self.sent += 1;
        }
        self.next += 1;
        Some((self.message(number), is_first))
    }

    /// A message that was sent, to be sent again by itself, unless it is acked.
    pub(crate) fn again(&self, number: u64) -> Option<Message> {
        let is_due = self.stage == Stage::Ready && !self.acks.contains(number);
        is_due.then(|| self.message(number))
    }

    fn message(&self, number: u64) -> Message {
        let follows = number > self.acks.next() && !self.acks.contains(number - 1);
        Message {
            number,
            attempt: self.attempt,
            due_ns: self.due_ns[number as usize % RING],
            follows_due_ns: follows.then(|| self.due_ns[(number - 1) as usize % RING]),
        }
    }

    /// A message is acked: when it was due, if that is news.
    pub(crate) fn acked(&mut self, number: u64) -> Result<u64, Came> {
        if number >= self.sent {
            return Err(Came::TooFar);
        }
        match self.acks.take(number) {
            Came::New => Ok(self.due_ns[number as usize % RING]),
            other => Err(other),
        }
    }

    /// A message is to be sent again, with those behind it. False where that is
    /// known, or was of an earlier attempt.
    pub(crate) fn refused(&mut self, number: u64, attempt: u8) -> bool {
        if attempt != self.attempt || self.acks.contains(number) || number >= self.sent {
            return false;
        }
        self.attempt = self.attempt.wrapping_add(1);
        self.next = self.next.min(number).max(self.acks.next());
        self.is_paused = true;
        true
    }

    /// Messages sent so far, each once.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn received(&mut self, number: u64) -> Came {
        self.received.take(number)
    }

    /// Messages under way, or waiting to be sent again.
    pub(crate) fn unacked(&self) -> u64 {
        self.sent - self.acks.next() - u64::from(self.acks.ahead())
    }

    /// What was under way with a connection that is lost goes out again.
    pub(crate) fn reconnected(&mut self) {
        self.attempt = self.attempt.wrapping_add(1);
        self.next = self.acks.next();
        self.is_paused = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(client: &mut Client) -> Vec<u64> {
        std::iter::from_fn(|| client.next_message(false, |number| number * 10))
            .map(|(message, _)| message.number)
            .collect()
    }

    #[test]
    fn a_window_is_kept_and_what_is_refused_goes_again_in_order() {
        let mut client = Client::new();
        assert!(client.next_message(true, |_| 0).is_none(), "not logged in");
        (client.stage, client.window, client.offered) = (Stage::Ready, 4, 100);
        assert_eq!(numbers(&mut client), [0, 1, 2, 3]);
        assert_eq!(client.acked(0), Ok(0));
        assert_eq!(client.acked(0), Err(Came::Again));
        assert_eq!(client.acked(9), Err(Came::TooFar));
        assert_eq!(numbers(&mut client), [4]);
        assert!(client.refused(2, 0));
        assert!(!client.refused(3, 0), "goes out again behind it");
        assert_eq!(numbers(&mut client), [] as [u64; 0]);
        client.is_paused = false;
        assert_eq!(client.acked(3), Ok(30));
        assert_eq!(numbers(&mut client), [2, 4]);
        assert_eq!(client.unacked(), 3);
        for number in [1, 2, 4] {
            assert_eq!(client.acked(number), Ok(number * 10));
        }
        assert_eq!(client.unacked(), 0);
        assert_eq!(numbers(&mut client), [5, 6, 7, 8]);
    }
}
