//! Storing a partition's batch over servers, of which no transaction spans two.
//! What several partitions commit goes together ([`gather`](super::gather)).
//!
//! First the conversations' servers ([`LogStep`]; with as many shards as
//! partitions that is one), then the users' ([`InboxStep`]), in order. What a
//! crash leaves undone in between, the redelivery of the batch does: repeats
//! drive the second step as well, and get the numbers that were given.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use sluice_protocol::{ConversationId, ConversationKind, UserId, UserSeq};

use super::{
    MysqlConfig, MysqlStore,
    gather::{Bounds, Gatherer},
    inbox_step::{InboxStep, Letter},
    log_step::LogStep,
    servers::{Place, Servers},
    users::FindUsers,
};
use crate::{Commit, Content, NewEntry, Outcome, StoreError, Stored};

/// Where the steps of commits are handed in, server by server.
#[derive(Debug)]
pub(super) struct Steps {
    log: Vec<Gatherer<LogStep>>,
    inbox: Vec<Gatherer<InboxStep>>,
}

// === impl Steps ===

impl Steps {
    pub(super) fn start(servers: &Arc<Servers>, config: &MysqlConfig) -> Self {
        let bounds = |rows_an_entry: usize| Bounds {
            queue_max_requests: config.queue_max_requests,
            batch_max_rows: config.batch_max_entries.saturating_mul(rows_an_entry),
            // Half of the connections stay for what is not alone.
            alone_max: (config.owner_connections_max / 4).max(1) as usize,
        };
        let of = |place| Gatherer::start(Arc::clone(servers), place, bounds(1));
        let log = servers.all().map(of).collect();
        let of = |place| Gatherer::start(Arc::clone(servers), place, bounds(2));
        let inbox = servers.all().map(of).collect();
        Self { log, inbox }
    }

    fn log(&self, place: Place) -> &Gatherer<LogStep> {
        &self.log[place.number()]
    }

    fn inbox(&self, place: Place) -> &Gatherer<InboxStep> {
        &self.inbox[place.number()]
    }
}

/// See [`Store::commit`](crate::Store::commit).
pub(super) async fn commit(
    store: &MysqlStore,
    commit: Arc<Commit>,
) -> Result<Vec<Outcome>, StoreError> {
    let unknown = Arc::new(unknown_users(store, &commit).await?);
    let servers = &store.servers;
    let mut parts = Servers::sort(0..commit.entries.len(), |at| {
        servers.of_conversation(&commit.entries[*at].conversation)
    });
    if parts.is_empty() {
        // Whether the partition is still held is asked all the same.
        parts.insert(servers.home(), Vec::new());
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; commit.entries.len()];
    for (place, part) in parts {
        let step = LogStep {
            commit: Arc::clone(&commit),
            places: part.clone(),
            unknown: Arc::clone(&unknown),
        };
        let answers = store.shared.steps.log(place).run(step).await?;
        for (at, answer) in part.into_iter().zip(answers) {
            outcomes[at] = Some(answer);
        }
    }
    let mut outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    deliver(store, &commit.entries, &mut outcomes).await?;
    Ok(outcomes)
}

/// The second step of a batch.
async fn deliver(
    store: &MysqlStore,
    entries: &[NewEntry],
    outcomes: &mut [Outcome],
) -> Result<(), StoreError> {
    let mut fan_out = FanOut::default();
    for (at, (entry, outcome)) in entries.iter().zip(outcomes.iter()).enumerate() {
        let (stored, repeated) = match outcome {
            Outcome::Stored(stored) => (stored, false),
            Outcome::Duplicate(stored) => (stored, true),
            Outcome::Refused(_) => continue,
        };
        fan_out.add_letters(store, at, &entry.conversation, stored, repeated);
        fan_out.add_listings(store, entry, stored);
    }
    let places = fan_out.run(store).await?;
    for (at, user, seq) in places {
        if let Some(Outcome::Stored(stored) | Outcome::Duplicate(stored)) = outcomes.get_mut(at) {
            stored.inbox.push((user, seq));
        }
    }
    Ok(())
}

