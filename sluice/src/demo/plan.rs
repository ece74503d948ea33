//! Turns a log into who does what: made from the log and the seed alone, so
//! that a run can be repeated.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::log::LoggedConversation;
use sluice_client::Transport;

/// Index into [`Plan::users`].
pub type UserIndex = usize;
/// Index into [`Plan::messages`].
pub type MessageIndex = usize;

/// Shares of what happens beside plain chatting.
const SECOND_DEVICE_SHARE: f64 = 0.10;
const CUT_SHARE: f64 = 0.10;
/// One in this many cut users comes back as a new process from saved positions.
const RESTART_ONE_IN: usize = 3;
const GROUP_MEMBERS_MIN: usize = 3;
const GROUP_MEMBERS_MAX: usize = 500;

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    /// Everybody.
    pub users: Vec<PlannedUser>,
    /// Everything said, by strand and then in order.
    pub messages: Vec<PlannedMessage>,
    /// Stretches of `messages`, one a conversation of the log.
    pub strands: Vec<PlannedStrand>,
    /// Groups to be founded before the replay.
    pub groups: Vec<PlannedGroup>,
}

/// One person.
#[derive(Debug)]
pub struct PlannedUser {
    /// User id, unique to the run.
    pub name: String,
    /// By what the first device connects.
    pub transport: Transport,
    /// By what the second device connects at the end, if there is one.
    pub second_device: Option<Transport>,
    /// After the send of this message the connection is cut.
    pub cut_after: Option<MessageIndex>,
    /// The cut takes the whole process with it.
    pub restarts: bool,
    /// And the session goes on by this transport, as of a phone that left its Wi-Fi.
    pub goes_on_by: Option<Transport>,
}

/// One message.
#[derive(Debug)]
pub struct PlannedMessage {
    /// Who says it.
    pub sender: UserIndex,
    /// Which strand it is of.
    pub strand: usize,
    /// What is said.
    pub body: Bytes,
    /// Who must receive it (not the sender).
    pub recipients: Arc<[UserIndex]>,
}

/// One conversation of the log.
#[derive(Debug)]
pub struct PlannedStrand {
    /// Where it is replayed.
    pub place: Place,
    /// Its messages: from here …
    pub first: MessageIndex,
    /// … to before here.
    pub end: MessageIndex,
}

/// Where a strand is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the private conversation of its two speakers.
    Private,
    /// In [`Plan::groups`] at this index.
    Group(usize),
}

/// A group; the first member founds it.
#[derive(Debug)]
pub struct PlannedGroup {
    /// Shown to people.
    pub name: String,
    /// Speakers first, then those who only listen.
    pub members: Vec<UserIndex>,
}

/// What a plan is made by.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Every random choice follows it.
    pub seed: u64,
    /// Put before user ids, so that runs against one server don't meet.
    pub run: String,
    /// Spread over the devices, in turn.
    pub transports: Vec<Transport>,
    /// Strands replayed in groups; `None`: 5 % of them.
    pub groups: Option<usize>,
}

// === impl Plan ===

impl Plan {
    /// Makes a plan; the same log and options make the same plan.
    pub fn new(log: &[LoggedConversation], options: &PlanOptions) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let mut users = People::default();
        let speakers: Vec<Vec<UserIndex>> = log
            .iter()
            .map(|conversation| {
                conversation
                    .speakers
                    .iter()
                    .map(|s| users.index(s))
                    .collect()
            })
            .collect();
        let groups = plan_groups(&speakers, users.names.len(), options.groups, &mut rng);
        let (messages, strands, groups) = plan_messages(log, &speakers, groups);
        let users = plan_users(users.names, &messages, options, &mut rng);
        Plan {
            users,
            messages,
            strands,
            groups,
        }
    }

    /// Conversations on the server: groups, and pairs that meet in private.
    pub fn conversations(&self) -> usize {
        let pairs: HashSet<[UserIndex; 2]> = self
            .strands
            .iter()
            .filter(|strand| strand.place == Place::Private)
            .filter_map(|strand| {
                let sender = self.messages.get(strand.first)?.sender;
                let mut pair = [sender, self.peer_of(strand, sender)?];
                pair.sort_unstable();
                Some(pair)
            })
            .collect();
        pairs.len() + self.groups.len()
    }

    /// The other party of a private strand.
    pub fn peer_of(&self, strand: &PlannedStrand, sender: UserIndex) -> Option<UserIndex> {
        (strand.first..strand.end)
            .filter_map(|index| self.messages.get(index))
            .flat_map(|message| {
                std::iter::once(message.sender).chain(message.recipients.iter().copied())
            })
            .find(|user| *user != sender)
    }
}

#[derive(Default)]
struct People {
    names: Vec<String>,
    known: HashMap<String, UserIndex>,
}

impl People {
    fn index(&mut self, name: &str) -> UserIndex {
        *self.known.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }
}

