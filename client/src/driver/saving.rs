//! What a driver writes to the local state, and who is told once it is there.

use std::sync::atomic::Ordering;

use super::Driver;
use crate::{SendError, state::Change};

/// What can wait is written this much later, together with what comes until then.
const SAVE_DELAY_MS: u64 = 20;

// === impl Driver ===

impl Driver {
    /// Positions of what the application is done with are to be saved.
    pub(super) fn take_commits(&mut self) {
        let committed = self.parts.shared.committed.load(Ordering::Acquire);
        while let Some((number, _)) = self.uncommitted.front()
            && *number <= committed
        {
            if let Some((_, change)) = self.uncommitted.pop_front() {
                self.unsaved.push(change);
            }
        }
        if self.unsaved.is_empty() {
            self.report_persisted(committed);
        }
    }

    /// Writes changes: at once if somebody waits for it or it costs nothing,
    /// else after a moment, with others.
    pub(super) async fn save(&mut self, now_ms: u64) {
        if self.unsaved.is_empty() {
            return self.report_kept();
        }
        let at_ms = *self.save_at_ms.get_or_insert(now_ms + SAVE_DELAY_MS);
        let is_durable = self.parts.state.is_durable();
        let has_new_send = |change: &Change| matches!(change, Change::PutSend(..));
        if is_durable && at_ms > now_ms && !self.unsaved.iter().any(has_new_send) {
            return;
        }
        self.save_now(is_durable).await;
        self.report_kept();
    }

    pub(super) async fn save_now(&mut self, is_durable: bool) {
        self.save_at_ms = None;
        let batch = std::mem::take(&mut self.unsaved);
        let committed = self.parts.shared.committed.load(Ordering::Acquire);
        let committed = match self.uncommitted.front() {
            Some((number, _)) => committed.min(number - 1),
            None => committed,
        };
        let state = self.parts.state.clone();
        let written = if is_durable {
            match tokio::task::spawn_blocking(move || state.write(batch)).await {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        } else {
            state.write(batch).map_err(|error| error.to_string())
        };
        match written {
            Ok(()) => self.report_persisted(committed),
            Err(error) => {
                tracing::error!(%error, "the local state can't be written");
                for (kept, _) in self.keeping.drain(..) {
                    drop(kept.send(Err(SendError::State(error.clone()))));
                }
                self.parts.session.fail(self.clock.now_ms(), error);
            }
        }
    }

    pub(super) fn report_kept(&mut self) {
        for (kept, id) in self.keeping.drain(..) {
            drop(kept.send(Ok(id)));
        }
    }

    pub(super) fn report_persisted(&self, committed: u64) {
        self.parts.persisted.send_if_modified(|number| {
            let is_news = *number < committed;
            *number = committed.max(*number);
            is_news
        });
    }
}
