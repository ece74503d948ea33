//! The look at the heads: where inbox and groups end, so that a lost last push is
//! found, and whether all of what came while away has been told.

use sluice_protocol::{
    ConversationId,
    packet::{self, packet::Body},
};

use super::{GROUPS_MAX, Question, Session, Timeline, TimelineKey};
use crate::{Event, state::Change};

// === impl Session ===

impl Session {
    pub(in crate::session) fn start_due_heads(&mut self, now_ms: u64) {
        if self.sync.heads_are_under_way || self.sync.heads_at_ms > now_ms {
            return;
        }
        let interval = self.config.heads_interval_ms;
        let next = interval / 2 + self.jitter(interval);
        self.sync.heads_at_ms = now_ms.saturating_add(next.max(1));
        self.look_at_heads(now_ms);
    }

    fn look_at_heads(&mut self, now_ms: u64) {
        self.sync.looks += 1;
        self.ask_heads(now_ms, String::new());
    }

    fn ask_heads(&mut self, now_ms: u64, after: String) {
        self.sync.heads_are_under_way = true;
        let body = Body::SyncHeads(packet::SyncHeads { after, limit: 0 });
        self.pull(now_ms, Question::Heads, body);
    }

    pub(in crate::session) fn handle_heads_page(
        &mut self,
        now_ms: u64,
        id: u64,
        page: packet::HeadsPage,
    ) {
        let is_heads = |question: &Question| matches!(question, Question::Heads);
        if self.calls.take_if(id, is_heads).is_none() {
            return;
        }
        self.sync.inbox.raise_head(page.inbox_seq);
        let patience = self.config.hole_patience_ms;
        // Pushes of what the inbox lacks may be on their way.
        self.sync.inbox.arm(now_ms, patience);
        let due = self.sync.inbox.due_ms();
        self.sync.expect(due);
        let last = page.groups.last().map(|it| it.conversation_id.clone());
        for head in page.groups {
            self.take_head(now_ms, head);
        }
        match last {
            Some(last) if page.more => self.ask_heads(now_ms, last),
            _ => self.end_look(now_ms),
        }
        self.start_due_pulls(now_ms);
        self.start_due_heads(now_ms);
    }

    /// All heads were named.
    fn end_look(&mut self, now_ms: u64) {
        match self.sync.left_out.take() {
            // Once more, with room for whom there was none.
            Some(_) if self.forget_groups() > 0 => self.look_at_heads(now_ms),
            left_out => {
                self.sync.heads_are_under_way = false;
                self.sync.heads_are_fresh = true;
                if let Some(group) = left_out {
                    self.skip_group(group);
                }
            }
        }
    }

    /// Forgets groups that the look at the heads has not named: left so long ago
    /// that the server speaks of them no more. Says how many these were.
    fn forget_groups(&mut self) -> usize {
        let look = self.sync.looks;
        let unnamed = self
            .sync
            .groups
            .extract_if(|_, it| it.spoken_of_in < look && it.is_at_rest());
        let unnamed: Vec<_> = unnamed.map(|(group, _)| group).collect();
        let count = unnamed.len();
        tracing::debug!(user = %self.user, count, "groups forgotten");
        for group in unnamed {
            self.save(Change::ForgetGroup(group));
        }
        count
    }

    /// There is no room for a group; the end of a look at the heads may make some.
    pub(super) fn leave_out(&mut self, now_ms: u64, group: ConversationId) {
        // Having found none, it is not looked for again at every push.
        if !self.sync.is_incomplete && self.sync.left_out.is_none() {
            self.sync.left_out = Some(group);
            self.sync_within(now_ms, 0);
        }
    }

    fn take_head(&mut self, now_ms: u64, head: packet::Head) {
        let Ok(group) = ConversationId::parse(&head.conversation_id) else {
            return;
        };
        let is_known = self.sync.groups.contains_key(&group);
        if !group.is_group() {
            return;
        }
        if !is_known && self.sync.groups.len() >= GROUPS_MAX {
            self.sync.left_out = Some(group);
            return;
        }
        let is_catching_up = self.sync.is_catching_up && !self.sync.heads_are_fresh;
        let patience = self.config.hole_patience_ms;
        let key = TimelineKey::Group(group.clone());
        self.check_server_position(&key, head.last_seq);
        let look = self.sync.looks;
        let timeline = self.sync.groups.entry(group).or_default();
        timeline.spoken_of_in = look;
        timeline.skip_to(head.first_seq);
        if is_catching_up {
            timeline.set_goal(head.last_seq);
            timeline.pull_at(now_ms);
        } else {
            timeline.raise_head(head.last_seq);
            timeline.arm(now_ms, patience);
        }
        let due = timeline.due_ms();
        self.sync.expect(due);
    }

    /// Tells once after each connect that a group can't be followed.
    fn skip_group(&mut self, conversation: ConversationId) {
        if !self.sync.is_incomplete {
            self.sync.is_incomplete = true;
            self.tell(Event::TooManyGroups { conversation });
        }
    }

    /// The server has lost what was told before (a restored backup): goes on
    /// from where the server is, else all that is new would pass for old.
    pub(super) fn check_server_position(&mut self, key: &TimelineKey, server: u64) {
        let Some(timeline) = self.sync.timeline(key) else {
            return;
        };
        let told = timeline.position();
        if !timeline.rewind_if_lost(server) {
            return;
        }
        self.tell(Event::ServerBehind {
            group: match key {
                TimelineKey::Inbox => None,
                TimelineKey::Group(group) => Some(group.clone()),
            },
            told,
            server,
        });
    }

    /// Tells once after each connect that nothing older is left to be told.
    pub(in crate::session) fn check_caught_up(&mut self) {
        let sync = &mut self.sync;
        if sync.is_catching_up
            && sync.heads_are_fresh
            && !sync.is_incomplete
            && sync.inbox.is_caught_up()
            && sync.groups.values().all(Timeline::is_caught_up)
        {
            sync.is_catching_up = false;
            self.tell(Event::CaughtUp);
        }
    }
}
