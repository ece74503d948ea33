//! The datagram relay as its user holds it: a socket, the flows behind it, the weather over all.

use crate::RelayError;
use crate::datagram::flow::{DATAGRAM_MAX_BYTES, Flow, Order};
use crate::datagram::stats::{Counters, DatagramStats, add};
use crate::plan::{Carries, FaultPlan};
use crate::schedule::{Pauses, next_turn};
use socket2::SockRef;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

/// Beyond this many flows a newcomer's datagrams are dropped. A flow takes a file descriptor, and
/// two once it was rebound.
const FLOWS_MAX: usize = 8192;
/// Beyond this many datagrams that a flow has not looked at, one more is dropped.
const ORDERS_MAX: usize = 256;
/// How large a burst of all clients the system may keep, where it allows that.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How long to leave the socket alone after it failed.
const RECEIVE_RETRY: Duration = Duration::from_millis(20);

/// A running relay of datagrams. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct DatagramRelay {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    stop: oneshot::Sender<()>,
    receiver: JoinHandle<()>,
}

/// What the relay's tasks have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) upstream: SocketAddr,
    pub(crate) plan: FaultPlan,
    pub(crate) seed: u64,
    pub(crate) counters: Counters,
    /// What clients talk to.
    pub(crate) socket: UdpSocket,
    blocked: AtomicBool,
    blackout: AtomicBool,
    flows: Mutex<HashMap<SocketAddr, Open>>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    orders: mpsc::Sender<Order>,
}

// === impl DatagramRelay ===

impl DatagramRelay {
    /// Listens on `listen` (port 0 allowed) and relays each client's datagrams to `upstream`, each
    /// client from a socket of its own, as a NAT does.
    ///
    /// Flows are numbered from 0 in the order of their first datagrams; the number and `seed`
    /// alone decide what becomes of the flow's n-th datagram each way, and when it is rebound.
    ///
    /// Must be called in a tokio runtime. Fails on a plan with faults of streams and on an address
    /// that can't be listened on.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        plan: FaultPlan,
        seed: u64,
    ) -> Result<Self, RelayError> {
        RelayError::check(&plan, Carries::Datagrams)?;
        let failed = |source| RelayError::Listen {
            address: listen,
            source,
        };
        let socket = UdpSocket::bind(listen).await.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        // What the system allows of it is enough.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        let shared = Arc::new(Shared {
            upstream,
            plan,
            seed,
            counters: Counters::default(),
            socket,
            blocked: AtomicBool::new(false),
            blackout: AtomicBool::new(false),
            flows: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let receiver = tokio::spawn(receive_all(Arc::clone(&shared), stopped));
        Ok(DatagramRelay {
            shared,
            local_addr,
            stop,
            receiver,
        })
    }

    /// Where clients send to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What has happened so far.
    pub fn stats(&self) -> DatagramStats {
        DatagramStats {
            open: self.shared.flows().len() as u64,
            ..self.shared.counters.read()
        }
    }

    /// The client's address of every open flow, in the order of their numbers.
    pub fn clients(&self) -> Vec<SocketAddr> {
        let flows = self.shared.flows();
        let mut clients: Vec<_> = flows
            .iter()
            .map(|(client, open)| (open.number, *client))
            .collect();
        clients.sort_unstable();
        clients.into_iter().map(|(_, client)| client).collect()
    }

    /// Lets the client with this address come from another one towards the upstream, soon after
    /// the call. Tells whether there is such a client.
    pub fn rebind(&self, client: SocketAddr) -> bool {
        let flows = self.shared.flows();
        let open = flows.get(&client);
        open.is_some_and(|open| open.orders.try_send(Order::Rebind).is_ok())
    }

    /// Rebinds all present clients as [`rebind`](Self::rebind) does; tells how many.
    pub fn rebind_all(&self) -> usize {
        let flows = self.shared.flows();
        let orders = flows.values().map(|open| &open.orders);
        orders
            .filter(|orders| orders.try_send(Order::Rebind).is_ok())
            .count()
    }

    /// Drops every datagram from now on, as a network does that lets no UDP through.
    pub fn block(&self) {
        self.shared.blocked.store(true, Relaxed);
    }

    /// Ends a [`block`](Self::block). A blackout of the plan goes on.
    pub fn unblock(&self) {
        self.shared.blocked.store(false, Relaxed);
    }

    /// Stops listening, forgets all flows, and returns the final counts once that is done.
    pub async fn shutdown(self) -> DatagramStats {
        let _ = self.stop.send(());
        if let Err(error) = self.receiver.await {
            tracing::error!(%error, "the relay's receiver failed");
        }
        self.shared.counters.read()
    }
}

/// Receives until told to stop or until the [`DatagramRelay`] is dropped, and turns blackouts on
/// and off.
async fn receive_all(shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut flows = JoinSet::new();
    let mut next_number = 0;
    let mut blackouts = Pauses::blackouts(&shared.plan, shared.seed, Instant::now());
    let mut scratch = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            blackout = next_turn(&mut blackouts) => {
                shared.blackout.store(blackout, Relaxed);
                add(&shared.counters.blackouts, u64::from(blackout));
            }
            Some(ended) = flows.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a flow's task failed");
                }
            }
            received = shared.socket.recv_from(&mut scratch) => match received {
                Ok((bytes, client)) => {
                    let order = Order::Carry(scratch[..bytes].to_vec());
                    if let Some(flow) = shared.hand_over(client, order, next_number) {
                        flows.spawn(flow.run());
                        next_number += 1;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot receive");
                    sleep(RECEIVE_RETRY).await;
                }
            },
        }
    }
    shared.flows().clear();
    flows.shutdown().await;
}

// === impl Shared ===

impl Shared {
    /// Whether no datagram passes.
    pub(crate) fn is_dark(&self) -> bool {
        self.blocked.load(Relaxed) || self.blackout.load(Relaxed)
    }

    /// Takes a flow out of the table, unless something just came for it; tells whether it did.
    pub(crate) fn strike_off(&self, client: SocketAddr, orders: &mpsc::Receiver<Order>) -> bool {
        let mut flows = self.flows();
        let struck = orders.is_empty();
        if struck {
            flows.remove(&client);
        }
        struck
    }

    /// Gives a client's datagram to its flow; a newcomer's flow is returned, to be run.
    fn hand_over(self: &Arc<Self>, client: SocketAddr, order: Order, number: u64) -> Option<Flow> {
        let mut flows = self.flows();
        if let Some(open) = flows.get(&client) {
            if open.orders.try_send(order).is_err() {
                add(&self.counters.overflowed, 1);
            }
            return None;
        }
        if flows.len() >= FLOWS_MAX {
            add(&self.counters.refused, 1);
            return None;
        }
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        match Flow::open(number, client, Arc::clone(self), receiver) {
            Ok(flow) => {
                add(&self.counters.flows, 1);
                // An empty channel has room for one.
                let _ = orders.try_send(order);
                flows.insert(client, Open { number, orders });
                Some(flow)
            }
            Err(error) => {
                add(&self.counters.refused, 1);
                tracing::warn!(%error, "cannot open a flow");
                None
            }
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<SocketAddr, Open>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
