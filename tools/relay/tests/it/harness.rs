//! A relay with a test's own listener behind it.

use sha2::{Digest, Sha256};
use sluice_relay::{DatagramRelay, FaultPlan, Relay};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A relay before a listener that the test accepts from.
pub(crate) struct Bench {
    pub(crate) relay: Relay,
    pub(crate) upstream: TcpListener,
}

impl Bench {
    pub(crate) async fn new(faults: &str) -> Self {
        Self::with_seed(faults, 42).await
    }

    pub(crate) async fn with_seed(faults: &str, seed: u64) -> Self {
        let upstream = TcpListener::bind(ANY_PORT).await.unwrap();
        let plan: FaultPlan = faults.parse().unwrap();
        let address = upstream.local_addr().unwrap();
        let relay = Relay::start(ANY_PORT, address, plan, seed).await.unwrap();
        Bench { relay, upstream }
    }

    /// Both ends of a new relayed connection: the client's, the server's.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.relay.local_addr()).await.unwrap();
        client.set_nodelay(true).unwrap();
        // On a paused clock a wait without an end is a busy loop; make it a failure.
        let accepted = timeout(Duration::from_secs(60), self.upstream.accept()).await;
        let (server, _) = accepted.expect("the relay connects").unwrap();
        server.set_nodelay(true).unwrap();
        (client, server)
    }
}

/// A datagram relay before a socket of the test's.
pub(crate) struct DatagramBench {
    pub(crate) relay: DatagramRelay,
    pub(crate) upstream: UdpSocket,
}

impl DatagramBench {
    pub(crate) async fn new(faults: &str) -> Self {
        Self::with_seed(faults, 42).await
    }

    pub(crate) async fn with_seed(faults: &str, seed: u64) -> Self {
        let upstream = UdpSocket::bind(ANY_PORT).await.unwrap();
        let plan: FaultPlan = faults.parse().unwrap();
        let address = upstream.local_addr().unwrap();
        let relay = DatagramRelay::start(ANY_PORT, address, plan, seed).await;
        let relay = relay.unwrap();
        DatagramBench { relay, upstream }
    }

    /// A client's socket, which talks to the relay only.
    pub(crate) async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind(ANY_PORT).await.unwrap();
        client.connect(self.relay.local_addr()).await.unwrap();
        client
    }
}

/// The next datagram and where it came from, unless none comes within `patience`.
pub(crate) async fn receive(
    socket: &UdpSocket,
    patience: Duration,
) -> Option<(Vec<u8>, SocketAddr)> {
    let mut datagram = vec![0; 64 * 1024];
    let received = timeout(patience, socket.recv_from(&mut datagram)).await;
    let (bytes, from) = received.ok()?.unwrap();
    datagram.truncate(bytes);
    Some((datagram, from))
}

/// Bytes that repeat nowhere near: a xorshift sequence.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Writes in pieces of uneven sizes, from a byte to some tens of KiB.
pub(crate) async fn write_unevenly(to: &mut (impl AsyncWriteExt + Unpin), mut bytes: &[u8]) {
    for piece in (0..).map(|at: usize| 1 + at * at * 37 % 40_000) {
        if bytes.is_empty() {
            break;
        }
        let (now, later) = bytes.split_at(piece.min(bytes.len()));
        to.write_all(now).await.unwrap();
        bytes = later;
    }
}

/// Reads to the end, whichever it is: the bytes, and the error if it was one.
pub(crate) async fn read_to_any_end(from: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece).await {
            Ok(0) => return (bytes, None),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) => return (bytes, Some(error.kind())),
        }
    }
}

/// Waits until something holds; fails the test after ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
