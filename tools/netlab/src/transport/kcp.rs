//! KCP in its fast mode, by the crate `kcp`. What is sent leaves at once, not at the next tick of
//! its clock, which is the best that KCP can do for latency.

use crate::session::Session;
use crate::transport::Invitation;
use crate::transport::udp::{Machine, drive};
use anyhow::Result;
use kcp::Kcp;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tokio::net::UdpSocket;

/// Both ends must name the same.
const CONVERSATION: u32 = 7;
/// What its users set: far more than is under way here.
const WINDOW_SEGMENTS: u16 = 256;

struct KcpMachine {
    kcp: Kcp<Outbox>,
    outbox: Outbox,
    /// The server learns it from the first datagram.
    peer: Option<SocketAddr>,
}

/// Datagrams that KCP wants to be sent; bounded by its window.
#[derive(Debug, Clone, Default)]
struct Outbox(Rc<RefCell<VecDeque<Vec<u8>>>>);

pub(crate) async fn serve(
    listen: SocketAddr,
    invite: impl FnOnce(Invitation) -> Result<()>,
    session: &mut Session,
) -> Result<()> {
    let socket = UdpSocket::bind(listen).await?;
    let (address, key) = (socket.local_addr()?, String::new());
    invite(Invitation { address, key })?;
    drive(socket, KcpMachine::new(None)?, session).await
}

pub(crate) async fn connect(to: &Invitation, session: &mut Session) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    drive(socket, KcpMachine::new(Some(to.address))?, session).await
}

/// KCP's clock.
fn ms(now_us: u64) -> u32 {
    (now_us / 1000) as u32
}

// === impl KcpMachine ===

impl KcpMachine {
    fn new(peer: Option<SocketAddr>) -> Result<Self> {
        let outbox = Outbox::default();
        let mut kcp = Kcp::new(CONVERSATION, outbox.clone());
        kcp.set_nodelay(true, 10, 2, true);
        kcp.set_wndsize(WINDOW_SEGMENTS, WINDOW_SEGMENTS);
        kcp.update(ms(crate::clock::now_us()))?;
        Ok(KcpMachine { kcp, outbox, peer })
    }
}

impl Machine for KcpMachine {
    fn send(&mut self, message: &[u8], now_us: u64) -> Result<()> {
        self.kcp.send(message)?;
        // Tells it the time, and flushes if that is due anyway.
        self.kcp.update(ms(now_us))?;
        Ok(self.kcp.flush()?)
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr, now_us: u64) -> Result<()> {
        self.peer.get_or_insert(from);
        self.kcp.update(ms(now_us))?;
        // What it can't read it drops, as it would on the open network.
        let _ = self.kcp.input(datagram);
        Ok(())
    }

    fn poll_message(&mut self) -> Option<Vec<u8>> {
        let mut message = vec![0; self.kcp.peeksize().ok()?];
        let read = self.kcp.recv(&mut message).ok()?;
        message.truncate(read);
        Some(message)
    }

    fn poll_datagram(&mut self, datagram: &mut Vec<u8>, _now_us: u64) -> Option<SocketAddr> {
        let peer = self.peer?;
        *datagram = self.outbox.0.borrow_mut().pop_front()?;
        Some(peer)
    }

    fn timeout_us(&mut self, now_us: u64) -> Option<u64> {
        Some(now_us + u64::from(self.kcp.check(ms(now_us))) * 1000)
    }

    fn on_timeout(&mut self, now_us: u64) -> Result<()> {
        Ok(self.kcp.update(ms(now_us))?)
    }
}

// === impl Outbox ===

impl Write for Outbox {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