/// Picks the strands that become groups and whom each group holds besides.
fn plan_groups(
    speakers: &[Vec<UserIndex>],
    users: usize,
    asked: Option<usize>,
    rng: &mut StdRng,
) -> HashMap<usize, Vec<UserIndex>> {
    let count = asked
        .unwrap_or(speakers.len().div_ceil(20))
        .min(speakers.len());
    let all: Vec<usize> = (0..speakers.len()).collect();
    let everybody: Vec<UserIndex> = (0..users).collect();
    all.sample(rng, count)
        .enumerate()
        .map(|(nth, strand)| {
            let mut members = speakers[*strand].clone();
            // The first group is as large as allowed; the others spread evenly
            // over the orders of magnitude.
            let (low, high) = (GROUP_MEMBERS_MIN as f64, GROUP_MEMBERS_MAX as f64);
            let drawn = (low * (high / low).powf(rng.random::<f64>())).round() as usize;
            let size = if nth == 0 { GROUP_MEMBERS_MAX } else { drawn }.max(members.len());
            let listeners = everybody.sample(rng, size.min(users));
            for user in listeners {
                if members.len() < size && !members.contains(user) {
                    members.push(*user);
                }
            }
            (*strand, members)
        })
        .collect()
}

fn plan_messages(
    log: &[LoggedConversation],
    speakers: &[Vec<UserIndex>],
    mut groups: HashMap<usize, Vec<UserIndex>>,
) -> (Vec<PlannedMessage>, Vec<PlannedStrand>, Vec<PlannedGroup>) {
    let (mut messages, mut strands, mut founded) = (Vec::new(), Vec::new(), Vec::new());
    for (strand, conversation) in log.iter().enumerate() {
        let (place, members) = match groups.remove(&strand) {
            Some(members) => {
                let name = format!("strand {strand}");
                founded.push(PlannedGroup {
                    name,
                    members: members.clone(),
                });
                (Place::Group(founded.len() - 1), members)
            }
            None => (Place::Private, speakers[strand].clone()),
        };
        let recipients: Vec<Arc<[UserIndex]>> = speakers[strand]
            .iter()
            .map(|sender| {
                members
                    .iter()
                    .copied()
                    .filter(|user| user != sender)
                    .collect()
            })
            .collect();
        let first = messages.len();
        messages.extend(conversation.messages.iter().map(|message| PlannedMessage {
            sender: speakers[strand][message.speaker],
            strand,
            body: message.text.clone(),
            recipients: Arc::clone(&recipients[message.speaker]),
        }));
        strands.push(PlannedStrand {
            place,
            first,
            end: messages.len(),
        });
    }
    (messages, strands, founded)
}

fn plan_users(
    names: Vec<String>,
    messages: &[PlannedMessage],
    options: &PlanOptions,
    rng: &mut StdRng,
) -> Vec<PlannedUser> {
    let mut sends = vec![Vec::new(); names.len()];
    for (index, message) in messages.iter().enumerate() {
        sends[message.sender].push(index);
    }
    let share = |share: f64| ((names.len() as f64 * share).ceil() as usize).min(names.len());
    let everybody: Vec<UserIndex> = (0..names.len()).collect();
    let talkers: Vec<UserIndex> = everybody
        .iter()
        .copied()
        .filter(|user| !sends[*user].is_empty())
        .collect();
    let seconds: Vec<UserIndex> = everybody
        .sample(rng, share(SECOND_DEVICE_SHARE))
        .copied()
        .collect();
    let cuts: Vec<UserIndex> = talkers.sample(rng, share(CUT_SHARE)).copied().collect();
    let transport = |index: usize| {
        options
            .transports
            .get(index % options.transports.len().max(1))
            .copied()
            .unwrap_or_default()
    };
    let mut users: Vec<PlannedUser> = names
        .into_iter()
        .enumerate()
        .map(|(index, name)| PlannedUser {
            name: format!("{}-{name}", options.run),
            transport: transport(index),
            second_device: seconds.contains(&index).then(|| transport(index + 1)),
            cut_after: None,
            restarts: false,
            goes_on_by: None,
        })
        .collect();
    for (nth, user) in cuts.into_iter().enumerate() {
        users[user].cut_after = sends[user].choose(rng).copied();
        users[user].restarts = nth % RESTART_ONE_IN == RESTART_ONE_IN - 1;
        if options.transports.len() > 1 && nth % 2 == 1 {
            users[user].goes_on_by = Some(transport(user + 1));
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::log;

    fn options(seed: u64) -> PlanOptions {
        PlanOptions {
            seed,
            run: "t".into(),
            transports: vec![Transport::Tcp, Transport::WebSocket],
            groups: None,
        }
    }

    #[test]
    fn a_plan_follows_its_seed() {
        let log = log::read(None, 40).unwrap();
        let (one, same) = (Plan::new(&log, &options(1)), Plan::new(&log, &options(1)));
        assert_eq!(format!("{one:?}"), format!("{same:?}"));
        assert_ne!(
            format!("{one:?}"),
            format!("{:?}", Plan::new(&log, &options(2)))
        );
    }

    #[test]
    fn shares_are_kept() {
        let log = log::read(None, usize::MAX).unwrap();
        let plan = Plan::new(&log, &options(7));
        assert_eq!(plan.strands.len(), 200);
        assert_eq!(plan.groups.len(), 10);
        let cut = plan
            .users
            .iter()
            .filter(|user| user.cut_after.is_some())
            .count();
        assert!(
            cut * 10 >= plan.users.len(),
            "{cut} of {}",
            plan.users.len()
        );
        assert!(plan.users.iter().any(|user| user.restarts));
        for group in &plan.groups {
            let mut members = group.members.clone();
            members.sort_unstable();
            members.dedup();
            assert_eq!(
                members.len(),
                group.members.len(),
                "nobody is in a group twice"
            );
            assert!(members.len() >= GROUP_MEMBERS_MIN);
        }
        for message in &plan.messages {
            assert!(!message.recipients.contains(&message.sender));
            assert!(!message.recipients.is_empty());
        }
    }
}
