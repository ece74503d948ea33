//! What one connection has asked and waits for. Of requests to backends only
//! what is pending here can be answered, once; pulls are counted here, so that
//! nobody fills the services' streams with them.

use prost::Message;

/// Pending ids with their deadlines. A handful, so a plain list.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    pending: Vec<(u64, u64)>,
    /// Pulls by id (the client may use one twice), and when they were handed up.
    pulls: Vec<(u64, u64)>,
}

/// A packet of which only the id is of interest.
#[derive(Clone, PartialEq, Message)]
struct PacketId {
    #[prost(uint64, tag = "1")]
    id: u64,
}

/// A pull unanswered for so long counts no more: its answer may be lost.
const PULL_FORGIVEN_MS: u64 = 10_000;

/// Why a request is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotPending {
    /// As many as are allowed wait already.
    Full,
    /// This id waits already.
    Duplicate,
}

// === impl PendingRequests ===

impl PendingRequests {
    pub(crate) fn insert(
        &mut self,
        id: u64,
        deadline_ms: u64,
        pending_max: usize,
    ) -> Result<(), NotPending> {
        if self.pending.iter().any(|(pending, _)| *pending == id) {
            return Err(NotPending::Duplicate);
        }
        if self.pending.len() >= pending_max {
            return Err(NotPending::Full);
        }
        self.pending.push((id, deadline_ms));
        Ok(())
    }

    /// True if the id was pending; it isn't any more.
    pub(crate) fn settle(&mut self, id: u64) -> bool {
        let position = self.pending.iter().position(|(pending, _)| *pending == id);
        position.is_some_and(|at| {
            self.pending.swap_remove(at);
            true
        })
    }

    /// Pulls that still count.
    pub(crate) fn pulls(&mut self, now_ms: u64) -> usize {
        self.pulls
            .retain(|(_, since_ms)| now_ms.saturating_sub(*since_ms) <= PULL_FORGIVEN_MS);
        self.pulls.len()
    }

    /// Counts a pull; whoever calls has looked whether there is room.
    pub(crate) fn insert_pull(&mut self, id: u64, now_ms: u64) {
        self.pulls.push((id, now_ms));
    }

    /// Counts the pull no more that this packet answers, if it does.
    pub(crate) fn settle_pull(&mut self, answer: &[u8]) {
        if self.pulls.is_empty() {
            return;
        }
        let answered = PacketId::decode(answer).map(|answer| answer.id);
        let position = (self.pulls.iter()).position(|(id, _)| answered.as_ref() == Ok(id));
        if let Some(at) = position {
            self.pulls.swap_remove(at);
        }
    }

    /// Takes out a request whose time is up.
    pub(crate) fn pop_expired(&mut self, now_ms: u64) -> Option<u64> {
        let at = self.pending.iter().position(|(_, due)| *due <= now_ms)?;
        Some(self.pending.swap_remove(at).0)
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.pending.iter().map(|(_, due)| *due).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.pulls.is_empty()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + (self.pending.capacity() + self.pulls.capacity()) * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::packet::{self, Packet};

    use super::*;

    #[test]
    fn answered_once_or_expired() {
        let mut requests = PendingRequests::default();
        assert_eq!(requests.insert(1, 100, 2), Ok(()));
        assert_eq!(requests.insert(1, 100, 2), Err(NotPending::Duplicate));
        assert_eq!(requests.insert(2, 50, 2), Ok(()));
        assert_eq!(requests.insert(3, 50, 2), Err(NotPending::Full));
        assert!(!requests.settle(9));
        assert!(requests.settle(1));
        assert!(!requests.settle(1));
        assert_eq!(requests.next_deadline_ms(), Some(50));
        assert_eq!(requests.pop_expired(49), None);
        assert_eq!(requests.pop_expired(50), Some(2));
        assert!(requests.is_empty());
    }

    #[test]
    fn pulls_count_until_they_are_answered_or_forgiven() {
        let answer = |id| {
            let body = packet::packet::Body::InboxPage(packet::InboxPage::default());
            Packet {
                id,
                body: Some(body),
            }
            .encode_to_vec()
        };
        let mut requests = PendingRequests::default();
        for (id, now_ms) in [(1, 10), (7, 10), (7, 20), (0, 30)] {
            requests.insert_pull(id, now_ms);
        }
        assert_eq!(requests.pulls(30), 4);
        requests.settle_pull(&answer(7));
        requests.settle_pull(&answer(8));
        requests.settle_pull(&[0xff]);
        assert_eq!(requests.pulls(30), 3);
        requests.settle_pull(&answer(0));
        assert_eq!(requests.pulls(10 + PULL_FORGIVEN_MS), 2);
        assert!(!requests.is_empty());
        assert_eq!(requests.len(), 0);
        assert_eq!(requests.pulls(21 + PULL_FORGIVEN_MS), 0);
        assert!(requests.is_empty());
    }
}
