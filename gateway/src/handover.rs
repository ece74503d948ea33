//! What a connection leaves to the one that its client goes on with: the pushes
//! that were not acked.
//!
//! A client that comes back names the connection it had before
//! (`Connect.former_connection_id`). When its login is open, that one's loop
//! closes it, if it still stands, and gives what it had unacked; the new one
//! pushes that again under numbers of its own, right behind its `ConnectAck`
//! (`event_loop/moving.rs`). A connection that closes first leaves its pushes
//! here for a while, for a client of the same user and device only.
//!
//! All this spares a pull and nothing else: what is not kept, or finds no heir,
//! is in the store, and the sync after each login brings it. So every bound in
//! here may forget.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;
use sluice_protocol::{ConnectionId, DeviceId, UserId};

use crate::{mailbox::Command, push_window::PushContent, slab::ChannelKey};

/// A push that was not acked.
#[derive(Debug, Clone)]
pub(crate) struct Unacked {
    pub(crate) content: Arc<PushContent>,
    pub(crate) user_seq: u64,
}

/// What a connection had not acked when it closed, in the order of its numbers.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) pushes: Vec<Unacked>,
}

/// A loop's connections on the way from one to another.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    /// Logins under way, by channel, that name a connection before; the slab
    /// bounds them.
    formers: HashMap<ChannelKey, ConnectionId>,
    /// Logins that are open but for the answer of the former connection's loop.
    openings: HashMap<ChannelKey, Command>,
    legacies: HashMap<ChannelKey, (Legacy, usize)>,
    /// In the order of their closing, with the time of that.
    closed: VecDeque<(u64, ChannelKey)>,
    /// Of all legacies.
    bytes: usize,
}

/// How long and how much closed connections leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LegacyRule {
    pub(crate) kept_ms: u64,
    pub(crate) max_bytes: usize,
}

/// Bookkeeping of a push, about.
const PUSH_BYTES: usize = 96;
/// And of a connection.
const LEGACY_BYTES: usize = 256;

// === impl Legacy ===

impl Legacy {
    fn bytes(&self) -> usize {
        let pushes = self.pushes.iter();
        let pushes = pushes.map(|push| push.content.entry.len() + PUSH_BYTES);
        LEGACY_BYTES + pushes.sum::<usize>()
    }
}

// === impl Handovers ===

impl Handovers {
    /// This channel's client had this connection before.
    pub(crate) fn announce(&mut self, heir: ChannelKey, former: ConnectionId) {
        self.formers.insert(heir, former);
    }

    /// Which it was, once.
    pub(crate) fn take_former(&mut self, heir: ChannelKey) -> Option<ConnectionId> {
        self.formers.remove(&heir)
    }

    /// The answer to this channel's login waits for the former connection's loop.
    pub(crate) fn wait(&mut self, heir: ChannelKey, opened: Command) {
        self.openings.insert(heir, opened);
    }

    /// The answer that waited.
    pub(crate) fn take_opening(&mut self, heir: ChannelKey) -> Option<Command> {
        self.openings.remove(&heir)
    }

    /// The channel has closed before its login was open. True if it was bound.
    pub(crate) fn forget(&mut self, heir: ChannelKey) -> bool {
        self.formers.remove(&heir);
        self.openings.remove(&heir).is_some()
    }

    /// Keeps what a channel leaves, as the rule allows; the oldest make room.
    pub(crate) fn keep(&mut self, key: ChannelKey, legacy: Legacy, now_ms: u64, rule: LegacyRule) {
        let bytes = legacy.bytes();
        if rule.kept_ms == 0 || bytes > rule.max_bytes {
            return;
        }
        while self.bytes + bytes > rule.max_bytes {
            self.drop_oldest();
        }
        self.bytes += bytes;
        self.legacies.insert(key, (legacy, bytes));
        self.closed.push_back((now_ms, key));
    }

