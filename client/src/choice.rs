//! Which transports a client tries, in which order, and when it goes back to UDP.
//!
//! UDP goes first, since a session over it survives a change of the network, and
//! one lost packet holds up nothing else. Where it doesn't work, the streams go
//! first, and UDP is tried again after a while, longer with each failure. All
//! that is learnt here is of one network: it is forgotten when that changes.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{Endpoint, Transport, race::Candidate, ticket::Ticket};

/// UDP's head start, if it needn't be longer: its handshake takes two round trips,
/// that of TCP one.
const HEAD_START_MIN: Duration = Duration::from_millis(250);
/// And if it needs to be.
const HEAD_START_MAX: Duration = Duration::from_secs(1);
/// Between two streams.
const STREAM_HEAD_START: Duration = Duration::from_secs(1);
/// The longest wait before UDP is tried again; half of it is random.
const RETURN_MAX_MS: u64 = 30 * 60_000;
/// When it works, but there is no good moment to go over.
const POSTPONE_MS: u64 = 15_000;
/// Over UDP for this long: it works here.
const GOOD_MS: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Choice {
    asked: Transport,
    /// UDP is tried again after this span, doubling with each failure.
    retry_ms: u64,
    /// That was there first.
    stream: Transport,
    /// Tries in a row in which UDP didn't work, or not for long.
    udp_failures: u32,
    udp_since_ms: Option<u64>,
    /// While the connection is a stream: when to try UDP again.
    return_at_ms: Option<u64>,
    round_trip: Option<Duration>,
    rng: SmallRng,
}

// === impl Choice ===

impl Choice {
    pub(crate) fn new(asked: Transport, retry_ms: u64, seed: [u8; 32]) -> Self {
        Self {
            asked,
            retry_ms,
            stream: Transport::Tcp,
            udp_failures: 0,
            udp_since_ms: None,
            return_at_ms: None,
            round_trip: None,
            rng: SmallRng::from_seed(seed),
        }
    }

    /// The transport that the application wants.
    pub(crate) fn ask(&mut self, transport: Transport) {
        self.asked = transport;
        self.return_at_ms = None;
    }

    /// Whether a connection by this transport is what the application wants.
    pub(crate) fn allows(&self, transport: Transport) -> bool {
        self.asked == Transport::Auto || self.asked == transport
    }

    /// What to try, the first first. A ticket is used once, so it is taken.
    pub(crate) fn candidates(
        &self,
        endpoint: &Endpoint,
        ticket: &mut Option<Ticket>,
    ) -> Vec<Candidate> {
        let streams = self.streams(endpoint);
        let order = match self.asked {
            Transport::Auto if self.udp_failures == 0 => {
                [Transport::Udp, streams[0], streams[1]].to_vec()
            }
            Transport::Auto => [streams[0], streams[1], Transport::Udp].to_vec(),
            one => vec![one],
        };
        let mut candidates = self.along(endpoint, &order);
        if let Some(first) = candidates.first_mut() {
            first.route.use_ticket(ticket);
        }
        candidates
    }

    /// What to try beside a session over UDP that has gone silent.
    pub(crate) fn ways_out(&self, endpoint: &Endpoint) -> Vec<Candidate> {
        match self.asked {
            Transport::Auto => self.along(endpoint, &self.streams(endpoint)),
            _ => Vec::new(),
        }
    }

    /// What to try beside a stream, once when it is time to see whether UDP works.
    pub(crate) fn ways_back(
        &mut self,
        now_ms: u64,
        endpoint: &Endpoint,
        ticket: &mut Option<Ticket>,
    ) -> Vec<Candidate> {
        if self.return_at_ms.take_if(|at| *at <= now_ms).is_none() {
            return Vec::new();
        }
        let mut candidates = self.along(endpoint, &[Transport::Udp]);
        if let Some(first) = candidates.first_mut() {
            first.route.use_ticket(ticket);
        }
        candidates
    }

    fn streams(&self, endpoint: &Endpoint) -> [Transport; 2] {
        let tcp = endpoint.tcp_kind();
        match self.stream {
            Transport::WebSocket => [Transport::WebSocket, tcp],
            _ => [tcp, Transport::WebSocket],
        }
    }

    fn along(&self, endpoint: &Endpoint, order: &[Transport]) -> Vec<Candidate> {
        let candidate = |transport: &Transport| {
            Some(Candidate {
                transport: *transport,
                route: endpoint.route(*transport)?,
                head_start: match transport {
                    Transport::Udp => self.head_start(),
                    _ => STREAM_HEAD_START,
                },
            })
        };
        order.iter().filter_map(candidate).collect()
    }

    fn head_start(&self) -> Duration {
        let measured = self.round_trip.unwrap_or_default() * 3;
        measured.clamp(HEAD_START_MIN, HEAD_START_MAX)
    }

    /// A connection is there. `udp_lost`: UDP was tried, and was not there first.
    pub(crate) fn connected(&mut self, now_ms: u64, by: Transport, udp_lost: bool) {
        self.return_at_ms = None;
        if by == Transport::Udp {
            self.udp_since_ms = Some(now_ms);
            return;
        }
        self.udp_since_ms = None;
        self.stream = by;
        if udp_lost {
            self.udp_failures = self.udp_failures.saturating_add(1);
        }
        if self.asked == Transport::Auto {
            let doublings = self.udp_failures.saturating_sub(1).min(16);
            let span = self.retry_ms.saturating_mul(1 << doublings);
            let span = span.min(RETURN_MAX_MS);
            self.return_at_ms = Some(now_ms + self.rng.random_range(span / 2..=span));
        }
    }

