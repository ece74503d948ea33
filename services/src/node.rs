//! What all tasks of one service process share.

use std::sync::{Arc, atomic::AtomicUsize};

use sluice_bus::{Bus, Directory, NodeName};
use sluice_protocol::{Incarnation, WorkerId};
use sluice_store::Store;
use sluice_trace::Tracer;

use crate::{
    Config, Snowflake, downlink::Downlink, recent::RecentLogs, seats::Seats, standing::Standings,
};

/// Ports, settings and shared state; held in an `Arc` by every task.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    /// The same, for the owners of partitions: see [`Store::for_owners`].
    pub(crate) owners_store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) downlink: Downlink,
    pub(crate) snowflake: Snowflake,
    pub(crate) standings: Standings,
    pub(crate) recent: RecentLogs,
    /// Conversation lists under way, whichever way they were asked for: a page of
    /// one costs as much as its user has conversations.
    pub(crate) lists: Arc<Seats>,
    pub(crate) tracer: Tracer,
    /// Partitions of the conversation space.
    pub(crate) partitions: u16,
    pub(crate) worker: WorkerId,
    /// This process's life; names its own `down` stream.
    pub(crate) incarnation: Incarnation,
    /// Partitions that are this node's to own.
    pub(crate) share: AtomicUsize,
}

impl Node {
    /// This process as a consumer, in one of its roles.
    pub(crate) fn name(&self, role: &str) -> NodeName {
        NodeName(format!("{role}-{}", self.worker))
    }
}
