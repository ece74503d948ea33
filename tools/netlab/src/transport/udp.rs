//! A protocol without I/O of its own, driven over a UDP socket.

use crate::clock::now_us;
use crate::session::Session;
use anyhow::Result;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// How many datagrams are read before something is sent.
const READS_MAX: usize = 64;

/// A protocol's state at one end of one connection. Times are microseconds of any one clock.
pub(crate) trait Machine {
    /// Takes a message to be sent.
    fn send(&mut self, message: &[u8], now_us: u64) -> Result<()>;
    /// Takes in a datagram, which it may change.
    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr, now_us: u64) -> Result<()>;
    /// The next message that came.
    fn poll_message(&mut self) -> Option<Vec<u8>>;
    /// Puts the next datagram that is to be sent into `datagram`; returns where to.
    fn poll_datagram(&mut self, datagram: &mut Vec<u8>, now_us: u64) -> Option<SocketAddr>;
    /// When [`on_timeout`](Self::on_timeout) is due.
    fn timeout_us(&mut self, now_us: u64) -> Option<u64>;
    /// Does what is due by now.
    fn on_timeout(&mut self, now_us: u64) -> Result<()>;
}

/// Carries the session until told to stop.
pub(crate) async fn drive(
    socket: UdpSocket,
    mut machine: impl Machine,
    session: &mut Session,
) -> Result<()> {
    let (mut scratch, mut datagram) = (vec![0; 64 * 1024], Vec::new());
    loop {
        while let Some(message) = machine.poll_message() {
            session.received(&message);
        }
        while let Some(message) = session.next_message() {
            machine.send(&message, now_us())?;
        }
        while let Some(to) = machine.poll_datagram(&mut datagram, now_us()) {
            socket.send_to(&datagram, to).await?;
        }
        let timeout_us = machine.timeout_us(now_us());
        let wait_us = timeout_us.map_or(0, |timeout_us| timeout_us.saturating_sub(now_us()));
        let due = Instant::now() + Duration::from_micros(wait_us);
        tokio::select! {
            going = session.wake() => if !going {
                return Ok(());
            },
            ready = socket.readable() => {
                ready?;
                for _ in 0..READS_MAX {
                    match socket.try_recv_from(&mut scratch) {
                        Ok((read, from)) => machine.receive(&mut scratch[..read], from, now_us())?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            () = sleep_until(due), if timeout_us.is_some() => machine.on_timeout(now_us())?,
        }
    }
}
