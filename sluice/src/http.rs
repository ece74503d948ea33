//! Accepts HTTP connections and serves them, within bounds: so many at once, in
//! all and from one address, so long for a request's head. Whoever opens
//! connections and says nothing, or says it a byte at a time, is let go; a
//! connection above a bound is answered 503, or 429 when it is its address's. Who
//! does not read is let go too (on Linux, by TCP_USER_TIMEOUT). How long a body
//! may take is for the handlers to say (`services.http_body_timeout_ms`).
//!
//! Cost: a task and up to [`BUFFER_MAX_BYTES`] a connection.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use sluice_services::Peer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// What HTTP clients may take: the table `[http]` of `sluice.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Connections at once; one more is answered 503.
    pub connections_max: usize,
    /// Connections at once from one address; one more is answered 429.
    pub connections_per_address: usize,
    /// Addresses without that limit, and without that of passwords: this machine,
    /// where a proxy may run.
    pub address_limit_exempt: Vec<IpAddr>,
    /// For a request's head, and between two requests.
    pub head_timeout_ms: u64,
    /// For a peer that doesn't take what was written.
    pub stall_timeout_ms: u64,
}

/// Who holds how many connections. Belongs to the accepting task; a connection
/// keeps its seat by holding it.
struct Seats {
    all: Arc<Semaphore>,
    by_address: HashMap<Peer, Arc<()>>,
    bounds: Arc<Bounds>,
}

/// A connection's place, given back when dropped.
struct Seat {
    _of_all: OwnedSemaphorePermit,
    _of_address: Option<Arc<()>>,
}

/// Bytes that a connection may buffer, of which the head is the most.
const BUFFER_MAX_BYTES: usize = 64 * 1024;
/// Before the next try when accepting fails: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers under way at shutdown.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Refused connections that stay until their answer is read, and how long.
const REFUSED_MAX: usize = 64;
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);

const ADDRESS_FULL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_address: 1024,
            address_limit_exempt: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            head_timeout_ms: 30_000,
            stall_timeout_ms: 30_000,
        }
    }
}

impl Bounds {
    /// Whether HTTP can be served with these values.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wanted = [
            ("connections_max", self.connections_max as u64),
            (
                "connections_per_address",
                self.connections_per_address as u64,
            ),
            ("head_timeout_ms", self.head_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
        ];
        match wanted.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must be above 0")),
            None if self.connections_max > Semaphore::MAX_PERMITS => {
                Err("connections_max is too large".to_owned())
            }
            None => Ok(()),
        }
    }

    /// What an address counts for; `None` when it is exempt.
    fn counted(&self, address: IpAddr) -> Option<Peer> {
        let exempt = self.address_limit_exempt.contains(&address.to_canonical());
        (!exempt).then(|| Peer::new(address))
    }
}

// === impl Seats ===

impl Seats {
    fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bounds.connections_max)),
            by_address: HashMap::new(),
            bounds,
        }
    }

    /// A seat, or what to answer instead.
    fn take(&mut self, peer: IpAddr) -> Result<Seat, &'static [u8]> {
        let of_all = Arc::clone(&self.all)
            .try_acquire_owned()
            .map_err(|_| FULL)?;
        Ok(Seat {
            _of_all: of_all,
            _of_address: self.take_of_address(peer)?,
        })
    }

    fn take_of_address(&mut self, peer: IpAddr) -> Result<Option<Arc<()>>, &'static [u8]> {
        let Some(peer) = self.bounds.counted(peer) else {
            return Ok(None);
        };
        // Those without a connection are forgotten, so the table stays bounded.
        if self.by_address.len() >= self.bounds.connections_max.saturating_mul(2) {
            self.by_address
                .retain(|_, held| Arc::strong_count(held) > 1);
        }
        let held = self.by_address.entry(peer).or_default();
        // One is the table's own.
        match Arc::strong_count(held) > self.bounds.connections_per_address {
            true => Err(ADDRESS_FULL),
            false => Ok(Some(Arc::clone(held))),
        }
    }
}

