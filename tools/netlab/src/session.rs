//! What one end of a comparison sends and receives, whatever carries it.
//!
//! Open loop: each message has a time at which it is due, and its latency counts from there, so
//! that a transport which is late with one message doesn't hide how late the next ones are. First a
//! hello goes to and fro; the messages begin when both ends are told to go.

use crate::clock::now_us;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// When a message is due, and its number.
const HEADER_BYTES: usize = 12;
/// The number of the first message of all, in each direction.
const HELLO: u32 = u32::MAX;

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// How much is sent, each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) messages: u32,
    pub(crate) per_second: u32,
    pub(crate) message_bytes: usize,
}

/// What the end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Send, the first message at this time of the machine's clock.
    Go { start_us: u64 },
    /// End, whatever is still missing.
    Stop,
}

/// What the end tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The hello has come.
    Connected,
    /// All messages are sent, and all of the other end's have come.
    Done,
}

/// One end's messages.
#[derive(Debug)]
pub(crate) struct Session {
    role: Role,
    load: Load,
    orders: mpsc::Receiver<Order>,
    tell: fn(Event),
    hello_due: bool,
    start_us: Option<u64>,
    sent: u32,
    /// By number, of the other end's messages.
    latencies_us: Vec<Option<u64>>,
    missing: u32,
    repeated: u32,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// From when due to when received. A message that never came counts until the end.
    pub(crate) latencies_us: Vec<u64>,
    pub(crate) missing: u32,
    pub(crate) repeated: u32,
}

// === impl Role ===

impl Role {
    fn other(self) -> Self {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
}

// === impl Session ===

impl Session {
    pub(crate) fn new(
        role: Role,
        load: Load,
        orders: mpsc::Receiver<Order>,
        tell: fn(Event),
    ) -> Self {
        Session {
            role,
            load,
            orders,
            tell,
            hello_due: role == Role::Client,
            start_us: None,
            sent: 0,
            latencies_us: vec![None; load.messages as usize],
            missing: load.messages,
            repeated: 0,
        }
    }

    /// Waits until a message is due or an order comes; false when the end is to stop. Cancel-safe.
    pub(crate) async fn wake(&mut self) -> bool {
        let due = self.next_due_us();
        let wait_us = due.map_or(0, |due_us| due_us.saturating_sub(now_us()));
        let due_at = Instant::now() + Duration::from_micros(wait_us);
        tokio::select! {
            order = self.orders.recv() => match order {
                Some(Order::Go { start_us }) => {
                    self.start_us = Some(start_us);
                    true
                }
                Some(Order::Stop) | None => false,
            },
            () = sleep_until(due_at), if due.is_some() => true,
        }
    }

    /// The other end is gone, as it may be once it was told to stop: waits for the same word. What
    /// is missing by then stays missing.
    pub(crate) async fn rest(&mut self) {
        while let Some(Order::Go { .. }) = self.orders.recv().await {}
    }

    /// The next message that is due by now.
    pub(crate) fn next_message(&mut self) -> Option<Vec<u8>> {
        let due_us = self.next_due_us().filter(|due_us| *due_us <= now_us())?;
        let hello = std::mem::take(&mut self.hello_due);
        let number = if hello { HELLO } else { self.sent };
        let mut message = vec![0x5A; self.load.message_bytes.max(HEADER_BYTES)];
        message[..8].copy_from_slice(&due_us.to_le_bytes());
        message[8..HEADER_BYTES].copy_from_slice(&number.to_le_bytes());
        if !hello {
            self.sent += 1;
            self.tell_if_done();
        }
        Some(message)
    }

    /// Takes in a message from the other end.
    pub(crate) fn received(&mut self, message: &[u8]) {
        let Some((due_us, rest)) = message.split_first_chunk() else {
            return;
        };
        let Some((number, _)) = rest.split_first_chunk() else {
            return;
        };
        let (due_us, number) = (u64::from_le_bytes(*due_us), u32::from_le_bytes(*number));
        if number == HELLO {
            self.hello_due = self.role == Role::Server;
            (self.tell)(Event::Connected);
            return;
        }
        match self.latencies_us.get_mut(number as usize) {
            Some(latency @ None) => {
                *latency = Some(now_us().saturating_sub(due_us));
                self.missing -= 1;
                self.tell_if_done();
            }
            Some(Some(_)) => self.repeated += 1,
            None => {}
        }
    }

    /// What came of it, as of now.
    pub(crate) fn outcome(self) -> Outcome {
        let (now_us, start_us) = (now_us(), self.start_us.unwrap_or_default());
        let waited_us = |number: usize| {
            now_us.saturating_sub(self.due_us(self.role.other(), start_us, number as u32))
        };
        let numbered = self.latencies_us.iter().enumerate();
        let latencies_us = numbered
            .map(|(number, latency)| latency.unwrap_or_else(|| waited_us(number)))
            .collect();
        Outcome {
            latencies_us,
            missing: self.missing,
            repeated: self.repeated,
        }
    }

    fn next_due_us(&self) -> Option<u64> {
        if self.hello_due {
            return Some(0);
        }
        let start_us = self.start_us?;
        (self.sent < self.load.messages).then(|| self.due_us(self.role, start_us, self.sent))
    }

    /// The ends take turns: the server's messages lie in the middle between the client's.
    fn due_us(&self, from: Role, start_us: u64, number: u32) -> u64 {
        let halves = 2 * u64::from(number) + u64::from(from == Role::Server);
        start_us + halves * 500_000 / u64::from(self.load.per_second)
    }

    fn tell_if_done(&self) {
        if self.missing == 0 && self.sent == self.load.messages {
            (self.tell)(Event::Done);
        }
    }
}