/// Gives stored messages of private conversations their inbox places: those
/// that they have, or new ones if the second step never came.
pub(super) async fn deliver_again(
    store: &MysqlStore,
    answers: &mut [(ConversationId, Stored)],
) -> Result<(), StoreError> {
    let mut fan_out = FanOut::default();
    for (at, (conversation, stored)) in answers.iter().enumerate() {
        fan_out.add_letters(store, at, conversation, stored, true);
    }
    for (at, user, seq) in fan_out.run(store).await? {
        answers[at].1.inbox.push((user, seq));
    }
    Ok(())
}

/// What goes to the users' servers.
#[derive(Default)]
struct FanOut {
    /// With the place in the batch, and the user, of each letter.
    steps: BTreeMap<Place, (InboxStep, Vec<(usize, UserId)>)>,
}

// === impl FanOut ===

impl FanOut {
    fn add_letters(
        &mut self,
        store: &MysqlStore,
        at: usize,
        conversation: &ConversationId,
        stored: &Stored,
        repeated: bool,
    ) {
        let ConversationKind::Private(first, second) = conversation.kind() else {
            return;
        };
        for user in [first, second] {
            let (step, places) = self.steps.entry(store.servers.of_user(&user)).or_default();
            places.push((at, user.clone()));
            step.letters.push(Letter {
                user,
                message_id: stored.message_id.0,
                conversation: conversation.clone(),
                seq: stored.seq.0,
                repeated,
            });
        }
    }

    fn add_listings(&mut self, store: &MysqlStore, entry: &NewEntry, stored: &Stored) {
        let users: Vec<UserId> = match (entry.conversation.kind(), &entry.content) {
            (ConversationKind::Private(first, second), _) if stored.seq.0 == 1 => {
                vec![first, second]
            }
            (ConversationKind::Group(_), Content::GroupCreated { members, .. }) => {
                let owner = std::iter::once(&entry.sender);
                owner.chain(members).cloned().collect()
            }
            (ConversationKind::Group(_), Content::Joined { users }) => users.clone(),
            _ => return,
        };
        for user in users {
            let (step, _) = self.steps.entry(store.servers.of_user(&user)).or_default();
            step.listings.push((user, entry.conversation.clone()));
        }
    }

    /// Which message (by its place in the batch) got which number in whose
    /// inbox; of each message the party with the smaller name first.
    async fn run(self, store: &MysqlStore) -> Result<Vec<(usize, UserId, UserSeq)>, StoreError> {
        let mut numbered = Vec::new();
        for (place, (step, places)) in self.steps {
            let seqs = store.shared.steps.inbox(place).run(step).await?;
            let letters = places.into_iter().zip(seqs);
            numbered.extend(letters.map(|((at, user), seq)| (at, user, UserSeq(seq))));
        }
        numbered.sort();
        Ok(numbered)
    }
}

/// Those named in the batch who don't exist. Users never go, so who was seen
/// once is known.
async fn unknown_users(store: &MysqlStore, commit: &Commit) -> Result<HashSet<UserId>, StoreError> {
    let mut unknown = HashSet::new();
    {
        let known = store.shared.known_users.lock();
        for entry in &commit.entries {
            let parties = match entry.conversation.kind() {
                ConversationKind::Private(first, second) => vec![first, second],
                ConversationKind::Group(_) => Vec::new(),
            };
            let named: &[UserId] = match &entry.content {
                Content::GroupCreated { members, .. } => members,
                Content::Joined { users } => users,
                Content::Removed { user } | Content::RoleChanged { user, .. } => {
                    std::slice::from_ref(user)
                }
                _ => &[],
            };
            let all = [&entry.sender].into_iter().chain(&parties).chain(named);
            unknown.extend(all.filter(|user| !known.contains(*user)).cloned());
        }
    }
    if unknown.is_empty() {
        return Ok(unknown);
    }
    let by_place = Servers::sort(unknown.iter().cloned(), |user| store.servers.of_user(user));
    for (place, users) in by_place {
        let found = store.servers.run(place, &FindUsers(users)).await?;
        let mut known = store.shared.known_users.lock();
        if known.len() + found.len() > store.shared.known_users_max {
            known.clear();
        }
        for user in found {
            unknown.remove(&user.id);
            known.insert(user.id);
        }
    }
    Ok(unknown)
}