/// Serves until shutdown; answers that are under way then are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    let bounds = Arc::new(bounds);
    let mut seats = Seats::new(Arc::clone(&bounds));
    let refused = Arc::new(Semaphore::new(REFUSED_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no HTTP connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = match seats.take(peer.ip()) {
            Ok(seat) => seat,
            Err(answer) => {
                // Past that bound a connection is closed without a word.
                if let Ok(permit) = Arc::clone(&refused).try_acquire_owned() {
                    connections.spawn(refuse(socket, answer, permit));
                }
                continue;
            }
        };
        let (router, shutdown, bounds) = (router.clone(), shutdown.clone(), Arc::clone(&bounds));
        connections.spawn(async move {
            converse(socket, peer, router, &bounds, shutdown).await;
            drop(seat);
        });
    }
    drop(listener);
    connections.close();
    // Who doesn't read their answer by then goes with the process.
    let _ = tokio::time::timeout(FINISH_TIMEOUT, connections.wait()).await;
}

/// Closing before the request is read would reset the connection, and take the
/// answer away with it.
async fn refuse(mut socket: TcpStream, answer: &[u8], _permit: OwnedSemaphorePermit) {
    let read_it = async {
        socket.write_all(answer).await?;
        socket.shutdown().await?;
        let mut ignored = [0; 1024];
        while socket.read(&mut ignored).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whoever doesn't listen has been told enough.
    let _ = tokio::time::timeout(REFUSED_TIMEOUT, read_it).await;
}

async fn converse(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: &Bounds,
    shutdown: CancellationToken,
) {
    // It only makes answers faster.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(&socket)
        .set_tcp_user_timeout(Some(Duration::from_millis(bounds.stall_timeout_ms)))
    {
        tracing::debug!(%peer, %error, "a stalled reader will not be let go");
    }
    let counted = bounds.counted(peer.ip());
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let router = router.clone();
        if let Some(peer) = counted {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(bounds.head_timeout_ms))
        .max_buf_size(BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection broke off");
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> axum::response::Response {
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;

    const HALF_A_HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\nx-a: ";
    const CALL: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";

    async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    /// All that comes until the server closes, which it must do soon.
    async fn rest(mut socket: TcpStream) -> String {
        let mut bytes = Vec::new();
        let read = socket.read_to_end(&mut bytes);
        let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
        // A reset is an end as well.
        let _ = ended.expect("the server lets go");
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn who_says_nothing_is_let_go_and_the_rest_is_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(async |body: String| body + " yourself"));
        let bounds = Bounds {
            connections_max: 4,
            head_timeout_ms: 500,
            ..Bounds::default()
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, bounds, stop.clone()));

        let silent = [
            connect(address, b"").await,
            connect(address, HALF_A_HEAD).await,
            connect(address, CALL).await,
            connect(address, CALL).await,
        ];
        let fifth = rest(connect(address, CALL).await).await;
        assert!(fifth.starts_with("HTTP/1.1 503 "), "{fifth}");
        for (index, socket) in silent.into_iter().enumerate() {
            let said = rest(socket).await;
            assert_eq!(said.ends_with("hi yourself"), index >= 2, "{said}");
        }

        // Their seats are free again; whoever is idle at shutdown is let go.
        let idle = connect(address, CALL).await;
        idle.readable().await.unwrap();
        stop.cancel();
        assert!(rest(idle).await.ends_with("hi yourself"));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_seats() {
        let bounds = Bounds {
            connections_max: 3,
            connections_per_address: 2,
            ..Bounds::default()
        };
        let mut seats = Seats::new(Arc::new(bounds));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        // The same address, as a socket for both families sees it.
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
        let taken = [seats.take(one), seats.take(mapped)];
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(seats.take(one).err(), Some(ADDRESS_FULL));
        let third = seats.take(other);
        assert!(third.is_ok());
        assert_eq!(seats.take(other).err(), Some(FULL));
        drop((taken, third));
        for last in 0..20 {
            assert!(seats.take(IpAddr::from([10, 0, 1, last])).is_ok());
        }
        assert!(seats.by_address.len() <= 6);
        let here = [(); 3].map(|()| seats.take(Ipv4Addr::LOCALHOST.into()));
        assert!(here.iter().all(Result::is_ok));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_does_not_read_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(async || vec![b'a'; 32 << 20]));
        let bounds = Bounds {
            connections_max: 1,
            stall_timeout_ms: 1_000,
            ..Bounds::default()
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router, bounds, stop.clone()));

        let _silent = connect(address, CALL).await;
        let served = async {
            loop {
                let mut next = connect(address, CALL).await;
                let mut first = [0; 12];
                let read = next.read_exact(&mut first).await;
                if read.is_ok() && &first == b"HTTP/1.1 200" {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let served = tokio::time::timeout(Duration::from_secs(20), served).await;
        served.expect("its seat is free again");
        stop.cancel();
    }
}
