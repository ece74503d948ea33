//! Two sessions and the network between them.
//!
//! Packets are not sealed here: a checksum does what the seal does to corruption.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sluice_codec::datagram::{Channel, Config, Mode, Session, Side, Source};

use super::network::{Draw, Faults, Hop, Network};

/// Bytes of header and seal.
pub(super) const OVERHEAD: usize = 8 + 8;
pub(super) const SERVER: u32 = 1;

/// What one end has got.
#[derive(Default)]
pub(super) struct Inbox {
    /// Per channel: number of the message, when it came.
    pub(super) got: BTreeMap<Channel, Vec<(u32, u64)>>,
    pub(super) messages: usize,
    /// Refuses messages while set.
    pub(super) is_full: bool,
}

/// One end.
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) inbox: Inbox,
    pub(super) sent: BTreeMap<Channel, Vec<u64>>,
    pub(super) most_heap_bytes: usize,
}

/// The pair.
pub(super) struct Pair {
    pub(super) now_us: u64,
    pub(super) peers: [Peer; 2],
    pub(super) network: Network,
    pub(super) client_address: u32,
    /// Where the server sends, and where it sent before that is proven.
    pub(super) seen_address: u32,
    old_address: Option<u32>,
    pub(super) moves: u32,
    /// Sessions are packed whenever nothing is under way.
    pub(super) sleeps: bool,
    /// How often one was.
    pub(super) slept: u64,
    config: Arc<Config>,
    draw: Draw,
    steps: u64,
}

pub(super) const CLIENT_SIDE: usize = 0;
pub(super) const SERVER_SIDE: usize = 1;

