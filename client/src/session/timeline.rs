//! Puts the entries of one timeline in order: the inbox (places are user seqs)
//! or one group's log (places are seqs).
//!
//! What is next is told, what is ahead is held (bounded), what is behind is
//! dropped. A hole is due to be pulled after a while. Holds no clock.

use std::collections::BTreeMap;

use crate::Entry;

/// Which timeline: the inbox, or a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TimelineKey {
    Inbox,
    Group(sluice_protocol::ConversationId),
}

/// One timeline. Places start at 1.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The last place that was told.
    position: u64,
    /// Where that was at the last connect: what the server has lost shows there.
    connected_at: u64,
    /// The last place that is known to exist.
    head: u64,
    /// Told up to here, this timeline has caught up with the last connect.
    goal: u64,
    held: BTreeMap<u64, Held>,
    /// When a hole is to be pulled.
    due_ms: Option<u64>,
    /// A pull is under way.
    pub(super) is_pulling: bool,
    /// The last pull left more on the server: no push will bring that.
    pub(super) has_more: bool,
    /// Pulls in a row that brought nothing although something is missing.
    fruitless: u32,
    /// The last look at the heads during which the server spoke of it; 0: none.
    pub(super) spoken_of_in: u64,
}

/// An entry that waits for its turn.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) body: HeldBody,
    /// Number of the push that brought it, if on the connection under way.
    pub(super) push: Option<u64>,
}

#[derive(Debug)]
pub(super) enum HeldBody {
    Entry(Box<Entry>),
    /// What the server sent can't be read; it keeps its place.
    Unreadable,
    /// Only announced; it must be pulled.
    Announced,
}

/// What became of an entry that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was told before.
    Behind,
    /// It is next or waits for its turn.
    Held,
    /// Too far ahead; it will be pulled.
    Dropped,
}

/// The wait between two fruitless pulls doubles, up to this span.
const FRUITLESS_WAIT_MAX_MS: u64 = 30_000;
const FRUITLESS_SHIFT_MAX: u32 = 16;

// === impl Timeline ===

impl Timeline {
    pub(super) fn at(position: u64) -> Self {
        Self {
            position,
            head: position,
            ..Self::default()
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.position >= self.goal
    }

    /// Something exists that was not told.
    pub(super) fn is_behind(&self) -> bool {
        self.position < self.head
    }

    /// Nothing is under way, and nothing is known that was not told.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_behind() && !self.is_pulling
    }

    /// Something is missing that only a pull (or a late push) can bring: the
    /// next entry isn't here.
    pub(super) fn lacks_next(&self) -> bool {
        self.is_behind() && !self.has_next()
    }

    /// The next entry is here.
    pub(super) fn has_next(&self) -> bool {
        let next = self.position + 1;
        matches!(self.held.first_key_value(), Some((place, held))
            if *place == next && !matches!(held.body, HeldBody::Announced))
    }

    /// Takes an entry, in any order and any number of times.
    pub(super) fn offer(&mut self, place: u64, held: Held, held_max: usize) -> Placed {
        if place <= self.position {
            return Placed::Behind;
        }
        self.head = self.head.max(place);
        if let Some(before) = self.held.get_mut(&place) {
            // A redelivery; the newer push number is the one to ack.
            before.push = held.push.or(before.push);
            if matches!(before.body, HeldBody::Announced) {
                before.body = held.body;
            }
            return Placed::Held;
        }
        if self.held.len() >= held_max && place != self.position + 1 {
            match self.held.last_key_value() {
                // Nearer ones are worth more: the farthest makes room.
                Some((last, _)) if *last > place => {
                    self.held.pop_last();
                }
                _ => return Placed::Dropped,
            }
        }
        self.held.insert(place, held);
        Placed::Held
    }

    /// The next entry, if it is here; it counts as told from now on.
    pub(super) fn take_next(&mut self) -> Option<Held> {
        if !self.has_next() {
            return None;
        }
        let (place, held) = self.held.pop_first()?;
        self.position = place;
        self.fruitless = 0;
        Some(held)
    }

    /// The log is known to reach up to `head`.
    pub(super) fn raise_head(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// Nothing before `first` can be seen: of a member who joined later, or again,
    /// or of what is archived.
    pub(super) fn skip_to(&mut self, first: u64) {
        if first > self.position.saturating_add(1) {
            self.position = first - 1;
            self.head = self.head.max(self.position);
            self.held = self.held.split_off(&first);
        }
    }

    /// All that exists now is to be told before one is caught up.
    pub(super) fn set_goal(&mut self, goal: u64) {
        self.goal = goal;
        self.raise_head(goal);
    }

    /// What is missing can't be had: no longer a member.
    pub(super) fn give_up(&mut self) {
        self.head = self.position;
        self.goal = self.position;
        self.held.clear();
        self.due_ms = None;
    }

    /// A connection begins.
    pub(super) fn connected(&mut self) {
        self.connected_at = self.position;
    }

    /// Goes back to the server's position if that is behind what was told
    /// before the connect; what is held is of the lost log.
    pub(super) fn rewind_if_lost(&mut self, server: u64) -> bool {
        if server >= self.connected_at {
            return false;
        }
        self.position = server;
        self.connected_at = server;
        self.head = server;
        self.goal = server;
        self.held.clear();
        self.due_ms = None;
        self.has_more = false;
        self.fruitless = 0;
        true
    }

    /// The numbers of pushes end with their connection.
    pub(super) fn connection_lost(&mut self) {
        self.is_pulling = false;
        self.due_ms = None;
        for held in self.held.values_mut() {
            held.push = None;
        }
    }

    /// Arms (or drops) the wait for a pull; call after each change.
    pub(super) fn arm(&mut self, now_ms: u64, patience_ms: u64) {
        if !self.lacks_next() || self.is_pulling {
            self.due_ms = None;
        } else if self.due_ms.is_none() {
            let patience = if self.has_more && self.fruitless == 0 {
                0
            } else {
                (patience_ms << self.fruitless.min(FRUITLESS_SHIFT_MAX)).min(FRUITLESS_WAIT_MAX_MS)
            };
            self.due_ms = Some(now_ms.saturating_add(patience));
        }
    }

    /// Whatever is missing is to be pulled at this time.
    pub(super) fn pull_at(&mut self, at_ms: u64) {
        if self.lacks_next() && !self.is_pulling {
            self.due_ms = Some(at_ms);
        }
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// A pull goes out.
    pub(super) fn pull_started(&mut self) {
        self.is_pulling = true;
        self.has_more = false;
        self.due_ms = None;
    }

    /// A pull brought nothing new, or failed.
    pub(super) fn pull_was_fruitless(&mut self) {
        self.fruitless = self.fruitless.saturating_add(1);
    }
}

// === impl Held ===

impl Held {
    /// From the wire; what can't be read keeps its place.
    pub(super) fn new(entry: Option<Entry>, push: Option<u64>) -> Self {
        Self {
            body: match entry {
                Some(entry) => HeldBody::Entry(Box::new(entry)),
                None => HeldBody::Unreadable,
            },
            push,
        }
    }

    pub(super) fn announced(push: u64) -> Self {
        Self {
            body: HeldBody::Announced,
            push: Some(push),
        }
    }
}
