//! One relayed connection: a client, its upstream, two pumps and the clock of its faults.

use crate::bandwidth::Bandwidth;
use crate::schedule::{Direction, Lateness, Pauses, next_turn, reset_after};
use crate::stream::flight::Flight;
use crate::stream::pump::{HeldGauge, Pump, PumpEnd};
use crate::stream::relay::{Shared, Weather};
use crate::stream::stats::add;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// How long the upstream may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the healthy direction may go on once the other's receiver is gone: what that receiver
/// had sent before still arrives, as it would on a network, but nobody waits for ever.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// A connection that was accepted, before it has an upstream.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) client: TcpStream,
    pub(crate) weather: watch::Receiver<Weather>,
    /// Answered or dropped when the connection is to be cut.
    pub(crate) cut: oneshot::Receiver<()>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Both sides said their last byte and it was passed on.
    Closed,
    /// One side vanished; so does the other.
    Gone,
    /// The plan wanted a reset.
    Reset,
    /// The relay's user wanted a cut.
    Cut,
    /// There is no upstream.
    NoUpstream,
}

/// What may happen to a connection whatever its bytes do.
struct FaultClock {
    reset_at: Option<Instant>,
    stalls: Option<Pauses>,
    stalled: bool,
    weather: watch::Receiver<Weather>,
    held: watch::Sender<bool>,
}

// === impl Connection ===

impl Connection {
    /// Relays until either side, the plan or the user ends it.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        let number = self.number;
        let connected = tokio::select! {
            biased;
            _ = &mut self.cut => Err(Ending::Cut),
            connected = timeout(CONNECT_MAX, TcpStream::connect(shared.upstream)) => {
                connected.ok().and_then(Result::ok).ok_or(Ending::NoUpstream)
            }
        };
        let ending = match connected {
            Ok(upstream) => self.relay(upstream, &shared).await,
            Err(ending) => {
                abort(&self.client);
                ending
            }
        };
        match ending {
            Ending::Closed | Ending::Gone => {}
            Ending::Reset => add(&shared.counters.resets, 1),
            Ending::Cut => add(&shared.counters.cuts, 1),
            Ending::NoUpstream => add(&shared.counters.upstream_failures, 1),
        }
        tracing::debug!(number, ?ending, "connection ended");
    }

    async fn relay(self, mut upstream: TcpStream, shared: &Shared) -> Ending {
        let Connection {
            number,
            mut client,
            weather,
            cut,
        } = self;
        // What was written at once shall leave at once: lateness is the plan's business.
        let _ = client.set_nodelay(true);
        let _ = upstream.set_nodelay(true);

        let (mut clock, held) = FaultClock::new(number, weather, shared);
        let (client_read, client_write) = client.split();
        let (upstream_read, upstream_write) = upstream.split();
        let up = Pump {
            from: client_read,
            to: upstream_write,
            lateness: Lateness::new(&shared.plan, shared.seed, number, Direction::Up),
            bandwidth: Bandwidth::new(&shared.plan, Instant::now()),
            held: held.clone(),
            cut_after_bytes: shared.plan.cut_after_bytes(),
            passed_bytes: &shared.counters.bytes_up,
            gauge: HeldGauge::new(&shared.counters.held_bytes),
            flight: Flight::default(),
        };
        let down = Pump {
            from: upstream_read,
            to: client_write,
            lateness: Lateness::new(&shared.plan, shared.seed, number, Direction::Down),
            bandwidth: Bandwidth::new(&shared.plan, Instant::now()),
            held,
            cut_after_bytes: None,
            passed_bytes: &shared.counters.bytes_down,
            gauge: HeldGauge::new(&shared.counters.held_bytes),
            flight: Flight::default(),
        };
        let ending = tokio::select! {
            biased;
            _ = cut => Ending::Cut,
            ending = clock.run(shared) => ending,
            ending = pass_both_ways(up.run(), down.run()) => ending,
        };
        if ending != Ending::Closed {
            abort(&client);
            abort(&upstream);
        }
        ending
    }
}

/// Makes the coming drop of the socket a reset (RST) instead of an orderly end (FIN).
pub(crate) fn abort(stream: &TcpStream) {
    // Fails only on a socket that is already dead.
    let _ = stream.set_zero_linger();
}

/// Runs both directions; a half-close ends one of them only.
async fn pass_both_ways(
    up: impl Future<Output = PumpEnd>,
    down: impl Future<Output = PumpEnd>,
) -> Ending {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (first, is_up) = tokio::select! {
        end = &mut up => (end, true),
        end = &mut down => (end, false),
    };
    let other = async { if is_up { down.await } else { up.await } };
    let second = match first {
        PumpEnd::Fin => other.await,
        PumpEnd::Broken => timeout(FLUSH_MAX, other).await.unwrap_or(PumpEnd::Broken),
        PumpEnd::Abort | PumpEnd::CutReached => first,
    };
    match (first, second) {
        (PumpEnd::Fin, PumpEnd::Fin) => Ending::Closed,
        (_, PumpEnd::CutReached) => Ending::Reset,
        _ => Ending::Gone,
    }
}

// === impl FaultClock ===

impl FaultClock {
    fn new(
        number: u64,
        mut weather: watch::Receiver<Weather>,
        shared: &Shared,
    ) -> (Self, watch::Receiver<bool>) {
        let (plan, seed, now) = (&shared.plan, shared.seed, Instant::now());
        let (held, held_receiver) = watch::channel(weather.borrow_and_update().holds());
        let clock = FaultClock {
            reset_at: reset_after(plan, seed, number).map(|life| now + life),
            stalls: Pauses::stalls(plan, seed, number, now),
            stalled: false,
            weather,
            held,
        };
        (clock, held_receiver)
    }

    /// Holds and lets go the pumps as stalls and the weather want it, until a reset is due.
    async fn run(&mut self, shared: &Shared) -> Ending {
        loop {
            let reset_at = self.reset_at.unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(reset_at), if self.reset_at.is_some() => return Ending::Reset,
                stalled = next_turn(&mut self.stalls) => {
                    self.stalled = stalled;
                    add(&shared.counters.stalls, u64::from(stalled));
                }
                changed = self.weather.changed() => {
                    if changed.is_err() {
                        return Ending::Gone;
                    }
                }
            }
            let holds = self.stalled || self.weather.borrow_and_update().holds();
            self.held
                .send_if_modified(|held| std::mem::replace(held, holds) != holds);
        }
    }
}
