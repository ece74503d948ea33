//! What clients and server say to each other once a connection stands.

use std::cmp::Reverse;

use super::{Engine, SETTLE_NS};
use crate::{
    client::{Stage, WINDOW_MAX},
    clock::{MS_NS, SECOND_NS},
    driver::{Driver, Heard},
    sequence::Came,
};

// === impl Engine ===

impl<D: Driver> Engine<D> {
    pub(super) fn hear(&mut self, client: usize, heard: Heard, now: u64) {
        let it = &mut self.clients[client];
        let counts = &mut self.tally.counts;
        match heard {
            Heard::Ready {
                window,
                heartbeat_interval_ms,
            } => {
                it.stage = Stage::Ready;
                it.window = window
                    .min(self.options.window_max)
                    .clamp(1, WINDOW_MAX)
                    .into();
                it.reconnected();
                self.logged_in += 1;
                self.heartbeat_ns = u64::from(heartbeat_interval_ms) * MS_NS;
                self.next_heartbeat.0 = self.next_heartbeat.0.min(now + SECOND_NS);
            }
            Heard::Acked { number } => match it.acked(number) {
                Ok(due_ns) => self.tally.acked(due_ns, now),
                Err(Came::Again) => counts.repeats += 1,
                Err(_) => self.note(|| format!("an answer to message {number}, never sent")),
            },
            Heard::Failed { number, code } => {
                counts.failed += u64::from(it.acked(number).is_ok());
                self.note(|| format!("a message was refused with code {code}"));
            }
            Heard::Refused {
                number,
                attempt,
                after_ms,
            } => {
                let at_ns = now + u64::from(after_ms) * MS_NS;
                if !self.driver.is_ordered() {
                    counts.put_off += 1;
                    self.paused.push(Reverse((at_ns, client, Some(number))));
                } else if it.refused(number, attempt) {
                    counts.put_off += 1;
                    self.paused.push(Reverse((at_ns, client, None)));
                }
            }
            Heard::Received { number, due_ns } => {
                match it.received(number) {
                    Came::New => self.tally.received(due_ns, now),
                    Came::Again => counts.repeats += 1,
                    Came::TooFar => self.note(|| format!("message {number} came far too early")),
                }
                if !std::mem::replace(&mut self.clients[client].is_settling, true) {
                    self.settling.push_back((now + SETTLE_NS, client));
                }
            }
            Heard::Overflowed => counts.overflows += 1,
            Heard::Synced => {
                self.synced += 1;
                self.tally.acked(self.cut_ns, now);
            }
        }
    }

    /// Sends what a client has to send, as far as its window goes.
    pub(super) fn feed(&mut self, client: usize, now: u64) {
        let is_open = self.is_open && client < self.senders;
        let copies = self.copies;
        let it = &mut self.clients[client];
        let schedule = &self.schedule;
        let due = |number| match schedule {
            Some(schedule) => schedule.due_ns(client, number),
            None => now,
        };
        let counts = &mut self.tally.counts;
        let mut wrote = false;
        loop {
            // With more than one sender that would be each other's.
            let is_awaited = copies > 1 && counts.sent - counts.received / copies >= it.window;
            let Some((message, is_first)) = it.next_message(is_open && !is_awaited, due) else {
                break;
            };
            self.driver.send(client, message, self.carrier.out(client));
            counts.sent += u64::from(is_first);
            wrote = true;
        }
        if wrote {
            self.mark_dirty(client);
        }
    }

    pub(super) fn resume(&mut self, now: u64) {
        while let Some(Reverse((at_ns, client, number))) = self.paused.peek().copied()
            && at_ns <= now
        {
            self.paused.pop();
            match number {
                None => {
                    self.clients[client].is_paused = false;
                    self.feed(client, now);
                }
                Some(number) => {
                    if let Some(message) = self.clients[client].again(number) {
                        self.driver.send(client, message, self.carrier.out(client));
                        self.mark_dirty(client);
                    }
                }
            }
        }
    }

    pub(super) fn settle(&mut self, now: u64) {
        while let Some((at_ns, client)) = self.settling.front().copied()
            && at_ns <= now
        {
            self.settling.pop_front();
            self.clients[client].is_settling = false;
            if self.clients[client].stage == Stage::Ready {
                self.driver.settle(client, self.carrier.out(client));
                self.mark_dirty(client);
            }
        }
    }

    /// One client after the other, so that each has its turn well within an interval.
    pub(super) fn keep_alive(&mut self, now: u64) {
        let count = self.clients.len() as u64;
        let gap_ns = self.heartbeat_ns * 3 / 4 / count.max(1);
        while self.heartbeat_ns > 0 && self.next_heartbeat.0 <= now {
            let (at_ns, client) = self.next_heartbeat;
            self.next_heartbeat = (at_ns + gap_ns.max(1), (client + 1) % self.clients.len());
            if self.clients[client].stage == Stage::Ready {
                self.driver.keep_alive(client, self.carrier.out(client));
                self.mark_dirty(client);
            }
        }
    }
}
