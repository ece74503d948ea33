//! Accepts HTTP connections and serves them, within bounds: so many at once, so
//! long for a request's head. Whoever opens connections and says nothing, or
//! says it a byte at a time, is let go; a connection above the bound is answered
//! 503. Who does not read is let go too (on Linux, by TCP_USER_TIMEOUT). How long
//! a body may take is for the handlers to say.
//!
//! Cost: a task and up to [`BUFFER_MAX_BYTES`] a connection.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// What HTTP clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// For a request's head, and between two requests.
    pub(crate) head_timeout: Duration,
    /// For a peer that doesn't take what was written.
    pub(crate) stall_timeout: Duration,
}

/// Bytes that a connection may buffer, of which the head is the most.
const BUFFER_MAX_BYTES: usize = 64 * 1024;
/// Before the next try when accepting fails: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers under way at shutdown.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
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
    let seats = Arc::new(Semaphore::new(bounds.connections_max));
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
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            // A fresh socket takes so few bytes at once; if not, nothing is lost.
            let _ = socket.try_write(FULL);
            continue;
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(socket, peer, router, bounds, shutdown).await;
            drop(seat);
        });
    }
    drop(listener);
    connections.close();
    // Who doesn't read their answer by then goes with the process.
    let _ = tokio::time::timeout(FINISH_TIMEOUT, connections.wait()).await;
}

async fn converse(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    // It only makes answers faster.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    if let Err(error) =
        socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(bounds.stall_timeout))
    {
        tracing::debug!(%peer, %error, "a stalled reader will not be let go");
    }
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
            head_timeout: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(30),
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, bounds, stop.clone()));

        let silent = [
            connect(address, b"").await,
            connect(address, HALF_A_HEAD).await,
            connect(address, CALL).await,
            connect(address, CALL).await,
        ];
        let fifth = rest(connect(address, b"").await).await;
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_does_not_read_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(async || vec![b'a'; 32 << 20]));
        let bounds = Bounds {
            connections_max: 1,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(1),
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
