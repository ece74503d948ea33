//! The inbox and the groups: what is pushed, what is pulled, and when.

mod heads;

use std::collections::HashMap as StdHashMap;

use hashbrown::HashMap;
use sluice_protocol::{
    ConversationId, limits,
    packet::{self, packet::Body},
};

use super::{
    Session,
    calls::Question,
    timeline::{Held, HeldBody, Placed, Timeline, TimelineKey},
};
use crate::{Entry, Event, SendReceipt};

/// Pulls of one session that are under way at once.
const PULLS_MAX: usize = 4;
/// Groups that are followed. A server names no more than these, present and left;
/// of one that does, the application is told [`Event::TooManyGroups`]. Others,
/// which were left long ago, make room when it is needed.
pub(super) const GROUPS_MAX: usize = limits::GROUPS_PER_USER_MAX + limits::LEFT_GROUPS_MAX;

/// All timelines, and the look at the heads.
#[derive(Debug)]
pub(super) struct Sync {
    inbox: Timeline,
    groups: HashMap<ConversationId, Timeline>,
    pulls: usize,
    /// Not later than the earliest hole that is due; exact after `start_due_pulls`.
    hole_due_ms: Option<u64>,
    /// The application takes events too slowly: entries wait, nothing is pulled.
    pub(super) is_blocked: bool,
    heads_at_ms: u64,
    heads_are_under_way: bool,
    /// Looks at the heads that were begun.
    looks: u64,
    /// A group that there was no room for, in the look under way or before it.
    left_out: Option<ConversationId>,
    /// The heads were seen since the last connect.
    heads_are_fresh: bool,
    is_catching_up: bool,
    /// A group was not followed since the last connect: its entries don't come.
    is_incomplete: bool,
}

// === impl Sync ===

impl Sync {
    pub(super) fn new(inbox: u64, groups: StdHashMap<ConversationId, u64>) -> Self {
        Self {
            inbox: Timeline::at(inbox),
            groups: groups
                .into_iter()
                .map(|(group, position)| (group, Timeline::at(position)))
                .collect(),
            pulls: 0,
            hole_due_ms: None,
            is_blocked: false,
            heads_at_ms: u64::MAX,
            heads_are_under_way: false,
            looks: 0,
            left_out: None,
            heads_are_fresh: false,
            is_catching_up: false,
            is_incomplete: false,
        }
    }

    fn timeline(&mut self, key: &TimelineKey) -> Option<&mut Timeline> {
        match key {
            TimelineKey::Inbox => Some(&mut self.inbox),
            TimelineKey::Group(group) => self.groups.get_mut(group),
        }
    }