impl Pair {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self::with_config(faults, seed, Config::default())
    }

    pub(super) fn with_config(faults: Faults, seed: u64, config: Config) -> Self {
        let config = Arc::new(config);
        let round_trip_us = Some(2 * faults.delay_us + faults.jitter_us);
        let peer = |side| Peer {
            session: Session::new(side, Arc::clone(&config), 0, round_trip_us),
            inbox: Inbox::default(),
            sent: BTreeMap::new(),
            most_heap_bytes: 0,
        };
        Self {
            now_us: 0,
            peers: [peer(Side::Client), peer(Side::Server)],
            network: Network::new(faults, seed),
            client_address: 100,
            seen_address: 100,
            old_address: None,
            moves: 0,
            sleeps: false,
            slept: 0,
            config,
            draw: Draw(seed ^ 0x5eed),
            steps: 0,
        }
    }

    /// Sends a message of `bytes` that can be checked when it comes.
    pub(super) fn send(&mut self, side: usize, channel: Channel, bytes: usize) -> bool {
        let peer = &mut self.peers[side];
        let sent = peer.sent.entry(channel).or_default();
        let payload = message(sent.len() as u32, channel, bytes);
        let is_taken = peer.session.send(self.now_us, channel, payload).is_ok();
        if is_taken {
            sent.push(self.now_us);
        }
        self.pump(side);
        is_taken
    }

    /// Lets time pass until `until_us`.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while self.step(until_us) {}
    }

    /// Sends this much in messages of 20,000 bytes as fast as the session takes them.
    /// Bytes a second until all has arrived.
    pub(super) fn deliver_bulk(&mut self, total_bytes: u32) -> f64 {
        const MESSAGE_BYTES: usize = 20_000;
        let mut sent = 0;
        while sent < total_bytes {
            while sent < total_bytes && self.send(CLIENT_SIDE, Channel::CONTROL, MESSAGE_BYTES) {
                sent += MESSAGE_BYTES as u32;
            }
            let until_us = self.now_us + 5_000;
            self.run_until(until_us);
        }
        let until_us = self.now_us + 600_000_000;
        assert!(self.run_until_delivered(until_us));
        f64::from(total_bytes) * 1e6 / self.now_us as f64
    }

    /// Lets time pass until all reliable messages came; false if it took longer.
    pub(super) fn run_until_delivered(&mut self, until_us: u64) -> bool {
        while !self.is_delivered() {
            if !self.step(until_us) {
                return false;
            }
        }
        true
    }

    pub(super) fn is_delivered(&self) -> bool {
        [(0, 1), (1, 0)].into_iter().all(|(from, to)| {
            let sent = &self.peers[from].sent;
            let reliable = sent
                .iter()
                .filter(|(channel, _)| channel.mode().is_reliable());
            let got = &self.peers[to].inbox.got;
            reliable
                .clone()
                .all(|(channel, sent)| got.get(channel).map_or(0, Vec::len) == sent.len())
        })
    }

    /// Whether what came is what was promised.
    pub(super) fn check(&self) {
        for (from, to) in [(0, 1), (1, 0)] {
            for (channel, got) in &self.peers[to].inbox.got {
                let sent = self.peers[from].sent[channel].len();
                let numbers = got.iter().map(|(number, _)| *number).collect::<Vec<_>>();
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), numbers.len(), "twice on {channel:?}");
                assert!(sorted.last().is_none_or(|last| (*last as usize) < sent));
                if matches!(
                    channel.mode(),
                    Mode::ReliableOrdered | Mode::UnreliableLatest
                ) {
                    assert_eq!(sorted, numbers, "order on {channel:?}");
                }
            }
        }
    }

    /// Microseconds from sending to delivery of all messages of a channel, sorted.
    pub(super) fn latencies(&self, from: usize, channel: Channel) -> Vec<u64> {
        let sent = &self.peers[from].sent[&channel];
        let got = &self.peers[1 - from].inbox.got[&channel];
        let mut spans = got
            .iter()
            .map(|(number, at_us)| at_us - sent[*number as usize])
            .collect::<Vec<_>>();
        spans.sort_unstable();
        spans
    }

    fn step(&mut self, until_us: u64) -> bool {
        self.steps += 1;
        assert!(self.steps < 3_000_000, "the pair spins at {}", self.now_us);
        let timeouts = self.peers.iter().filter_map(|peer| peer.session.timeout());
        let next = timeouts.chain(self.network.next_us()).min();
        let Some(next) = next.filter(|at_us| *at_us <= until_us) else {
            self.now_us = self.now_us.max(until_us);
            return false;
        };
        self.now_us = self.now_us.max(next);
        while let Some((hop, packet)) = self.network.take(self.now_us) {
            self.arrive(hop, &packet);
        }
        for side in [0, 1] {
            let session = &mut self.peers[side].session;
            if session.timeout().is_some_and(|at_us| at_us <= self.now_us) {
                session.on_timeout(self.now_us);
                self.pump(side);
                let session = &self.peers[side].session;
                let next = session.timeout();
                assert!(
                    next.is_none_or(|at_us| at_us > self.now_us),
                    "{} {next:?} {session:#?}",
                    self.now_us
                );
            }
        }
        true
    }

    fn arrive(&mut self, hop: Hop, packet: &[u8]) {
        let (side, from) = match hop.to {
            SERVER if hop.from == self.seen_address => (SERVER_SIDE, Source::Current),
            SERVER => {
                let token = self.draw.next();
                let is_same_host = hop.from / 100 == self.seen_address / 100;
                let source = Source::Elsewhere {
                    token,
                    is_same_host,
                };
                (SERVER_SIDE, source)
            }
            address if address == self.client_address => (CLIENT_SIDE, Source::Current),
            _ => return, // nobody is there any more
        };
        let Some((number, payload)) = open(packet) else {
            return;
        };
        let now_us = self.now_us;
        let Peer { session, inbox, .. } = &mut self.peers[side];
        let received = session.receive(
            now_us,
            number,
            payload,
            packet.len(),
            from,
            &mut |channel, payload| inbox.take(now_us, channel, payload),
        );
        let received = received.expect("a peer of this crate breaks no rules");
        if received.has_moved {
            self.moves += 1;
            let old = std::mem::replace(&mut self.seen_address, hop.from);
            self.old_address.get_or_insert(old);
        }
        if received.is_path_proven {
            self.old_address = None;
        }
        self.pump(side);
    }

    pub(super) fn pump(&mut self, side: usize) {
        let mut payload = Vec::new();
        loop {
            let peer = &mut self.peers[side];
            peer.most_heap_bytes = peer.most_heap_bytes.max(peer.session.heap_bytes());
            payload.clear();
            let Some(transmit) = peer.session.transmit(self.now_us, OVERHEAD, &mut payload) else {
                break;
            };
            assert!(!payload.is_empty());
            let hop = match side {
                CLIENT_SIDE => Hop {
                    from: self.client_address,
                    to: SERVER,
                },
                _ => Hop {
                    from: SERVER,
                    to: self.seen_address,
                },
            };
            let packet = seal(transmit.number, &payload);
            assert!(packet.len() <= usize::from(peer.session.datagram_bytes()).max(1452));
            self.network.send(self.now_us, side, hop, &packet);
        }
        if side == SERVER_SIDE && self.peers[side].session.take_path_failure() {
            if let Some(old) = self.old_address.take() {
                self.seen_address = old;
                self.peers[side].session.return_to_old_path(self.now_us);
            }
            self.pump(side);
        }
        let mut packed = Vec::new();
        let session = &mut self.peers[side].session;
        if self.sleeps && session.pack(&mut packed) {
            let mut input = packed.as_slice();
            *session = Session::unpack(&mut input, Arc::clone(&self.config)).unwrap();
            assert!(input.is_empty());
            self.slept += 1;
        }
    }
}

impl Inbox {
    pub(super) fn take(&mut self, now_us: u64, channel: Channel, payload: &[u8]) -> bool {
        if self.is_full {
            return false;
        }
        let number = u32::from_be_bytes(*payload.first_chunk().unwrap());
        assert!(
            payload == message(number, channel, payload.len()),
            "a message was changed"
        );
        self.got.entry(channel).or_default().push((number, now_us));
        self.messages += 1;
        true
    }
}

/// A message that tells what it is.
pub(super) fn message(number: u32, channel: Channel, bytes: usize) -> Bytes {
    let mut payload = number.to_be_bytes().to_vec();
    payload.push(channel.0);
    while payload.len() < bytes {
        payload.push((number as usize + payload.len()) as u8);
    }
    payload.into()
}

fn seal(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend_from_slice(payload);
    packet.extend_from_slice(&checksum(&packet).to_be_bytes());
    packet
}

fn open(packet: &[u8]) -> Option<(u64, &[u8])> {
    let (rest, sum) = packet.split_last_chunk()?;
    let (number, payload) = rest.split_first_chunk()?;
    (checksum(rest) == u64::from_be_bytes(*sum)).then_some((u64::from_be_bytes(*number), payload))
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
