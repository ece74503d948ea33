//! Judges a run by what clients saw, and by nothing else.
//!
//! It is told what was planned, what was sent under which id, what was acked
//! where, and what each device's application was handed, in that order. It
//! never asks the server. Identity is the `client_msg_id`, since texts repeat.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use bytes::Bytes;
use serde::Serialize;
use sluice_protocol::{ClientMsgId, ConversationId, Seq, UserId};

use super::plan::{MessageIndex, Plan, UserIndex};

/// Names a device to the oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceIndex(usize);

/// What a device's application was handed: one entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose log.
    pub conversation: ConversationId,
    /// Where in it.
    pub seq: Seq,
    /// The message, or `None` for entries of another kind.
    pub message: Option<SeenMessage>,
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMessage {
    /// Which.
    pub id: ClientMsgId,
    /// From whom.
    pub sender: UserId,
    /// What it says.
    pub body: Bytes,
}

/// What is the matter with the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An expected (message, user) that did not arrive, or a send never acked.
    Lost,
    /// Handed over twice at a device, or stored twice.
    Duplicated,
    /// Out of order in a strand, out of seq order at a device, or two users
    /// disagree on a seq.
    Reordered,
    /// Bytes or sender differ, or nobody sent it.
    Corrupted,
}

/// How often each [`Fault`] was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    /// Of [`Fault::Lost`].
    pub lost: u64,
    /// Of [`Fault::Duplicated`].
    pub duplicated: u64,
    /// Of [`Fault::Reordered`].
    pub reordered: u64,
    /// Of [`Fault::Corrupted`].
    pub corrupted: u64,
}

/// The oracle's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// (message, user) pairs that must arrive.
    pub expected: u64,
    /// Those that did: at a device of the user, and at the fresh one.
    pub delivered: u64,
    /// Sends that were acked.
    pub acked: u64,
    /// The four columns.
    pub faults: FaultCounts,
    /// The first few faults in words.
    pub examples: Vec<String>,
}

/// Collects what clients saw.
#[derive(Debug)]
pub struct Oracle {
    plan: std::sync::Arc<Plan>,
    messages: Vec<Sent>,
    ids: HashMap<ClientMsgId, MessageIndex>,
    devices: Vec<Device>,
}

#[derive(Debug, Clone, Default)]
struct Sent {
    id: Option<ClientMsgId>,
    acked: Option<(ConversationId, Seq)>,
}

#[derive(Debug)]
struct Device {
    user: UserIndex,
    kind: DeviceKind,
    seen: Vec<Seen>,
}

/// What part a device plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Chats all along.
    First,
    /// Logs in at the end.
    Second,
    /// Pulls everything from zero, to be compared.
    Fresh,
}

const EXAMPLES_MAX: usize = 12;

// === impl Oracle ===

impl Oracle {
    /// An oracle that expects what is planned.
    pub fn new(plan: std::sync::Arc<Plan>) -> Self {
        let messages = vec![Sent::default(); plan.messages.len()];
        Self {
            messages,
            ids: HashMap::with_capacity(plan.messages.len()),
            devices: vec![],
            plan,
        }
    }

    /// A device takes part.
    pub fn add_device(&mut self, user: UserIndex, kind: DeviceKind) -> DeviceIndex {
        self.devices.push(Device {
            user,
            kind,
            seen: Vec::new(),
        });
        DeviceIndex(self.devices.len() - 1)
    }

    /// The planned message was sent under this id.
    pub fn sent(&mut self, message: MessageIndex, id: ClientMsgId) {
        self.messages[message].id = Some(id);
        self.ids.insert(id, message);
    }

    /// Its ack came, naming this place.
    pub fn acked(&mut self, message: MessageIndex, conversation: ConversationId, seq: Seq) {
        self.messages[message].acked = Some((conversation, seq));
    }

    /// The application of a device was handed an entry.
    pub fn seen(&mut self, device: DeviceIndex, seen: Seen) {
        self.devices[device.0].seen.push(seen);
    }

    /// Which planned message an id stands for.
    pub fn message_of(&self, id: &ClientMsgId) -> Option<MessageIndex> {
        self.ids.get(id).copied()
    }