    /// The connection is gone; `is_silent`: the server owed an answer.
    pub(crate) fn lost(&mut self, now_ms: u64, is_silent: bool) {
        self.return_at_ms = None;
        let Some(since_ms) = self.udp_since_ms.take() else {
            return;
        };
        if now_ms.saturating_sub(since_ms) >= GOOD_MS {
            self.udp_failures = 0;
        }
        if is_silent {
            self.udp_failures = self.udp_failures.saturating_add(1);
        }
    }

    /// UDP doesn't work yet, beside a stream that does.
    pub(crate) fn udp_failed(&mut self, now_ms: u64) {
        let by = self.stream;
        self.connected(now_ms, by, true);
    }

    /// UDP works, but the session was busy.
    pub(crate) fn postpone(&mut self, now_ms: u64) {
        let span = POSTPONE_MS;
        self.return_at_ms = Some(now_ms + self.rng.random_range(span / 2..=span));
    }

    /// What was learnt is of another network.
    pub(crate) fn network_changed(&mut self) {
        self.udp_failures = 0;
        self.stream = Transport::Tcp;
        self.round_trip = None;
    }

    /// A round trip over UDP.
    pub(crate) fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// When [`Choice::ways_back`] has something.
    pub(crate) fn return_at_ms(&self) -> Option<u64> {
        self.return_at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_codec::datagram::ServerKey;

    fn endpoint() -> Endpoint {
        Endpoint {
            tcp: Some(([127, 0, 0, 1], 1).into()),
            ws: Some("ws://127.0.0.1:2/".to_owned()),
            udp: Some(([127, 0, 0, 1], 3).into()),
            pins: Some(ServerKey::from_secret([7; 32]).pin().into()),
        }
    }

    fn order(choice: &Choice, endpoint: &Endpoint) -> Vec<Transport> {
        let candidates = choice.candidates(endpoint, &mut None);
        candidates.iter().map(|it| it.transport).collect()
    }

    const ALL: [Transport; 3] = [Transport::Udp, Transport::SealedTcp, Transport::WebSocket];

    #[test]
    fn udp_goes_first_until_it_fails() {
        let mut choice = Choice::new(Transport::Auto, 60_000, [1; 32]);
        assert_eq!(order(&choice, &endpoint()), ALL);
        choice.connected(0, Transport::WebSocket, true);
        let streams_first = [Transport::WebSocket, Transport::SealedTcp, Transport::Udp];
        assert_eq!(order(&choice, &endpoint()), streams_first);
        choice.network_changed();
        assert_eq!(order(&choice, &endpoint()), ALL);
        assert_eq!(
            order(&choice, &Endpoint::ws("ws://a/")),
            [Transport::WebSocket]
        );
        choice.ask(Transport::Tcp);
        assert_eq!(order(&choice, &endpoint()), [Transport::Tcp]);
    }

    #[test]
    fn tcp_is_plain_only_where_no_key_is_known() {
        let choice = Choice::new(Transport::Auto, 60_000, [1; 32]);
        let unpinned = Endpoint {
            pins: None,
            ..endpoint()
        };
        assert_eq!(
            order(&choice, &unpinned),
            [Transport::Tcp, Transport::WebSocket]
        );
        let tcp = unpinned.tcp.unwrap();
        let pinned = Endpoint::sealed_tcp(tcp, endpoint().pins.unwrap());
        assert_eq!(order(&choice, &pinned), [Transport::SealedTcp]);
        assert!(unpinned.route(Transport::SealedTcp).is_none());
    }

    #[test]
    fn udp_is_tried_again_ever_more_slowly() {
        let mut choice = Choice::new(Transport::Auto, 60_000, [2; 32]);
        let mut now_ms = 0;
        let mut waits = Vec::new();
        choice.connected(now_ms, Transport::Tcp, true);
        for _ in 0..8 {
            let at_ms = choice.return_at_ms().unwrap();
            let tried = choice.ways_back(at_ms - 1, &endpoint(), &mut None);
            assert!(tried.is_empty());
            assert_eq!(choice.ways_back(at_ms, &endpoint(), &mut None).len(), 1);
            waits.push(at_ms - now_ms);
            now_ms = at_ms;
            choice.udp_failed(now_ms);
        }
        assert!((30_000..=60_000).contains(&waits[0]), "{waits:?}");
        assert!(waits[7] >= RETURN_MAX_MS / 2 && waits[7] <= RETURN_MAX_MS);
    }

    #[test]
    fn udp_that_stands_for_long_is_trusted_again() {
        let mut choice = Choice::new(Transport::Auto, 60_000, [3; 32]);
        choice.connected(0, Transport::Tcp, true);
        choice.connected(50_000, Transport::Udp, false);
        assert_eq!(choice.return_at_ms(), None);
        choice.lost(50_000 + GOOD_MS - 1, false);
        assert_eq!(order(&choice, &endpoint())[0], Transport::SealedTcp);
        choice.connected(200_000, Transport::Udp, false);
        choice.lost(200_000 + GOOD_MS, false);
        assert_eq!(order(&choice, &endpoint()), ALL);
        choice.connected(300_000, Transport::Udp, false);
        choice.lost(300_000 + GOOD_MS, true);
        assert_eq!(order(&choice, &endpoint())[0], Transport::SealedTcp);
    }

    #[test]
    fn the_head_start_follows_the_round_trip() {
        let mut choice = Choice::new(Transport::Auto, 60_000, [4; 32]);
        let first = |choice: &Choice| choice.candidates(&endpoint(), &mut None)[0].head_start;
        assert_eq!(first(&choice), HEAD_START_MIN);
        choice.measured(Duration::from_millis(200));
        assert_eq!(first(&choice), Duration::from_millis(600));
        choice.measured(Duration::from_secs(5));
        assert_eq!(first(&choice), HEAD_START_MAX);
    }
}
