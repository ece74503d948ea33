//! Which partitions this node owns. Nodes announce themselves in the directory;
//! from the list of those that live, each works out the same fair shares. Who
//! no longer has a partition lets go of it after its batch, and who has it now
//! waits for the lease.
//!
//! Two nodes may see different lists for a moment. Then a partition waits for
//! one announcement more, or two nodes want it: the lease gives it to one of
//! them, and the epoch fences the other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sluice_protocol::Partition;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::owner;
use crate::node::Node;

/// Under this name owners announce themselves.
const WORK: &str = "message";
/// Announcements within one `owner_ttl_ms`.
const ANNOUNCEMENTS_PER_TTL: u32 = 5;

/// One partition as this node sees it.
#[derive(Debug, Default)]
struct Slot {
    /// The owner task that runs, or winds up.
    owner: Option<(CancellationToken, JoinHandle<()>)>,
}

/// Owns this node's share of the partitions until shutdown.
pub(crate) async fn own_share(node: Arc<Node>, shutdown: CancellationToken) {
    let ttl = Duration::from_millis(node.config.owner_ttl_ms);
    let mut slots: Vec<Slot> = (0..node.partitions).map(|_| Slot::default()).collect();
    let mut ticks = tokio::time::interval(ttl / ANNOUNCEMENTS_PER_TTL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let me = u64::from(node.worker.0);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let announced = node.directory.announce(WORK, me, ttl);
        match shutdown.run_until_cancelled(announced).await {
            Some(Ok(mut nodes)) => {
                // A clock may have called even this node lapsed.
                if let Err(place) = nodes.binary_search(&me) {
                    nodes.insert(place, me);
                }
                take_and_leave(&node, &mut slots, &nodes, &shutdown);
            }
            // Shares stay as they are. Whoever can't reach the directory loses
            // its leases soon enough.
            Some(Err(error)) => tracing::warn!(%error, "owners can't be announced"),
            None => break,
        }
    }
    for slot in slots {
        if let Some((_, running)) = slot.owner {
            // A panic in there has been reported.
            let _ = running.await;
        }
    }
    // After the leases, so that those who take over find them free.
    if let Err(error) = node.directory.announce(WORK, me, Duration::ZERO).await {
        tracing::debug!(%error, "the other owners will find out by themselves");
    }
}

/// Starts and stops owners as the list of nodes says.
fn take_and_leave(
    node: &Arc<Node>,
    slots: &mut [Slot],
    nodes: &[u64],
    shutdown: &CancellationToken,
) {
    let me = u64::from(node.worker.0);
    let owners = shares(node.partitions, nodes);
    let mine = owners.iter().filter(|owner| **owner == me).count();
    metrics::gauge!("sluice_partitions_shared").set(mine as f64);
    node.share.store(mine, Ordering::Relaxed);
    for ((slot, owner), partition) in slots.iter_mut().zip(owners).zip(0..) {
        match (owner == me, slot.is_running()) {
            (true, false) => slot.start(node, Partition(partition), shutdown.child_token()),
            (false, true) => slot.stop(),
            _ => {}
        }
    }
}

// === impl Slot ===

impl Slot {
    fn is_running(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|(stop, _)| !stop.is_cancelled())
    }

    /// One after the other: two owners of one name would take each other's lease.
    fn start(&mut self, node: &Arc<Node>, partition: Partition, stop: CancellationToken) {
        let before = self.owner.take();
        let (node, until) = (Arc::clone(node), stop.clone());
        let running = tokio::spawn(async move {
            if let Some((_, winding_up)) = before {
                let _ = winding_up.await;
            }
            owner::own(node, partition, until).await;
        });
        self.owner = Some((stop, running));
    }

    fn stop(&self) {
        if let Some((stop, _)) = &self.owner {
            stop.cancel();
        }
    }
}

/// The owner of each partition: rendezvous hashing (Thaler and Ravishankar,
/// 1998) with P/N places a node, the first few nodes one more. The same on
/// every node that sees the same list, and few partitions move when it changes.
fn shares(partitions: u16, nodes: &[u64]) -> Vec<u64> {
    let (all, count) = (usize::from(partitions), nodes.len().max(1));
    let places = |index| all / count + usize::from(index < all % count);
    let mut room: Vec<(u64, usize)> = nodes.iter().copied().zip((0..).map(places)).collect();
    let mut owners = Vec::with_capacity(usize::from(partitions));
    for partition in 0..partitions {
        let free = room.iter_mut().filter(|(_, left)| *left > 0);
        if let Some((node, left)) = free.max_by_key(|(node, _)| weight(*node, partition)) {
            *left -= 1;
            owners.push(*node);
        }
    }
    owners
}

/// The finalizer of SplitMix64 over both.
fn weight(node: u64, partition: u16) -> u64 {
    let mut x = node
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(partition).wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(owners: &[u64], node: u64) -> usize {
        owners.iter().filter(|owner| **owner == node).count()
    }

    #[test]
    fn every_number_of_nodes_gets_fair_shares() {
        for nodes in 1..=9 {
            let nodes: Vec<u64> = (1..=nodes).collect();
            let owners = shares(64, &nodes);
            assert_eq!(owners.len(), 64);
            let fair = 64 / nodes.len()..=64_usize.div_ceil(nodes.len());
            for node in &nodes {
                let share = count(&owners, *node);
                assert!(fair.contains(&share), "{share} of {fair:?}");
            }
        }
    }

    #[test]
    fn few_partitions_move_when_a_node_dies() {
        let before = shares(64, &[1, 2, 3, 4]);
        let after = shares(64, &[1, 2, 4]);
        let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
        assert!(moved < 40, "{moved} of 64");
        assert!(shares(64, &[]).is_empty());
    }
}