    /// Judges.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut places = Places::default();
        for device in &self.devices {
            self.judge_device(device, &mut places, &mut verdict);
        }
        self.judge_acks(&mut places, &mut verdict);
        self.judge_arrivals(&mut verdict);
        verdict
    }

    /// Order, repeats and bytes at one device.
    fn judge_device(&self, device: &Device, places: &mut Places, verdict: &mut Verdict) {
        let who = || format!("{} ({:?})", self.plan.users[device.user].name, device.kind);
        let mut last_seq = HashMap::<&ConversationId, Seq>::new();
        let mut last_of_strand = HashMap::<usize, MessageIndex>::new();
        let mut ids = HashSet::<ClientMsgId>::new();
        for seen in &device.seen {
            let at = || format!("{} seq {} at {}", seen.conversation, seen.seq, who());
            let last = last_seq.entry(&seen.conversation).or_default();
            if seen.seq.0 != last.0 + 1 {
                let fault = if seen.seq <= *last {
                    Fault::Duplicated
                } else {
                    Fault::Reordered
                };
                verdict.add(fault, || format!("{} came after seq {last}", at()));
            }
            *last = seen.seq.max(*last);
            let Some(message) = &seen.message else {
                continue;
            };
            if !ids.insert(message.id) {
                verdict.add(Fault::Duplicated, || {
                    format!("{} came twice: {}", message.id, at())
                });
            }
            places.hold(message.id, seen, verdict, &at);
            let Some(index) = self.message_of(&message.id) else {
                verdict.add(Fault::Corrupted, || {
                    format!("nobody sent {}: {}", message.id, at())
                });
                continue;
            };
            let planned = &self.plan.messages[index];
            if message.body != planned.body
                || message.sender.as_str() != self.plan.users[planned.sender].name
            {
                verdict.add(Fault::Corrupted, || {
                    format!("bytes or sender differ: {}", at())
                });
            }
            let before = last_of_strand.insert(planned.strand, index);
            if before.is_some_and(|before| before > index) {
                verdict.add(Fault::Reordered, || {
                    format!("strand {} goes back: {}", planned.strand, at())
                });
            }
        }
    }

    /// Every send has an ack, and it names the place where others see the message.
    fn judge_acks(&self, places: &mut Places, verdict: &mut Verdict) {
        for (index, sent) in self.messages.iter().enumerate() {
            let what = || {
                format!(
                    "message {index} of {}",
                    self.plan.users[self.plan.messages[index].sender].name
                )
            };
            match (&sent.id, &sent.acked) {
                (Some(id), Some((conversation, seq))) => {
                    verdict.acked += 1;
                    let place = (conversation.clone(), *seq);
                    if places.of_id.get(id).is_some_and(|seen| *seen != place) {
                        verdict.add(Fault::Reordered, || {
                            format!(
                                "{} was acked at {conversation} seq {seq}, seen elsewhere",
                                what()
                            )
                        });
                    }
                }
                (None, _) => verdict.add(Fault::Lost, || format!("{} was never sent", what())),
                (_, None) => verdict.add(Fault::Lost, || format!("{} was never acked", what())),
            }
        }
    }

    /// Every recipient has got it, at a device in use and at the fresh one; and
    /// the sender's fresh device has it too.
    fn judge_arrivals(&self, verdict: &mut Verdict) {
        let mut got = HashSet::<(UserIndex, MessageIndex)>::new();
        let mut got_fresh = HashSet::<(UserIndex, MessageIndex)>::new();
        for device in &self.devices {
            let set = if device.kind == DeviceKind::Fresh {
                &mut got_fresh
            } else {
                &mut got
            };
            let ids = device.seen.iter().filter_map(|seen| seen.message.as_ref());
            set.extend(
                ids.filter_map(|m| self.message_of(&m.id))
                    .map(|index| (device.user, index)),
            );
        }
        for (index, message) in self.plan.messages.iter().enumerate() {
            for user in message.recipients.iter().copied() {
                verdict.expected += 1;
                match (
                    got.contains(&(user, index)),
                    got_fresh.contains(&(user, index)),
                ) {
                    (true, true) => verdict.delivered += 1,
                    (seen, _) => verdict.add(Fault::Lost, || {
                        let at = if seen {
                            "its fresh device"
                        } else {
                            "any device"
                        };
                        format!(
                            "message {index} never came to {at} of {}",
                            self.plan.users[user].name
                        )
                    }),
                }
            }
            if !got_fresh.contains(&(message.sender, index)) {
                verdict.add(Fault::Lost, || {
                    format!("message {index} is not in its sender's own history")
                });
            }
        }
    }
}

/// Where each message is, as all devices together saw it.
#[derive(Default)]
struct Places {
    of_id: HashMap<ClientMsgId, (ConversationId, Seq)>,
    of_seq: HashMap<(ConversationId, Seq), ClientMsgId>,
}

impl Places {
    fn hold(
        &mut self,
        id: ClientMsgId,
        seen: &Seen,
        verdict: &mut Verdict,
        at: &dyn Fn() -> String,
    ) {
        let place = (seen.conversation.clone(), seen.seq);
        match self.of_seq.entry(place.clone()) {
            Entry::Occupied(held) if *held.get() != id => {
                verdict.add(Fault::Reordered, || format!("users disagree on {}", at()));
                // Then the id has two places for that reason alone.
                return;
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(id);
            }
        }
        match self.of_id.entry(id) {
            Entry::Occupied(held) if *held.get() != place => {
                verdict.add(Fault::Duplicated, || {
                    format!("{id} is stored twice: {}", at())
                });
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
    }
}

// === impl FaultCounts ===

impl FaultCounts {
    fn column(&mut self, fault: Fault) -> &mut u64 {
        match fault {
            Fault::Lost => &mut self.lost,
            Fault::Duplicated => &mut self.duplicated,
            Fault::Reordered => &mut self.reordered,
            Fault::Corrupted => &mut self.corrupted,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.faults == FaultCounts::default() && self.delivered == self.expected
    }

    fn add(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        *self.faults.column(fault) += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{fault:?}: {}", example()));
        }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
