//! The line between two TUN devices: each packet that one side sends goes on a
//! [`Line`](sluice_relay::Line) and comes out at the other side, if at all.
//!
//! On a thread of its own that sleeps in `poll`: its clock is finer than tokio's milliseconds.

use crate::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use sluice_relay::{Direction, FaultPlan, Line};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// Larger than any packet of a device with the usual MTU of 1,500.
const PACKET_MAX_BYTES: usize = 64 * 1024;
/// How many packets are read before others are delivered.
const READS_MAX: usize = 64;
/// How long an idle wire takes to hear that it is cut.
const IDLE_MAX: Duration = Duration::from_millis(20);

/// What was sent onto a wire, in whole IP packets, lost ones too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireCounts {
    /// Packets from the client's side.
    pub packets_up: u64,
    /// Packets from the server's side.
    pub packets_down: u64,
    /// Bytes from the client's side, IP headers included.
    pub bytes_up: u64,
    /// Bytes from the server's side, IP headers included.
    pub bytes_down: u64,
    /// Packets that the plan lost.
    pub lost: u64,
    /// Packets dropped because too much was under way.
    pub overflowed: u64,
    /// Microseconds of CPU that the wire used, as of its last packet: its own, and the kernel's
    /// where it receives a packet on the wire's account.
    pub cpu_us: u64,
}

/// A wire in use; dropping it cuts it, some milliseconds later.
#[derive(Debug)]
pub(crate) struct Wire {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    up: End,
    down: End,
    lost: AtomicU64,
    overflowed: AtomicU64,
    cpu_us: AtomicU64,
    cut: AtomicBool,
}

#[derive(Debug, Default)]
struct End {
    packets: AtomicU64,
    bytes: AtomicU64,
}

// === impl Wire ===

impl Wire {
    pub(crate) fn connect(
        client: Tun,
        server: Tun,
        plan: &FaultPlan,
        seed: u64,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let up = Line::new(plan, seed, 0, Direction::Up, now);
        let down = Line::new(plan, seed, 0, Direction::Down, now);
        let counters = Arc::<Counters>::default();
        let wire = Wire {
            counters: Arc::clone(&counters),
        };
        std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || carry(&client, &server, up, down, &counters))?;
        Ok(wire)
    }

    pub(crate) fn counts(&self) -> WireCounts {
        let Counters { up, down, .. } = &*self.counters;
        WireCounts {
            packets_up: up.packets.load(Relaxed),
            packets_down: down.packets.load(Relaxed),
            bytes_up: up.bytes.load(Relaxed),
            bytes_down: down.bytes.load(Relaxed),
            lost: self.counters.lost.load(Relaxed),
            overflowed: self.counters.overflowed.load(Relaxed),
            cpu_us: self.counters.cpu_us.load(Relaxed),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.counters.cut.store(true, Relaxed);
    }
}

/// Carries packets until the wire is cut or a device fails.
fn carry(client: &Tun, server: &Tun, mut up: Line, mut down: Line, counters: &Counters) {
    let mut scratch = vec![0; PACKET_MAX_BYTES];
    while !counters.cut.load(Relaxed) {
        let due = up.next_due().into_iter().chain(down.next_due()).min();
        let wait = due.map_or(IDLE_MAX, |due| {
            due.saturating_duration_since(Instant::now())
        });
        let mut devices = [client, server].map(|tun| PollFd::new(tun, PollFlags::IN));
        // Shorter than a second, so the conversion can't fail; interrupted is as good as woken.
        let wait = Timespec::try_from(wait.min(IDLE_MAX)).ok();
        let _ = poll(&mut devices, wait.as_ref());

        let read = counters
            .take_in(client, &mut up, &counters.up, &mut scratch)
            .and_then(|()| counters.take_in(server, &mut down, &counters.down, &mut scratch));
        if read.is_err() {
            return;
        }
        // A device that is down or full takes no packet; then it is lost, as on any wire.
        let now = Instant::now();
        while let Some(packet) = up.pop_due(now) {
            let _ = server.write(&packet);
        }
        while let Some(packet) = down.pop_due(now) {
            let _ = client.write(&packet);
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        // It never shows a negative time.
        let cpu_us = cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1000;
        counters.cpu_us.store(cpu_us, Relaxed);
    }
}

// === impl Counters ===

impl Counters {
    /// Puts on the line what a device's side has sent.
    fn take_in(
        &self,
        from: &Tun,
        line: &mut Line,
        end: &End,
        scratch: &mut [u8],
    ) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let Some(bytes) = from.read(scratch)? else {
                break;
            };
            end.packets.fetch_add(1, Relaxed);
            end.bytes.fetch_add(bytes as u64, Relaxed);
            let passage = line.push(scratch[..bytes].to_vec(), Instant::now());
            self.lost.fetch_add(u64::from(passage.lost), Relaxed);
            let overflowed = u64::from(passage.overflowed);
            self.overflowed.fetch_add(overflowed, Relaxed);
        }
        Ok(())
    }
}
