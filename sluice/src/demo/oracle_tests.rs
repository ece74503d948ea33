//! The oracle is only worth something if it catches each kind of fault.

use std::sync::Arc;

use sluice_client::Transport;

use super::*;
use crate::demo::{
    log::{LoggedConversation, LoggedMessage},
    plan::PlanOptions,
};

/// Two people, three messages: a, b, a.
struct Run {
    plan: Arc<Plan>,
    oracle: Oracle,
    devices: Vec<(DeviceIndex, Vec<Seen>)>,
}

const MESSAGES: usize = 3;

fn id(index: usize) -> ClientMsgId {
    ClientMsgId::new(1_790_000_000_000 + index as u64, [index as u8; 10])
}

fn conversation() -> ConversationId {
    let (a, b) = (UserId::parse("t-a").unwrap(), UserId::parse("t-b").unwrap());
    ConversationId::private(&a, &b).unwrap()
}

impl Run {
    fn new() -> Self {
        let text = |speaker, text: &'static str| LoggedMessage {
            speaker,
            text: Bytes::from_static(text.as_bytes()),
        };
        let log = [LoggedConversation {
            speakers: vec!["a".into(), "b".into()],
            messages: vec![text(0, "hi"), text(1, "hi"), text(0, "bye")],
        }];
        let options = PlanOptions {
            seed: 1,
            run: "t".into(),
            transports: vec![Transport::Tcp],
            groups: Some(0),
        };
        let plan = Arc::new(Plan::new(&log, &options));
        let mut oracle = Oracle::new(Arc::clone(&plan));
        let kinds = [DeviceKind::First, DeviceKind::Fresh];
        let devices = (0..2)
            .flat_map(|user| kinds.map(|kind| (user, kind)))
            .map(|(user, kind)| (oracle.add_device(user, kind), Self::whole(&plan)))
            .collect();
        for index in 0..MESSAGES {
            oracle.sent(index, id(index));
            oracle.acked(index, conversation(), Seq(index as u64 + 1));
        }
        Run {
            plan,
            oracle,
            devices,
        }
    }

    fn whole(plan: &Plan) -> Vec<Seen> {
        let message = |index: usize| SeenMessage {
            id: id(index),
            sender: UserId::parse(&plan.users[plan.messages[index].sender].name).unwrap(),
            body: plan.messages[index].body.clone(),
        };
        (0..MESSAGES)
            .map(|index| Seen {
                conversation: conversation(),
                seq: Seq(index as u64 + 1),
                message: Some(message(index)),
            })
            .collect()
    }

    fn judge(mut self) -> Verdict {
        for (device, seen) in self.devices {
            for seen in seen {
                self.oracle.seen(device, seen);
            }
        }
        assert_eq!(self.plan.messages.len(), MESSAGES);
        self.oracle.verdict()
    }
}

#[test]
fn a_clean_run_is_clean() {
    let verdict = Run::new().judge();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(
        (verdict.expected, verdict.delivered, verdict.acked),
        (3, 3, 3)
    );
}

#[test]
fn a_lost_message_is_caught() {
    let mut run = Run::new();
    run.devices[2].1.pop();
    let verdict = run.judge();
    assert_eq!(
        (verdict.faults.lost, verdict.delivered),
        (1, 2),
        "{verdict:?}"
    );
}

#[test]
fn a_message_that_only_the_fresh_device_lacks_is_caught() {
    let mut run = Run::new();
    run.devices[3].1.pop();
    assert_eq!(run.judge().faults.lost, 1);
}

#[test]
fn a_message_missing_from_its_senders_history_is_caught() {
    let mut run = Run::new();
    run.devices[1].1.pop();
    assert_eq!(run.judge().faults.lost, 1);
}

#[test]
fn a_doubled_message_is_caught() {
    let mut run = Run::new();
    let again = run.devices[2].1[1].clone();
    run.devices[2].1.insert(2, again);
    assert!(run.judge().faults.duplicated >= 1);
}

#[test]
fn a_message_stored_twice_is_caught() {
    let mut run = Run::new();
    for (_, seen) in &mut run.devices {
        let mut again = seen[0].clone();
        again.seq = Seq(4);
        seen.push(again);
    }
    assert!(run.judge().faults.duplicated >= 1);
}

#[test]
fn swapped_messages_are_caught() {
    let mut run = Run::new();
    run.devices[2].1.swap(0, 1);
    assert!(run.judge().faults.reordered >= 1);
}

#[test]
fn messages_swapped_for_everybody_are_caught_by_their_strand() {
    let mut run = Run::new();
    for (_, seen) in &mut run.devices {
        let (first, third) = (seen[0].message.clone(), seen[2].message.clone());
        (seen[0].message, seen[2].message) = (third, first);
    }
    assert!(run.judge().faults.reordered >= 1);
}

#[test]
fn an_altered_message_is_caught() {
    let mut run = Run::new();
    if let Some(message) = &mut run.devices[2].1[0].message {
        message.body = Bytes::from_static(b"hI");
    }
    assert_eq!(run.judge().faults.corrupted, 1);
}

#[test]
fn an_unacked_send_is_caught() {
    let mut run = Run::new();
    run.oracle.messages[1].acked = None;
    let verdict = run.judge();
    assert_eq!((verdict.faults.lost, verdict.acked), (1, 2));
}

#[test]
fn users_who_disagree_on_a_seq_are_caught() {
    let mut run = Run::new();
    // One user's devices saw the last two the other way round.
    for device in [2, 3] {
        let seen = &mut run.devices[device].1;
        let (second, third) = (seen[1].message.clone(), seen[2].message.clone());
        (seen[1].message, seen[2].message) = (third, second);
    }
    assert!(run.judge().faults.reordered >= 1);
}

#[test]
fn an_ack_that_names_another_seq_is_caught() {
    let mut run = Run::new();
    run.oracle.acked(1, conversation(), Seq(9));
    assert_eq!(run.judge().faults.reordered, 1);
}

#[test]
fn a_message_that_nobody_sent_is_caught() {
    let mut run = Run::new();
    if let Some(message) = &mut run.devices[2].1[2].message {
        message.id = id(77);
    }
    assert!(run.judge().faults.corrupted >= 1);
}
