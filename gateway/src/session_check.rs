//! Asks the session service, in a slow sweep and after a gap in the way down,
//! whether the open sessions are still in their users' token epochs.
//!
//! A logout, a ban or a change of password raises the epoch and kicks. A kick is
//! a delivery like others: it may be lost, or find no route. So each gateway
//! names its sessions again and again, and whoever's epoch is another by now is
//! kicked once more. Nothing is answered for the others, and nothing is
//! remembered here: a question or a kick that gets lost is made up for by the
//! next round.

use std::{sync::Arc, time::Duration};

use prost::Message;
use sluice_protocol::{
    Partition,
    envelope::{CheckSessions, LiveSession, Up, up},
    limits::SHARED_PARTITIONS,
    partition_of,
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    mailbox::{Mail, Mailbox},
    shared::Shared,
};

/// The task that asks.
pub(crate) struct SessionCheck {
    pub(crate) shared: Arc<Shared>,
    pub(crate) loops: Vec<Mailbox>,
    /// Deliveries may have been lost: asks soon.
    pub(crate) recheck: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
}

/// Sessions in one entry: some 40 KB with the longest names.
const SESSIONS_MAX: usize = 512;
/// Between two entries, so that a sweep leaves room for logins in their lanes.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two rounds, whatever gaps there are.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

// === impl SessionCheck ===

impl SessionCheck {
    /// Asks until shutdown.
    pub(crate) async fn run(self) {
        let shutdown = self.shutdown.clone();
        shutdown.run_until_cancelled(self.ask_for_ever()).await;
    }

    async fn ask_for_ever(&self) {
        let directory = &self.shared.config.directory;
        let interval = Duration::from_millis(directory.session_check_interval_ms.max(1));
        loop {
            // Rung or not: a round is due.
            let _ = tokio::time::timeout(interval, self.recheck.notified()).await;
            for mailbox in &self.loops {
                let mut from_slot = Some(0);
                while let Some(slot) = from_slot {
                    let (answer, page) = oneshot::channel();
                    mailbox.send(Mail::Sessions(slot, answer)).await;
                    // A loop that has ended has no sessions.
                    let Ok(page) = page.await else { break };
                    from_slot = page.next_slot;
                    self.ask(page.items).await;
                }
            }
            tokio::time::sleep(ROUND_PAUSE.min(interval)).await;
        }
    }

    async fn ask(&self, sessions: Vec<LiveSession>) {
        let mut shares: Vec<Vec<LiveSession>> = Vec::new();
        shares.resize_with(SHARED_PARTITIONS.into(), Vec::new);
        for session in sessions {
            let partition = partition_of(session.user_id.as_bytes(), SHARED_PARTITIONS);
            if let Some(share) = shares.get_mut(usize::from(partition.0)) {
                share.push(session);
            }
        }
        for (partition, share) in (0..).map(Partition).zip(shares) {
            let lane = self.shared.lanes.session(partition);
            for sessions in share.chunks(SESSIONS_MAX) {
                let now = self.shared.clock.now();
                let up = Up {
                    origin: None,
                    received_at_ms: now.unix_ms,
                    body: Some(up::Body::CheckSessions(CheckSessions {
                        sessions: sessions.to_vec(),
                    })),
                };
                if lane.offer(up.encode_to_vec().into(), now.mono_ms).is_err() {
                    tracing::warn!("a session lane is full; the next round checks its sessions");
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
