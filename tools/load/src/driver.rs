//! What a protocol has to say for itself to be put under load: bytes out, bytes in,
//! no sockets, no clock. Schedule, sockets, latencies and counts are the engine's.
//!
//! A driver of another protocol (`peers`) implements these functions and runs by the
//! same schedule.

use crate::LoadError;

/// The clients' side of a protocol, for all clients of an engine; they are numbered
/// from 0.
pub trait Driver {
    /// Appends the first thing that a client says on a fresh connection.
    ///
    /// # Errors
    /// It has nothing to say.
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError>;

    /// Appends a message of a client. To whom is the driver's to know. Its number and
    /// its due time travel with it, for [`Heard::Acked`] and [`Heard::Received`] tell
    /// them again.
    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>);

    /// Takes what has come to a client and tells what it meant; returns how many bytes
    /// it has used. The others are given again, with more behind them. What it has to
    /// answer at once it appends to `out`.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError>;

    /// Some time after a client has received something: appends what it owes for it,
    /// gathered.
    fn settle(&mut self, _client: usize, _out: &mut Vec<u8>) {}

    /// Appends what ends a batch: a client has something to say, which is about to be
    /// written.
    fn gathered(&mut self, _client: usize, _out: &mut Vec<u8>) {}

    /// Appends a sign of life.
    fn keep_alive(&mut self, _client: usize, _out: &mut Vec<u8>) {}

    /// Whether a client's messages are only taken in their order: where one is
    /// refused, those behind it go out again, too.
    fn is_ordered(&self) -> bool;
}

impl Driver for Box<dyn Driver> {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        (**self).open(client, out)
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        (**self).send(client, message, out);
    }

    fn take(
        &mut self,
        client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        (**self).take(client, input, out, heard)
    }

    fn settle(&mut self, client: usize, out: &mut Vec<u8>) {
        (**self).settle(client, out);
    }

    fn gathered(&mut self, client: usize, out: &mut Vec<u8>) {
        (**self).gathered(client, out);
    }

    fn keep_alive(&mut self, client: usize, out: &mut Vec<u8>) {
        (**self).keep_alive(client, out);
    }

    fn is_ordered(&self) -> bool {
        (**self).is_ordered()
    }
}

/// A message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Counts the messages of its client from 0.
    pub number: u64,
    /// Counts the refusals that this client has met.
    pub attempt: u8,
    /// When the schedule wanted it sent, by the monotonic clock.
    pub due_ns: u64,
    /// When the one before it was due, if that isn't acked.
    pub follows_due_ns: Option<u64>,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is logged in.
    Ready {
        /// Messages that it may have unacked.
        window: u32,
        /// It has to give a sign of life so often; 0: never.
        heartbeat_interval_ms: u32,
    },
    /// What it had missed has come.
    Synced,
    /// A message of its own is done.
    Acked {
        /// The message's.
        number: u64,
    },
    /// A message of its own is to be sent again.
    Refused {
        /// The message's.
        number: u64,
        /// The message's.
        attempt: u8,
        /// Not before.
        after_ms: u32,
    },
    /// A message of its own is refused for good; the code is the protocol's.
    Failed {
        /// The message's.
        number: u64,
        /// For the first that fails, which is told.
        code: u32,
    },
    /// A message of another.
    Received {
        /// The message's, which counts those of its sender.
        number: u64,
        /// The message's.
        due_ns: u64,
    },
    /// The server has dropped what was for this client, which pulls it.
    Overflowed,
}
