//! What the writer remembers of the database, bounded.
//!
//! It only ever holds what a committed transaction (or the one that runs, once
//! its savepoint was released) has written; after a failed commit all of it is
//! thrown away.

use std::{borrow::Borrow, hash::Hash};

use hashbrown::HashMap;
use sluice_protocol::{ConversationId, UserId};

use super::{conversation_state::ConversationState, integer::UserKey};

/// A map that forgets what was not used for long: when the young half is full
/// it becomes the old half, and the old half goes. At most twice `half_max` entries.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half_max: usize,
}

/// All that is remembered.
#[derive(Debug)]
pub(super) struct WriterMemory {
    /// Keys by user id.
    pub(super) users: Recent<UserId, UserKey>,
    /// Logs' ends by conversation id.
    pub(super) conversations: Recent<ConversationId, ConversationState>,
    /// The user seq of each inbox's newest entry.
    pub(super) inbox_ends: Recent<UserKey, u64>,
    /// The greatest message id stored.
    pub(super) newest_message_id: Option<u64>,
    /// Worker ids issued in this process's life.
    pub(super) worker_ids_issued: u16,
}

// === impl Recent ===

impl<K: Hash + Eq, V> Recent<K, V> {
    fn new(max_entries: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half_max: (max_entries / 2).max(1),
        }
    }

    /// Takes an entry out; whoever takes it puts the changed one back.
    pub(super) fn take<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Puts an entry in, as the youngest.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.half_max {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

impl<K: Hash + Eq + Clone, V: Copy> Recent<K, V> {
    /// A copy of an entry, which is the youngest from now on.
    pub(super) fn copied<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value);
        Some(value)
    }
}

// === impl WriterMemory ===

impl WriterMemory {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            users: Recent::new(max_entries),
            conversations: Recent::new(max_entries),
            inbox_ends: Recent::new(max_entries),
            newest_message_id: None,
            worker_ids_issued: 0,
        }
    }

    /// Forgets all that may not have become durable.
    pub(super) fn forget(&mut self) {
        self.users.clear();
        self.conversations.clear();
        self.inbox_ends.clear();
        self.newest_message_id = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_entries_stay_and_the_rest_is_bounded() {
        let mut recent = Recent::new(8);
        for number in 0..1_000_u32 {
            recent.put(number, number * 2);
            assert_eq!(recent.copied(&0), Some(0), "used all the time");
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.copied(&999), Some(1_998));
        assert_eq!(recent.copied(&500), None);
        assert_eq!(recent.take(&999), Some(1_998));
        assert_eq!(recent.take(&999), None);
        recent.put(0, 1);
        assert_eq!(recent.copied(&0), Some(1));
    }
}
