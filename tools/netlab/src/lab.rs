//! Two hosts and the wire between them.

use crate::namespace::{Namespace, run_ip};
use crate::tun::Tun;
use crate::wire::{Wire, WireCounts};
use sluice_relay::{Carries, FaultPlan};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use tokio::process::Command;

/// Two hosts, each a network namespace, and a bad wire between them. Dropping it ends it too,
/// without waiting.
#[derive(Debug)]
pub struct Lab {
    client: Namespace,
    server: Namespace,
    wire: Wire,
}

/// Which of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one whose packets go up.
    Client,
    /// The one whose packets go down.
    Server,
}

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// This machine or this user can't make one.
    #[error("cannot make a network lab here: {what}: {said}")]
    Unavailable {
        /// The step that failed.
        what: String,
        /// What the system said.
        said: String,
    },
    /// The plan holds a fault that can't happen to packets on a wire.
    #[error("fault `{key}` is not for packets on a wire; leave it out")]
    ForeignFault {
        /// The key.
        key: &'static str,
    },
}

// === impl Side ===

impl Side {
    /// The host's address (of TEST-NET-1, which exists nowhere else).
    pub fn address(self) -> IpAddr {
        match self {
            Side::Client => Ipv4Addr::new(192, 0, 2, 1).into(),
            Side::Server => Ipv4Addr::new(192, 0, 2, 2).into(),
        }
    }
}

// === impl Lab ===

impl Lab {
    /// Makes two hosts and a wire with these faults between them. The seed decides what becomes of
    /// the n-th packet each way.
    ///
    /// Must be called in a tokio runtime.
    pub async fn start(plan: &FaultPlan, seed: u64) -> Result<Self, LabError> {
        if let Some(key) = plan.foreign_to(Carries::Packets) {
            return Err(LabError::ForeignFault { key });
        }
        let (client, client_tun) = host(Side::Client).await?;
        let (server, server_tun) = host(Side::Server).await?;
        let wire = Wire::connect(client_tun, server_tun, plan, seed);
        let wire = wire.map_err(|error| LabError::unavailable("a thread", &error))?;
        Ok(Lab {
            client,
            server,
            wire,
        })
    }

    /// A program to be run on one of the hosts; it ends with the lab at the latest.
    pub fn command(&self, side: Side, program: &str) -> Command {
        match side {
            Side::Client => self.client.command(program),
            Side::Server => self.server.command(program),
        }
    }

    /// What has gone onto the wire so far.
    pub fn counts(&self) -> WireCounts {
        self.wire.counts()
    }

    /// Cuts the wire and takes the hosts down, with all that runs on them.
    pub async fn shutdown(self) {
        drop(self.wire);
        self.client.close().await;
        self.server.close().await;
    }
}

/// A namespace with a TUN device in it. The device is made here and moved there, so that this
/// process never has to enter.
async fn host(side: Side) -> Result<(Namespace, Tun), LabError> {
    let namespace = Namespace::new().await?;
    let tun = Tun::create().map_err(|error| LabError::unavailable("/dev/net/tun", &error))?;
    let (name, address) = (tun.name(), side.address());
    let moved = format!("link set dev {name} netns {}", namespace.pid());
    run_ip(Command::new("ip"), &moved).await?;
    // Without a link-local address the host has nothing to say on its own.
    for arguments in [
        format!("link set dev {name} addrgenmode none"),
        format!("addr add {address}/30 dev {name}"),
        format!("link set dev {name} up"),
    ] {
        namespace.ip(&arguments).await?;
    }
    Ok((namespace, tun))
}

// === impl LabError ===

impl LabError {
    pub(crate) fn unavailable(what: &str, said: &dyn Display) -> Self {
        LabError::Unavailable {
            what: what.to_owned(),
            said: said.to_string(),
        }
    }
}
