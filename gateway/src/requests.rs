//! The requests of one connection that wait for a backend's answer. Only what
//! is pending here can be answered, once.

/// Pending ids with their deadlines. A handful, so a plain list.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    pending: Vec<(u64, u64)>,
}

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
        self.pending.is_empty()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.pending.capacity() * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
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
}
