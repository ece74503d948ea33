//! One plan before a whole system: a relay for each address of it, of the kind that fits.

use crate::plan::{Carries, FaultPlan};
use crate::{DatagramRelay, Relay, RelayError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Relays of both kinds under one plan and seed; each acts on the part of the plan for its kind.
#[derive(Debug)]
pub struct Relays {
    plan: FaultPlan,
    seed: u64,
    streams: Vec<Relay>,
    datagrams: Vec<DatagramRelay>,
}

// === impl Relays ===

impl Relays {
    /// No relay yet.
    pub fn new(plan: FaultPlan, seed: u64) -> Self {
        Relays {
            plan,
            seed,
            streams: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    /// Starts a relay for streams on a free port of this machine; returns where clients connect.
    pub async fn before_streams(&mut self, upstream: SocketAddr) -> Result<SocketAddr, RelayError> {
        let plan = self.plan.part_for(Carries::Streams);
        let relay = Relay::start(ANY_PORT, upstream, plan, self.seed).await?;
        let address = relay.local_addr();
        self.streams.push(relay);
        Ok(address)
    }

    /// Starts a relay for datagrams on a free port of this machine; returns where clients send to.
    pub async fn before_datagrams(
        &mut self,
        upstream: SocketAddr,
    ) -> Result<SocketAddr, RelayError> {
        let plan = self.plan.part_for(Carries::Datagrams);
        let relay = DatagramRelay::start(ANY_PORT, upstream, plan, self.seed).await?;
        let address = relay.local_addr();
        self.datagrams.push(relay);
        Ok(address)
    }

    /// The relays for streams, in the order in which they were started.
    pub fn streams(&self) -> &[Relay] {
        &self.streams
    }

    /// The relays for datagrams, in the order in which they were started.
    pub fn datagrams(&self) -> &[DatagramRelay] {
        &self.datagrams
    }

    /// Ends all of them.
    pub async fn shutdown(self) {
        for relay in self.streams {
            relay.shutdown().await;
        }
        for relay in self.datagrams {
            relay.shutdown().await;
        }
    }
}