    pub(super) fn connection_lost(&mut self) {
        self.inbox.connection_lost();
        self.groups.values_mut().for_each(Timeline::connection_lost);
        self.pulls = 0;
        self.hole_due_ms = None;
        self.heads_are_under_way = false;
        self.heads_at_ms = u64::MAX;
        self.is_catching_up = false;
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let can_pull = !self.is_blocked && self.pulls < PULLS_MAX;
        let hole = self.hole_due_ms.filter(|_| can_pull);
        let heads = (!self.heads_are_under_way).then_some(self.heads_at_ms);
        match (hole, heads) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn expect(&mut self, due_ms: Option<u64>) {
        self.hole_due_ms = match (self.hole_due_ms, due_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

// === impl TimelineKey ===

impl TimelineKey {
    pub(super) fn of(conversation: &ConversationId) -> Self {
        if conversation.is_group() {
            Self::Group(conversation.clone())
        } else {
            Self::Inbox
        }
    }
}

// === impl Session ===

impl Session {
    /// Logged in: everything that came meanwhile is to be pulled. With
    /// `pushes_follow`, pushes that the connection before had unacked may fill the
    /// inbox's hole, as others would.
    pub(super) fn sync_after_connect(&mut self, now_ms: u64, inbox_seq: u64, pushes_follow: bool) {
        self.sync.is_catching_up = true;
        self.sync.is_incomplete = false;
        self.sync.heads_are_fresh = false;
        (self.sync.groups.values_mut()).for_each(Timeline::connected);
        self.sync.inbox.connected();
        self.check_server_position(&TimelineKey::Inbox, inbox_seq);
        self.sync.inbox.set_goal(inbox_seq);
        match pushes_follow {
            true => self.sync.inbox.arm(now_ms, self.config.hole_patience_ms),
            false => self.sync.inbox.pull_at(now_ms),
        }
        let due = self.sync.inbox.due_ms();
        self.sync.expect(due);
        self.sync.heads_at_ms = now_ms;
        self.start_due_pulls(now_ms);
        self.start_due_heads(now_ms);
        self.check_caught_up();
    }

    /// Checks inbox and heads within a random part of this span.
    pub(crate) fn sync_within(&mut self, now_ms: u64, span_ms: u64) {
        let at = now_ms.saturating_add(self.jitter(span_ms));
        self.sync.heads_at_ms = self.sync.heads_at_ms.min(at);
        if self.is_online() {
            self.start_due_heads(now_ms);
        }
    }

    pub(super) fn handle_push(&mut self, now_ms: u64, push: packet::Push) {
        let entry = push
            .entry
            .and_then(|it| Entry::parse(it, push.user_seq).ok());
        let held = Held::new(entry, Some(push.number));
        self.offer(now_ms, &TimelineKey::Inbox, push.user_seq, held);
    }

    pub(super) fn handle_group_notice(&mut self, now_ms: u64, notice: packet::GroupNotice) {
        let Ok(group) = ConversationId::parse(&notice.conversation_id) else {
            return;
        };
        if !group.is_group() {
            return;
        }
        let is_new = !self.sync.groups.contains_key(&group);
        let must_pull = notice.entry.is_none();
        let held = match notice.entry {
            Some(entry) => Held::new(Entry::parse(entry, 0).ok(), Some(notice.number)),
            None => Held::announced(notice.number),
        };
        let key = TimelineKey::Group(group);
        self.offer(now_ms, &key, notice.seq, held);
        // A push that is late can't fill these holes.
        if (must_pull || is_new)
            && let Some(timeline) = self.sync.timeline(&key)
        {
            timeline.pull_at(now_ms);
            let due = timeline.due_ms();
            self.sync.expect(due);
            self.start_due_pulls(now_ms);
        }
    }

    /// Takes an entry for its timeline and tells what is next.
    pub(super) fn offer(&mut self, now_ms: u64, key: &TimelineKey, place: u64, held: Held) {
        if let TimelineKey::Group(group) = key
            && !self.sync.groups.contains_key(group)
        {
            if self.sync.groups.len() >= GROUPS_MAX {
                return self.leave_out(now_ms, group.clone());
            }
            self.sync.groups.insert(group.clone(), Timeline::default());
        }
        let look = self.sync.looks;
        let push = held.push;
        let held_max = self.config.held_max_entries;
        let Some(timeline) = self.sync.timeline(key) else {
            return;
        };
        timeline.spoken_of_in = look;
        if timeline.offer(place, held, held_max) == Placed::Behind
            && let Some(number) = push
        {
            self.acks.arrived(number, now_ms);
        }
        self.advance(now_ms, key);
    }

    /// Tells all entries whose turn it is, as far as the application has room.
    fn advance(&mut self, now_ms: u64, key: &TimelineKey) {
        loop {
            if self.events.len() >= self.config.events_max {
                self.sync.is_blocked = true;
                break;
            }
            let Some(held) = self.sync.timeline(key).and_then(Timeline::take_next) else {
                break;
            };
            self.tell_entry(now_ms, held);
        }
        let patience = self.config.hole_patience_ms;
        if let Some(timeline) = self.sync.timeline(key) {
            timeline.arm(now_ms, patience);
            let due = timeline.due_ms();
            self.sync.expect(due);
        }
    }

    fn tell_entry(&mut self, now_ms: u64, held: Held) {
        let ack_due_ms = now_ms.saturating_add(self.config.push_ack_delay_ms);
        if let Some(number) = held.push {
            self.acks.arrived(number, ack_due_ms);
        }
        let HeldBody::Entry(entry) = held.body else {
            return;
        };
        let own = entry.sender == self.user;
        if own {
            // The entry came before its ack, which may have been lost.
            if let Some(id) = entry.client_msg_id {
                self.settle(&SendReceipt::of(&entry), &id);
            }
        } else if held.push.is_some() {
            self.acks.acked(&entry.conversation, entry.seq.0, now_ms);
        } else {
            self.acks
                .unpushed(&entry.conversation, entry.seq.0, ack_due_ms);
        }
        self.events.push_back(Event::Entry { entry: *entry, own });
    }

    /// The application has made room.
    pub(super) fn unblock(&mut self, now_ms: u64) {
        self.sync.is_blocked = false;
        let mut keys = vec![TimelineKey::Inbox];
        let groups = self.sync.groups.iter();
        keys.extend(
            groups
                .filter(|(_, timeline)| timeline.is_behind())
                .map(|(group, _)| TimelineKey::Group(group.clone())),
        );
        for key in keys {
            self.advance(now_ms, &key);
        }
        if self.is_online() {
            self.start_due_pulls(now_ms);
            self.check_caught_up();
        }
    }

    /// The log reaches up to this entry, which may not be pushed to this
    /// connection: unless it is here, it is pulled at once.
    pub(super) fn pull_up_to(&mut self, now_ms: u64, receipt: &SendReceipt) {
        let (key, place) = receipt.place();
        // A group that isn't followed yet is found by the next look at the heads.
        let Some(timeline) = self.sync.timeline(&key) else {
            return;
        };
        timeline.raise_head(place);
        timeline.pull_at(now_ms);
        let due = timeline.due_ms();
        self.sync.expect(due);
        self.start_due_pulls(now_ms);
    }

    pub(super) fn start_due_pulls(&mut self, now_ms: u64) {
        if self.sync.hole_due_ms.is_none_or(|due| due > now_ms) || self.acks.is_full() {
            return;
        }
        let is_due = |timeline: &Timeline| timeline.due_ms().is_some_and(|due| due <= now_ms);
        let mut due = Vec::new();
        if is_due(&self.sync.inbox) {
            due.push(TimelineKey::Inbox);
        }
        let groups = self.sync.groups.iter();
        due.extend(
            groups
                .filter(|(_, timeline)| is_due(timeline))
                .map(|(group, _)| TimelineKey::Group(group.clone())),
        );
        for key in due {
            if self.sync.is_blocked || self.sync.pulls >= PULLS_MAX {
                // The bound stays as it is, so that the rest is found later.
                return;
            }
            self.start_pull(now_ms, key);
        }
        let timelines = self.sync.groups.values().chain([&self.sync.inbox]);
        self.sync.hole_due_ms = timelines.filter_map(Timeline::due_ms).min();
    }

    fn start_pull(&mut self, now_ms: u64, key: TimelineKey) {
        let limit = self.config.pull_limit;
        let Some(timeline) = self.sync.timeline(&key) else {
            return;
        };
        timeline.pull_started();
        let after = timeline.position();
        self.sync.pulls += 1;
        match key {
            TimelineKey::Inbox => {
                let body = Body::SyncInbox(packet::SyncInbox { after, limit });
                self.pull(now_ms, Question::Inbox, body);
            }
            TimelineKey::Group(group) => {
                let body = Body::SyncConversation(packet::SyncConversation {
                    conversation_id: group.to_string(),
                    range: Some(packet::sync_conversation::Range::After(after)),
                    limit,
                });
                self.pull(now_ms, Question::Group(group), body);
            }
        }
    }

    pub(super) fn handle_inbox_page(&mut self, now_ms: u64, id: u64, page: packet::InboxPage) {
        let is_pull = |question: &Question| matches!(question, Question::Inbox);
        if self.calls.take_if(id, is_pull).is_none() {
            return;
        }
        self.sync.inbox.raise_head(page.inbox_seq);
        let told = self.sync.inbox.position();
        if page.first_seq > told.saturating_add(1) {
            self.sync.inbox.skip_to(page.first_seq);
            self.tell(Event::Archived {
                told,
                first: page.first_seq,
            });
        }
        let entries = page.entries.into_iter().map(|it| {
            let entry = it
                .entry
                .and_then(|entry| Entry::parse(entry, it.user_seq).ok());
            (it.user_seq, entry)
        });
        self.pulled(now_ms, &TimelineKey::Inbox, entries, page.more);
    }

    pub(super) fn handle_conversation_page(
        &mut self,
        now_ms: u64,
        id: u64,
        page: packet::ConversationPage,
    ) {
        let is_pull = |question: &Question| matches!(question, Question::Group(_));
        let Some(Question::Group(group)) = self.calls.take_if(id, is_pull) else {
            return self.answer(id, Ok(Body::ConversationPage(page)));
        };
        let key = TimelineKey::Group(group);
        if let Some(timeline) = self.sync.timeline(&key) {
            timeline.skip_to(page.first_seq);
            timeline.raise_head(page.last_seq);
        }
        let entries = page.entries.into_iter();
        let entries = entries.map(|entry| (entry.seq, Entry::parse(entry, 0).ok()));
        self.pulled(now_ms, &key, entries, page.more);
    }

    /// A pull has come back.
    fn pulled(
        &mut self,
        now_ms: u64,
        key: &TimelineKey,
        entries: impl Iterator<Item = (u64, Option<Entry>)>,
        more: bool,
    ) {
        self.sync.pulls = self.sync.pulls.saturating_sub(1);
        let held_max = self.config.held_max_entries;
        let Some(timeline) = self.sync.timeline(key) else {
            return;
        };
        timeline.is_pulling = false;
        timeline.has_more = more;
        let mut is_fruitful = false;
        for (place, entry) in entries {
            let placed = timeline.offer(place, Held::new(entry, None), held_max);
            is_fruitful |= placed == Placed::Held;
        }
        if !is_fruitful {
            timeline.pull_was_fruitless();
        }
        self.advance(now_ms, key);
        self.start_due_pulls(now_ms);
    }

    /// A pull was refused or not answered: done again later, unless that is in vain.
    pub(super) fn pull_failed(
        &mut self,
        now_ms: u64,
        question: Question,
        is_final: bool,
        retry_at_ms: Option<u64>,
    ) {
        let key = match question {
            Question::Heads => {
                self.sync.heads_are_under_way = false;
                let retry_at = retry_at_ms.unwrap_or(now_ms.saturating_add(1_000));
                self.sync.heads_at_ms = self.sync.heads_at_ms.min(retry_at);
                return;
            }
            Question::Inbox => TimelineKey::Inbox,
            Question::Group(group) => TimelineKey::Group(group),
            Question::Application(_) => return,
        };
        self.sync.pulls = self.sync.pulls.saturating_sub(1);
        let patience = self.config.hole_patience_ms;
        let Some(timeline) = self.sync.timeline(&key) else {
            return;
        };
        timeline.is_pulling = false;
        if is_final && key != TimelineKey::Inbox {
            timeline.give_up();
        } else if let Some(retry_at) = retry_at_ms {
            timeline.pull_at(retry_at);
        } else {
            timeline.pull_was_fruitless();
            timeline.arm(now_ms, patience);
        }
        let due = timeline.due_ms();
        self.sync.expect(due);
        self.start_due_pulls(now_ms);
    }
}

// === impl SendReceipt ===

impl SendReceipt {
    /// Which place in which timeline the entry has.
    pub(super) fn place(&self) -> (TimelineKey, u64) {
        let key = TimelineKey::of(&self.conversation);
        let place = match key {
            TimelineKey::Inbox => self.user_seq.0,
            TimelineKey::Group(_) => self.seq.0,
        };
        (key, place)
    }

    fn of(entry: &Entry) -> Self {
        Self {
            message_id: entry.message_id,
            conversation: entry.conversation.clone(),
            seq: entry.seq,
            user_seq: entry.user_seq,
            server_time_ms: entry.server_time_ms,
        }
    }
}
