//! One direction of one connection: read, wait until due, write.
//!
//! Reading and writing take turns in one loop without a lock or a channel. While the connection is
//! held, reading goes on until the flight is full (a network goes on taking bytes for a while too),
//! but nothing leaves, neither bytes nor the end of them.

use crate::bandwidth::Bandwidth;
use crate::schedule::Lateness;
use crate::stream::flight::{Flight, Parcel};
use crate::stream::stats::{add, take};
use std::io;
use std::sync::atomic::AtomicU64;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

const READ_MAX_BYTES: usize = 16 * 1024;

/// One direction of one connection.
#[derive(Debug)]
pub(crate) struct Pump<'a> {
    pub(crate) from: ReadHalf<'a>,
    pub(crate) to: WriteHalf<'a>,
    pub(crate) lateness: Lateness,
    pub(crate) bandwidth: Bandwidth,
    /// True while nothing may leave.
    pub(crate) held: watch::Receiver<bool>,
    /// After how many bytes more the connection is to be reset.
    pub(crate) cut_after_bytes: Option<u64>,
    /// Counts the bytes written.
    pub(crate) passed_bytes: &'a AtomicU64,
    pub(crate) gauge: HeldGauge<'a>,
    pub(crate) flight: Flight,
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpEnd {
    /// The sender's end was passed on; the other direction may go on.
    Fin,
    /// The sender is gone with a reset, and all that it had sent before is written.
    Abort,
    /// The receiver takes no more.
    Broken,
    /// `cut_after_bytes` is reached.
    CutReached,
}

/// This pump's part in the relay's gauge of held bytes, given back when the pump is dropped.
#[derive(Debug)]
pub(crate) struct HeldGauge<'a> {
    total_bytes: &'a AtomicU64,
    own_bytes: u64,
}

// === impl Pump ===

impl Pump<'_> {
    /// Passes bytes until one side ends.
    pub(crate) async fn run(mut self) -> PumpEnd {
        loop {
            // A pair of fast sockets is always ready; the connection's clock must get its turn.
            tokio::task::coop::consume_budget().await;
            let held = *self.held.borrow_and_update();
            let now = Instant::now();
            let due = self.flight.next_due();
            let may_leave = !held && due.is_some_and(|due| due <= now);
            if may_leave && self.flight.first_bytes().is_none() {
                return self.pass_end().await;
            }
            tokio::select! {
                _ = self.from.readable(), if self.flight.wants_more() => self.read(),
                _ = self.to.writable(), if may_leave => {
                    if let Some(end) = self.write() {
                        return end;
                    }
                }
                () = sleep_until(due.unwrap_or(now)), if due.is_some() && !held && !may_leave => {}
                changed = self.held.changed() => {
                    if changed.is_err() {
                        return PumpEnd::Abort;
                    }
                }
            }
        }
    }

    fn read(&mut self) {
        let mut scratch = [0; READ_MAX_BYTES];
        let parcel = match self.from.try_read(&mut scratch) {
            Ok(0) => Parcel::Fin,
            Ok(bytes) => {
                self.gauge.add(bytes as u64);
                Parcel::Bytes(scratch[..bytes].to_vec())
            }
            Err(error) if is_passing(&error) => return,
            Err(_) => Parcel::Abort,
        };
        let bytes = match &parcel {
            Parcel::Bytes(bytes) => bytes.len(),
            Parcel::Fin | Parcel::Abort => 0,
        };
        let passed = self.bandwidth.pass(bytes, Instant::now());
        self.flight.push(parcel, passed, self.lateness.draw());
    }

    fn write(&mut self) -> Option<PumpEnd> {
        let bytes = self.flight.first_bytes()?;
        let cut_bytes = self.cut_after_bytes.map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        match self.to.try_write(&bytes[..bytes.len().min(cut_bytes)]) {
            Ok(written) => {
                self.flight.sent(written);
                self.gauge.take(written as u64);
                add(self.passed_bytes, written as u64);
                let left = self.cut_after_bytes.as_mut()?;
                *left -= written as u64;
                (*left == 0).then_some(PumpEnd::CutReached)
            }
            Err(error) if is_passing(&error) => None,
            Err(_) => Some(PumpEnd::Broken),
        }
    }

    async fn pass_end(&mut self) -> PumpEnd {
        match self.flight.pop() {
            Some(Parcel::Fin) => match self.to.shutdown().await {
                Ok(()) => PumpEnd::Fin,
                Err(_) => PumpEnd::Broken,
            },
            _ => PumpEnd::Abort,
        }
    }
}

/// Whether an error only says "not now".
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

// === impl HeldGauge ===

impl<'a> HeldGauge<'a> {
    pub(crate) fn new(total_bytes: &'a AtomicU64) -> Self {
        HeldGauge {
            total_bytes,
            own_bytes: 0,
        }
    }

    fn add(&mut self, bytes: u64) {
        self.own_bytes += bytes;
        add(self.total_bytes, bytes);
    }

    fn take(&mut self, bytes: u64) {
        self.own_bytes -= bytes;
        take(self.total_bytes, bytes);
    }
}

impl Drop for HeldGauge<'_> {
    fn drop(&mut self) {
        take(self.total_bytes, self.own_bytes);
    }
}