    /// What this channel has left, for that device of that user. It stays, should
    /// the heir, too, be gone before it has told its client of it.
    pub(crate) fn legacy(
        &self,
        former: ChannelKey,
        user: &UserId,
        device: &DeviceId,
    ) -> Vec<Unacked> {
        match self.legacies.get(&former) {
            Some((legacy, _)) if legacy.user == *user && legacy.device == *device => {
                legacy.pushes.clone()
            }
            _ => Vec::new(),
        }
    }

    /// Lets go of what nobody came for in time.
    pub(crate) fn expire(&mut self, now_ms: u64, rule: LegacyRule) {
        while let Some((since_ms, _)) = self.closed.front()
            && now_ms.saturating_sub(*since_ms) >= rule.kept_ms
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, key)) = self.closed.pop_front() else {
            return;
        };
        if let Some((_, bytes)) = self.legacies.remove(&key) {
            self.bytes -= bytes;
        }
        if self.legacies.is_empty() {
            // What a bad moment has cost is given back.
            *self = Self {
                formers: std::mem::take(&mut self.formers),
                openings: std::mem::take(&mut self.openings),
                ..Self::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_window::PushKind;
    use bytes::Bytes;

    const RULE: LegacyRule = LegacyRule {
        kept_ms: 1_000,
        max_bytes: 10_000,
    };

    fn key(slot: u32) -> ChannelKey {
        ChannelKey {
            slot,
            generation: 0,
        }
    }

    fn alice() -> (UserId, DeviceId) {
        let (user, device) = (UserId::parse("alice"), DeviceId::parse("phone"));
        (user.unwrap(), device.unwrap())
    }

    fn legacy(pushes: u64, entry_bytes: usize) -> Legacy {
        let (user, device) = alice();
        let pushes = (1..=pushes).map(|user_seq| Unacked {
            content: Arc::new(PushContent {
                kind: PushKind::Inbox,
                conversation: "p:1:a:b".into(),
                seq: user_seq,
                entry: Bytes::from(vec![0; entry_bytes]),
                trace: None,
            }),
            user_seq,
        });
        Legacy {
            user,
            device,
            pushes: pushes.collect(),
        }
    }

    #[test]
    fn a_legacy_is_for_the_same_device_and_for_a_while() {
        let mut handovers = Handovers::default();
        handovers.keep(key(1), legacy(3, 10), 0, RULE);
        let (user, device) = alice();
        let other = DeviceId::parse("tablet").unwrap();
        assert!(handovers.legacy(key(1), &user, &other).is_empty());
        let bob = UserId::parse("bob").unwrap();
        assert!(handovers.legacy(key(1), &bob, &device).is_empty());
        assert!(handovers.legacy(key(2), &user, &device).is_empty());
        handovers.expire(999, RULE);
        for _ in 0..2 {
            let left = handovers.legacy(key(1), &user, &device);
            let seqs: Vec<_> = left.iter().map(|push| push.user_seq).collect();
            assert_eq!(seqs, [1, 2, 3]);
        }
        handovers.expire(1_000, RULE);
        assert!(handovers.legacy(key(1), &user, &device).is_empty());
        assert_eq!((handovers.bytes, handovers.closed.len()), (0, 0));
    }

    #[test]
    fn the_oldest_make_room_and_what_is_too_large_is_left() {
        let mut handovers = Handovers::default();
        let (user, device) = alice();
        for slot in 0..100 {
            handovers.keep(key(slot), legacy(10, 100), 0, RULE);
            assert!(handovers.bytes <= RULE.max_bytes);
            assert!(handovers.closed.len() < 6);
        }
        assert!(handovers.legacy(key(90), &user, &device).is_empty());
        assert_eq!(handovers.legacy(key(99), &user, &device).len(), 10);
        handovers.keep(key(100), legacy(10, 1_000), 0, RULE);
        assert!(handovers.legacy(key(100), &user, &device).is_empty());
        assert_eq!(handovers.legacy(key(99), &user, &device).len(), 10);
        let none = LegacyRule { kept_ms: 0, ..RULE };
        handovers.keep(key(101), legacy(1, 1), 0, none);
        assert!(handovers.legacy(key(101), &user, &device).is_empty());
    }
}
