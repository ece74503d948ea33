//! One client's datagrams, both ways: what a NAT calls a binding, with the clock of its faults.
//!
//! The upstream sees a flow as one socket, connected to it. A rebind opens another one, on another
//! port and every other time on another address too; the one before stays open, unread, so that
//! answers to it vanish as behind a NAT, without an ICMP error that would tell the upstream.

use crate::datagram::line::Line;
use crate::datagram::relay::Shared;
use crate::datagram::stats::add;
use crate::plan::Key;
use crate::schedule::{Direction, Pauses, Rebinds, next_rebind, next_turn};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A NAT's patience where the plan doesn't say: RFC 4787 asks for two minutes at least.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The largest payload of a datagram, and some.
pub(crate) const DATAGRAM_MAX_BYTES: usize = 64 * 1024;
/// How many answers are read before the flow looks at its clock again.
const READS_MAX: usize = 32;

/// What the relay tells a flow.
#[derive(Debug)]
pub(crate) enum Order {
    /// The client sent this.
    Carry(Vec<u8>),
    /// Come from another address from now on.
    Rebind,
}

/// One client's datagrams.
#[derive(Debug)]
pub(crate) struct Flow {
    number: u64,
    client: SocketAddr,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    /// What the upstream sees.
    socket: UdpSocket,
    /// What it saw before; never read.
    retired: Option<UdpSocket>,
    rebound: u64,
    up: Line,
    down: Line,
    /// This flow's part of the relay's gauge of held bytes.
    held_bytes: u64,
    stalls: Option<Pauses>,
    stalled: bool,
    rebinds: Option<Rebinds>,
    idle_max: Duration,
    idle_at: Instant,
}

// === impl Flow ===

impl Flow {
    /// Opens the flow's socket to the upstream. Must be called in a tokio runtime.
    pub(crate) fn open(
        number: u64,
        client: SocketAddr,
        shared: Arc<Shared>,
        orders: mpsc::Receiver<Order>,
    ) -> io::Result<Self> {
        let socket = connected(source(shared.upstream.ip(), number, 0), shared.upstream)?;
        let (plan, seed, now) = (&shared.plan, shared.seed, Instant::now());
        let idle_max = plan.mean_s(Key::NatIdleS);
        let idle_max = idle_max.map_or(IDLE_MAX, Duration::from_secs_f64);
        Ok(Flow {
            up: Line::new(plan, seed, number, Direction::Up, now),
            down: Line::new(plan, seed, number, Direction::Down, now),
            stalls: Pauses::stalls(plan, seed, number, now),
            rebinds: Rebinds::new(plan, seed, number, now),
            number,
            client,
            shared,
            orders,
            socket,
            retired: None,
            rebound: 0,
            held_bytes: 0,
            stalled: false,
            idle_max,
            idle_at: now + idle_max,
        })
    }

