//! Parts of the inside on a bench of their own, for `benches/` (the feature `bench`):
//! one channel before the pipeline, and lanes, without sockets and loops.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use sluice_bus::Bus;
use sluice_codec::{Framing, decode_packet};
use sluice_protocol::{DeviceId, Incarnation, Partition, UserId};
use sluice_trace::Tracer;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    bus_health::BusHealth,
    channel::{Channel, Identity, Phase},
    clock::Clock,
    config::Config,
    context::ChannelContext,
    datagram::Outgoing,
    lane::{LaneTasks, Lanes},
    pipeline::{Flow, Pipeline},
    registration::Unbinder,
    shared::{Shared, SharedParts},
    slab::ChannelKey,
    token::TokenVerifier,
    workbench::Workbench,
};

/// A verifier wants a key; nobody logs in here.
const TEST_KEY: &str = include_str!("../tests/keys/public.pem");

/// A logged-in channel of one loop, the shipped pipeline, and lanes with their writers;
/// no limit refuses anything but a full lane.
pub struct Bed {
    channel: Channel,
    bench: Workbench,
    pipeline: Pipeline,
    /// They end with it.
    _tasks: JoinSet<()>,
    _stop: DropGuard,
}

// === impl Bed ===

impl Bed {
    /// On this bus, with so many partitions; within a tokio runtime, which the writers of
    /// the lanes run on. `None` for a user id that can't be.
    pub fn new(user: &str, bus: &Arc<dyn Bus>, partitions: u16) -> Option<Self> {
        let mut config = Config::default();
        config.limits.packets_per_s = 0;
        config.limits.unanswered_max = 0;
        let clock = Clock::start();
        let (stop, tracer, mut tasks) = (CancellationToken::new(), Tracer::new(), JoinSet::new());
        let spawn = LaneTasks {
            config: &config.lanes,
            clock,
            health: &Arc::new(BusHealth::new(clock, config.timeouts.bus_ms)),
            tracer: &tracer,
            shutdown: &stop,
            tasks: &mut tasks,
        };
        let lanes = Lanes::open(bus, partitions, &config.requests, spawn);
        let shared = Shared::new(SharedParts {
            clock,
            incarnation: Incarnation(1),
            lanes,
            verifier: TokenVerifier::from_pem([TEST_KEY]).ok()?,
            unbinder: Unbinder::new(1).0,
            pipeline: Pipeline::standard([]),
            stream_keys: None,
            tracer,
            config,
        });
        let bench = Workbench::new(Arc::new(shared), 0, Outgoing::default(), 1);
        let key = ChannelKey {
            slot: 0,
            generation: 0,
        };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut channel = Channel::new(key, peer, Framing::Tcp, bench.now.mono_ms);
        let (user, device) = (UserId::parse(user).ok()?, DeviceId::parse("phone").ok()?);
        let identity = Identity::new(user, device, 1, 1, Some(1), u64::MAX);
        channel.identity = Some(Box::new(identity));
        channel.phase = Phase::Open;
        Some(Self {
            channel,
            pipeline: bench.shared.pipeline.clone(),
            bench,
            _tasks: tasks,
            _stop: stop.drop_guard(),
        })
    }

    /// An encoded packet as it comes from the client: decoded, through all handlers, into
    /// its lane if it takes one. False if it would close the channel.
    pub fn inbound(&mut self, payload: &[u8]) -> bool {
        let Ok(packet) = decode_packet(payload) else {
            return false;
        };
        let mut context = ChannelContext {
            channel: &mut self.channel,
            bench: &mut self.bench,
            raw: payload,
        };
        !matches!(self.pipeline.inbound(&mut context, packet), Flow::Close(_))
    }

    /// Forgets what the channel would write, as the end of a turn does; says how many
    /// bytes that was.
    pub fn end_turn(&mut self) -> usize {
        let bytes = self.channel.output_bytes();
        if let Some(output) = self.channel.output.take() {
            self.bench.pool.give(output);
        }
        self.channel.flags.on_dirty_list = false;
        self.bench.dirty.clear();
        bytes
    }

    /// Into the lane of a partition of the conversation space. False when it is full.
    pub fn offer(&self, partition: Partition, entry: Bytes) -> bool {
        let lane = self.bench.shared.lanes.message(partition);
        lane.offer(entry, self.bench.now.mono_ms).is_ok()
    }

    /// Entries in all lanes that the bus has not taken yet.
    pub fn pending(&self) -> usize {
        self.bench.shared.lanes.entries()
    }
}

impl std::fmt::Debug for Bed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bed({} pending)", self.pending())
    }
}
