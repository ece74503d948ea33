//! Groups as the owner of their partition knows them. The owner is the only one
//! who changes them, so what it holds is true while its epoch is.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use sluice_protocol::{ConversationId, Seq, UserId, packet::MemberRole};
use sluice_store::{Content, Conversation, Member, Store, StoreError};

use crate::cache_metrics::{self, Cached};

/// Who is in a group, and as what.
#[derive(Debug, Clone)]
pub(super) struct Group {
    members: HashMap<UserId, Membership>,
    /// Everybody with the first seq they may see; shared with pushes under way.
    roster: Arc<[(UserId, Seq)]>,
}

/// One member's place in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) role: MemberRole,
    pub(super) first_seq: Seq,
}

/// The groups that a partition's owner has in memory.
#[derive(Debug)]
pub(super) struct Groups {
    known: HashMap<ConversationId, Group>,
    max: usize,
}

// === impl Group ===

impl Group {
    fn new(members: HashMap<UserId, Membership>) -> Self {
        let roster = roster_of(&members);
        Self { members, roster }
    }

    pub(super) fn membership(&self, user: &UserId) -> Option<Membership> {
        self.members.get(user).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn roster(&self) -> Arc<[(UserId, Seq)]> {
        self.roster.clone()
    }

    /// Who becomes owner when `leaver` goes: the admin, else the member, of
    /// longest standing.
    pub(super) fn heir(&self, leaver: &UserId) -> Option<UserId> {
        self.members
            .iter()
            .filter(|(user, _)| *user != leaver)
            .min_by_key(|(user, member)| {
                (
                    member.role != MemberRole::Admin,
                    member.first_seq,
                    (*user).clone(),
                )
            })
            .map(|(user, _)| user.clone())
    }

    /// Takes over what a stored entry has changed.
    fn apply(&mut self, sender: &UserId, seq: Seq, content: &Content) {
        let joins = |role| Membership {
            role,
            first_seq: seq,
        };
        match content {
            Content::Message { .. } | Content::Recall { .. } | Content::GroupRenamed { .. } => {
                return;
            }
            Content::GroupCreated { members, .. } => {
                self.members.extend(
                    members
                        .iter()
                        .map(|user| (user.clone(), joins(MemberRole::Member))),
                );
                self.members
                    .insert(sender.clone(), joins(MemberRole::Owner));
            }
            Content::Joined { users } => self.members.extend(
                users
                    .iter()
                    .map(|user| (user.clone(), joins(MemberRole::Member))),
            ),
            Content::Left => {
                self.members.remove(sender);
            }
            Content::Removed { user } => {
                self.members.remove(user);
            }
            Content::RoleChanged { user, role } => {
                if let Some(member) = self.members.get_mut(user) {
                    member.role = *role;
                }
            }
        }
        self.roster = roster_of(&self.members);
    }
}

fn roster_of(members: &HashMap<UserId, Membership>) -> Arc<[(UserId, Seq)]> {
    members
        .iter()
        .map(|(user, member)| (user.clone(), member.first_seq))
        .collect()
}

impl From<Conversation> for Group {
    fn from(stored: Conversation) -> Self {
        Self::new(
            stored
                .members
                .into_iter()
                .map(
                    |Member {
                         user,
                         role,
                         first_seq,
                     }| (user, Membership { role, first_seq }),
                )
                .collect(),
        )
    }
}

// === impl Groups ===

impl Groups {
    pub(super) fn new(max: usize) -> Self {
        Self {
            known: HashMap::new(),
            max: max.max(1),
        }
    }

    /// Loads those of the groups that are not in memory.
    pub(super) async fn load(
        &mut self,
        store: &dyn Store,
        wanted: &HashSet<ConversationId>,
    ) -> Result<(), StoreError> {
        let mut absent: Vec<_> = wanted
            .iter()
            .filter(|id| !self.known.contains_key(*id))
            .cloned()
            .collect();
        cache_metrics::count(Cached::Membership, wanted.len(), absent.len());
        if absent.is_empty() {
            return Ok(());
        }
        if self.known.len() + absent.len() > self.max {
            // Everything but this batch's: simple, and amortized over `max` loads.
            self.known.clear();
            absent = wanted.iter().cloned().collect();
        }
        let loaded = store.conversation_members(&absent).await?;
        for (id, conversation) in absent.into_iter().zip(loaded) {
            if let Some(conversation) = conversation {
                self.known.insert(id, conversation.into());
            }
        }
        Ok(())
    }

    pub(super) fn of(&self, id: &ConversationId) -> Option<&Group> {
        self.known.get(id)
    }

    /// Takes over what a newly stored entry has changed.
    pub(super) fn apply(
        &mut self,
        id: &ConversationId,
        sender: &UserId,
        seq: Seq,
        content: &Content,
    ) {
        if matches!(content, Content::GroupCreated { .. }) {
            let group = self
                .known
                .entry(id.clone())
                .or_insert_with(|| Group::new(HashMap::new()));
            group.apply(sender, seq, content);
        } else if let Some(group) = self.known.get_mut(id) {
            group.apply(sender, seq, content);
        }
    }

    /// Keeps nothing.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// What is believed of this group may be wrong.
    pub(super) fn forget(&mut self, id: &ConversationId) {
        self.known.remove(id);
    }
}