    /// Carries datagrams until none came for too long or the relay is gone.
    pub(crate) async fn run(mut self) {
        loop {
            // Fast senders are always ready; other flows must get their turn.
            tokio::task::coop::consume_budget().await;
            if !self.stalled {
                self.deliver().await;
            }
            self.weigh();
            let due = self
                .up
                .next_due()
                .into_iter()
                .chain(self.down.next_due())
                .min();
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Carry(datagram)) => self.take(Direction::Up, datagram),
                    Some(Order::Rebind) => self.rebind(),
                    None => return,
                },
                _ = self.socket.readable() => self.read(),
                () = sleep_until(due.unwrap_or(self.idle_at)), if due.is_some() && !self.stalled => {}
                stalled = next_turn(&mut self.stalls) => {
                    self.stalled = stalled;
                    add(&self.shared.counters.stalls, u64::from(stalled));
                }
                () = next_rebind(&mut self.rebinds) => self.rebind(),
                () = sleep_until(self.idle_at) => {
                    if self.shared.strike_off(self.client, &self.orders) {
                        tracing::debug!(flow = self.number, "flow ended: idle");
                        return;
                    }
                    self.idle_at = Instant::now() + self.idle_max;
                }
            }
        }
    }

    fn read(&mut self) {
        let mut scratch = [0; DATAGRAM_MAX_BYTES];
        for _ in 0..READS_MAX {
            match self.socket.try_recv(&mut scratch) {
                Ok(bytes) => self.take(Direction::Down, scratch[..bytes].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The upstream isn't there, says ICMP; a NAT's client wouldn't hear of it.
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, way: Direction, datagram: Vec<u8>) {
        let now = Instant::now();
        self.idle_at = now + self.idle_max;
        if self.shared.is_dark() {
            add(&self.shared.counters.blacked_out, 1);
            return;
        }
        let line = match way {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        self.shared.counters.note(line.push(datagram, now));
    }

    /// Sends all that is due. A datagram that the system won't take is lost, as networks lose them.
    async fn deliver(&mut self) {
        let (now, counters) = (Instant::now(), &self.shared.counters);
        while let Some(datagram) = self.up.pop_due(now) {
            if self.socket.send(&datagram).await.is_ok() {
                add(&counters.up, 1);
                add(&counters.bytes_up, datagram.len() as u64);
            }
        }
        while let Some(datagram) = self.down.pop_due(now) {
            let sent = self.shared.socket.send_to(&datagram, self.client).await;
            if sent.is_ok() {
                add(&counters.down, 1);
                add(&counters.bytes_down, datagram.len() as u64);
            }
        }
    }

    fn rebind(&mut self) {
        let from = source(self.shared.upstream.ip(), self.number, self.rebound + 1);
        match connected(from, self.shared.upstream) {
            Ok(socket) => {
                let before = std::mem::replace(&mut self.socket, socket);
                // It fills up and stays full: let that be little.
                let _ = SockRef::from(&before).set_recv_buffer_size(0);
                self.retired = Some(before);
                self.rebound += 1;
                add(&self.shared.counters.rebinds, 1);
                tracing::debug!(flow = self.number, rebound = self.rebound, "rebound");
            }
            Err(error) => tracing::warn!(%error, "cannot rebind"),
        }
    }

    fn weigh(&mut self) {
        let held = (self.up.under_way_bytes() + self.down.under_way_bytes()) as u64;
        let gauge = &self.shared.counters.held_bytes;
        // Added before taken, so that the gauge never runs below zero.
        gauge.fetch_add(held, Relaxed);
        gauge.fetch_sub(self.held_bytes, Relaxed);
        self.held_bytes = held;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let gauge = &self.shared.counters.held_bytes;
        gauge.fetch_sub(self.held_bytes, Relaxed);
    }
}

/// The address from which a flow comes after so many rebinds. All of 127/8 is this machine, so
/// towards an upstream there the address can change too, not only the port.
fn source(upstream: IpAddr, flow: u64, rebound: u64) -> IpAddr {
    match upstream {
        IpAddr::V4(upstream) if upstream.is_loopback() && rebound > 0 => {
            let [.., high, low] = flow.to_be_bytes();
            // 1, 1, 2, 2, 3, …: a new address, then only a new port, and so on.
            let network = 1 + (rebound.div_ceil(2) % 250) as u8;
            Ipv4Addr::new(127, network, high, low.max(1)).into()
        }
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn connected(from: IpAddr, upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((from, 0))?;
    socket.connect(upstream)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn towards_this_machine_every_other_rebind_changes_the_address() {
        let upstream: IpAddr = Ipv4Addr::LOCALHOST.into();
        let addresses: Vec<_> = (0..5)
            .map(|rebound| source(upstream, 258, rebound))
            .collect();
        let text: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(
            text,
            [
                "0.0.0.0",
                "127.2.1.2",
                "127.2.1.2",
                "127.3.1.2",
                "127.3.1.2"
            ]
        );
        let elsewhere: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        assert!(source(elsewhere, 258, 3).is_unspecified());
        assert!((0..2000).all(|rebound| source(upstream, 0, rebound) != upstream));
    }
}
