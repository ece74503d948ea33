//! The relay as its user holds it: a listener, its open connections, and the weather over all.

use crate::RelayError;
use crate::plan::{Carries, FaultPlan};
use crate::schedule::{Pauses, next_turn};
use crate::stream::connection::{Connection, abort};
use crate::stream::stats::{Counters, RelayStats, add};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

/// Beyond this many open connections a new one is refused.
const CONNECTIONS_MAX: usize = 16_384;
/// How long to leave the listener alone after it failed (out of file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A running relay. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Relay {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    acceptor: JoinHandle<()>,
}

/// What holds all connections at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    paused: bool,
    blackout: bool,
}

/// What the relay's tasks have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) upstream: SocketAddr,
    pub(crate) plan: FaultPlan,
    pub(crate) seed: u64,
    pub(crate) counters: Counters,
    weather: watch::Sender<Weather>,
    open: Mutex<HashMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    peer: SocketAddr,
    cut: oneshot::Sender<()>,
}

/// Strikes a connection off the open ones, also when its task is aborted.
struct OpenGuard {
    shared: Arc<Shared>,
    number: u64,
}

// === impl Relay ===

impl Relay {
    /// Listens on `listen` (port 0 allowed) and relays each connection to `upstream`.
    ///
    /// Connections are numbered from 0 as they are accepted, refused ones aside; the number and
    /// `seed` alone decide what the plan does to a connection, and when in its life.
    ///
    /// Must be called in a tokio runtime. Fails on a plan with datagram faults and on an address
    /// that can't be listened on.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        plan: FaultPlan,
        seed: u64,
    ) -> Result<Self, RelayError> {
        RelayError::check(&plan, Carries::Streams)?;
        let failed = |source| RelayError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            upstream,
            plan,
            seed,
            counters: Counters::default(),
            weather: watch::Sender::new(Weather::default()),
            open: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let acceptor = tokio::spawn(accept_all(listener, Arc::clone(&shared), stopped));
        Ok(Relay {
            local_addr,
            shared,
            stop,
            acceptor,
        })
    }

    /// Where clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What has happened so far.
    pub fn stats(&self) -> RelayStats {
        self.shared.stats()
    }

    /// The client's address of every open connection, in the order of their numbers.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let open = self.shared.open();
        let mut peers: Vec<_> = open
            .iter()
            .map(|(number, open)| (*number, open.peer))
            .collect();
        peers.sort_unstable_by_key(|(number, _)| *number);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Resets (RST to both sides) the connection of the client with this address, soon after the
    /// call; bytes under way are lost. Tells whether there was one.
    pub fn cut(&self, peer: SocketAddr) -> bool {
        let mut open = self.shared.open();
        let number = open
            .iter()
            .find(|(_, open)| open.peer == peer)
            .map(|(number, _)| *number);
        let cut = number.and_then(|number| open.remove(&number));
        cut.is_some_and(|open| open.cut.send(()).is_ok())
    }

    /// Resets all present connections as [`cut`](Self::cut) does; tells how many.
    pub fn cut_all(&self) -> usize {
        let open = std::mem::take(&mut *self.shared.open());
        open.into_values()
            .filter_map(|open| open.cut.send(()).ok())
            .count()
    }

    /// Holds all bytes, of connections to come too, until [`resume`](Self::resume). Connections are
    /// still accepted, nothing is lost, and full buffers make the senders wait.
    pub fn pause(&self) {
        self.shared
            .weather
            .send_modify(|weather| weather.paused = true);
    }

    /// Ends a [`pause`](Self::pause). A blackout or a stall of the plan goes on.
    pub fn resume(&self) {
        self.shared
            .weather
            .send_modify(|weather| weather.paused = false);
    }

    /// Stops listening, drops all connections, and returns the final counts once that is done.
    pub async fn shutdown(self) -> RelayStats {
        let _ = self.stop.send(());
        if let Err(error) = self.acceptor.await {
            tracing::error!(%error, "the relay's acceptor failed");
        }
        self.shared.stats()
    }
}

/// Accepts until told to stop or until the [`Relay`] is dropped, and turns blackouts on and off.
async fn accept_all(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    let mut next_number = 0;
    let mut blackouts = Pauses::blackouts(&shared.plan, shared.seed, Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            blackout = next_turn(&mut blackouts) => {
                shared.weather.send_modify(|weather| weather.blackout = blackout);
                add(&shared.counters.blackouts, u64::from(blackout));
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if !shared.may_enter(connections.len()) => {
                    add(&shared.counters.refused, 1);
                    abort(&client);
                }
                Ok((client, peer)) => {
                    connections.spawn(take_in(&shared, client, peer, next_number));
                    next_number += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Enters a connection among the open ones; the future relays it.
fn take_in(
    shared: &Arc<Shared>,
    client: TcpStream,
    peer: SocketAddr,
    number: u64,
) -> impl Future<Output = ()> + Send + use<> {
    add(&shared.counters.connections, 1);
    let (cut, cut_receiver) = oneshot::channel();
    shared.open().insert(number, Open { peer, cut });
    let guard = OpenGuard {
        shared: Arc::clone(shared),
        number,
    };
    let weather = shared.weather.subscribe();
    let connection = Connection {
        number,
        client,
        weather,
        cut: cut_receiver,
    };
    async move {
        connection.run(Arc::clone(&guard.shared)).await;
    }
}

// === impl Weather ===

impl Weather {
    /// Whether no byte may leave.
    pub(crate) fn holds(self) -> bool {
        self.paused || self.blackout
    }
}

// === impl Shared ===

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_enter(&self, open: usize) -> bool {
        open < CONNECTIONS_MAX && !self.weather.borrow().blackout
    }

    fn stats(&self) -> RelayStats {
        RelayStats {
            open: self.open().len() as u64,
            ..self.counters.read()
        }
    }
}

// === impl OpenGuard ===

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.shared.open().remove(&self.number);
    }
}
