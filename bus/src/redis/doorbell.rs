//! Waits until something may have come: a blocking `XREAD` that takes nothing.
//!
//! Reading itself is a script, which checks the lease and can't block; so an
//! owner that lost its lease while it slept takes nothing from its successor.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{bus::Engine, node::Node};

/// After an error, before the reader looks again.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// One reader's doorbell, on a connection of its own.
#[derive(Clone)]
pub(super) struct Doorbell {
    engine: Arc<Engine>,
    key: Arc<str>,
    node: Arc<Mutex<Option<Node>>>,
}

// === impl Doorbell ===

impl Doorbell {
    pub(super) fn new(engine: &Arc<Engine>, key: &str) -> Self {
        Self {
            engine: Arc::clone(engine),
            key: key.into(),
            node: Arc::default(),
        }
    }

    /// Returns when there is an entry behind `newest`, after `block_ms`, or after
    /// an error (which the next read will meet too).
    pub(super) async fn rung(self, newest: String) {
        let block_ms = self.engine.config.block_ms;
        let mut node = self.node.lock().await;
        if node.is_none() {
            *node = self.engine.link.node_apart(&self.key, block_ms).await.ok();
        }
        let Some(there) = node.as_ref() else {
            return tokio::time::sleep(ERROR_PAUSE).await;
        };
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT").arg(1).arg("BLOCK").arg(block_ms);
        wait.arg("STREAMS").arg(&*self.key).arg(newest);
        if there.run(&wait).await.is_err() {
            // Deleted, moved to another node, or out of reach.
            *node = None;
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}
