//! The other service nodes, which must hear what has changed of a user.
//!
//! Every node announces itself in the directory. Who changes a user's status or
//! blocks asks there for the others, *after* the store has the change, and
//! appends a `Forget` to the `down` stream of each: a node that was not announced
//! by then has read nothing before the change. A gap in the producer's
//! counter tells a node of a `Forget` that it has missed (`down_reader`).

use std::{sync::Arc, time::Duration};

use sluice_protocol::{Incarnation, UserId};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{node::Node, outbox::Outbox};

/// Under this name service nodes announce their incarnations.
const WORK: &str = "service";
/// Announcements within one `owner_ttl_ms`.
const ANNOUNCEMENTS_PER_TTL: u32 = 5;

/// Announces this node until shutdown. It keeps standings while it is announced.
pub(crate) async fn announce(node: Arc<Node>, shutdown: CancellationToken) {
    let ttl = Duration::from_millis(node.config.owner_ttl_ms);
    let mut ticks = tokio::time::interval(ttl / ANNOUNCEMENTS_PER_TTL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        // Before the directory's clock begins, so that it ends no sooner.
        let until = Instant::now() + ttl;
        match shutdown.run_until_cancelled(others(&node, ttl)).await {
            Some(Ok(_)) => node.standings.told_until(until),
            Some(Err(error)) => tracing::warn!(%error, "this node can't be announced"),
            None => break,
        }
    }
    if let Err(error) = others(&node, Duration::ZERO).await {
        tracing::debug!(%error, "the other nodes will find out by themselves");
    }
}

/// The user's status or blocks were changed in the store: returns when all
/// nodes have been told, or can't be.
pub(crate) async fn forget(node: &Node, user: &UserId) {
    node.standings.forget(user);
    let ttl = Duration::from_millis(node.config.owner_ttl_ms);
    match others(node, ttl).await {
        Ok(others) => {
            let mut outbox = Outbox::default();
            for other in others {
                outbox.forget(other, user);
            }
            node.downlink.emit(outbox).await;
        }
        Err(error) => tracing::warn!(%error, "other nodes may keep a user's standing for a while"),
    }
}

/// Announces this node and returns the others.
async fn others(node: &Node, ttl: Duration) -> Result<Vec<Incarnation>, sluice_bus::BusError> {
    let me = u64::from(node.incarnation.0);
    let announced = node.directory.announce(WORK, me, ttl).await?;
    let others = announced.into_iter().filter(|other| *other != me);
    Ok(others
        .filter_map(|other| u32::try_from(other).ok())
        .map(Incarnation)
        .collect())
}
