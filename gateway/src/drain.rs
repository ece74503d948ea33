//! Leaving without losing anything: stop accepting, tell everybody to go, let
//! what is under way finish, close, hand the lease back.

use std::{sync::atomic::Ordering, time::Duration};

use sluice_bus::BusError;
use tokio::time::Instant;

use crate::{
    gateway::Gateway,
    mailbox::{LoopLoad, Mail},
};

/// Beside the time of the last packets, for each channel that is still there.
const CLOSING_EACH: Duration = Duration::from_micros(100);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

// === impl Gateway ===

impl Gateway {
    /// Drains the gateway and ends it. Takes at most the configured grace, the
    /// time of the last packets, and a moment for the directory.
    ///
    /// Clients are told to reconnect elsewhere after a random delay; lanes are
    /// emptied; answers and acks that are still under way are waited for.
    pub async fn drain(self) {
        self.ready.store(false, Ordering::Relaxed);
        self.tell_all(|| Mail::GoAway).await;
        let grace = Duration::from_millis(self.shared.config.drain.grace_ms);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && !self.is_quiet().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.finish().await;
    }

    /// Closes what is left and ends all tasks and threads.
    pub(crate) async fn finish(mut self) {
        self.ready.store(false, Ordering::Relaxed);
        self.tell_all(|| Mail::Stop).await;
        let closing = Duration::from_millis(self.shared.config.timeouts.closing_ms) + LOOK_AGAIN;
        let channels = u32::try_from(self.load().await.channels).unwrap_or(u32::MAX);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A loop that panicked has said so already.
                let _ = thread.join();
            }
        });
        if tokio::time::timeout(closing * 2 + CLOSING_EACH * channels, joined)
            .await
            .is_err()
        {
            tracing::error!("an event loop did not end in time");
        }
        let deadline = Instant::now() + closing;
        while Instant::now() < deadline
            && !(self.shared.unbinder.is_idle() && self.shared.lanes.entries() == 0)
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.stop.cancel();
        if tokio::time::timeout(closing, self.tasks.join_next_all())
            .await
            .is_err()
        {
            tracing::warn!("tasks of the gateway did not end in time");
        }
        match self.directory.release(self.shared.incarnation).await {
            Ok(()) | Err(BusError::LeaseLost(_)) => {}
            Err(error) => tracing::warn!(%error, "the gateway's lease was not handed back"),
        }
    }

    /// True when every client has left, or at least nothing is under way.
    async fn is_quiet(&self) -> bool {
        let load = self.load().await;
        let under_way = load.unacked_pushes + load.unanswered + self.shared.lanes.entries();
        load.channels == 0 || (under_way == 0 && !load.is_telling)
    }

    async fn load(&self) -> LoopLoad {
        let mut sum = LoopLoad::default();
        for mailbox in &self.loops {
            // A loop that does not answer has nothing to wait for.
            let part = mailbox.ask(Mail::Load).await.unwrap_or_default();
            sum.channels += part.channels;
            sum.unacked_pushes += part.unacked_pushes;
            sum.unanswered += part.unanswered;
            sum.is_telling |= part.is_telling;
        }
        sum
    }

    async fn tell_all(&self, mail: impl Fn() -> Mail) {
        for mailbox in &self.loops {
            mailbox.send(mail()).await;
        }
    }
}
