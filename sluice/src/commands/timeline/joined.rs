//! What the processes tell of the same messages, put together, and what it comes to.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::{Deserialize, Serialize};
use sluice_trace::{PushStage, Stage};

/// The answer of one process, as far as it is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    messages_over: u64,
    messages: Vec<ToldMessage>,
}

#[derive(Debug, Deserialize)]
struct ToldMessage {
    sender: String,
    client_msg_id: String,
    conversation: Option<String>,
    seq: Option<u64>,
    began_unix_us: u64,
    stages: BTreeMap<String, u64>,
    pushes: Vec<ToldPush>,
}

#[derive(Debug, Deserialize)]
struct ToldPush {
    connection: String,
    #[serde(flatten)]
    stages: BTreeMap<String, u64>,
}

/// All messages, by sender and `client_msg_id`.
#[derive(Debug, Default)]
pub(super) struct Joined {
    messages: HashMap<(String, String), Message>,
    messages_over: u64,
}

/// When it came where, in microseconds of Unix time; a stage that two processes tell
/// counts when it was first come to.
#[derive(Debug, Default)]
struct Message {
    conversation: Option<String>,
    seq: Option<u64>,
    stages: BTreeMap<String, u64>,
    pushes: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Messages that were followed.
    messages: usize,
    /// Wanted, and not followed as there were enough.
    messages_over: u64,
    stages: Vec<StageFigures>,
    slowest: Option<Slowest>,
}

#[derive(Debug, Serialize)]
struct StageFigures {
    stage: &'static str,
    /// Times that it was come to: for pushes, once a connection.
    count: usize,
    /// From the stage before.
    step_p50_us: i64,
    step_p99_us: i64,
    /// From the first stage.
    since_first_p50_us: i64,
    since_first_p99_us: i64,
}

/// The message that took longest until its last stage.
#[derive(Debug, Serialize)]
struct Slowest {
    sender: String,
    client_msg_id: String,
    conversation: Option<String>,
    seq: Option<u64>,
    total_us: i64,
    /// Microseconds from the first stage, in the order of the road; those of the slowest
    /// push last.
    stages: Vec<(&'static str, i64)>,
}

/// A stage and the one before it.
const ROAD: [(&str, Option<&str>); Stage::ALL.len() + PushStage::ALL.len()] = [
    (Stage::Read.label(), None),
    (Stage::Decode.label(), Some(Stage::Read.label())),
    (Stage::Lane.label(), Some(Stage::Decode.label())),
    (Stage::Append.label(), Some(Stage::Lane.label())),
    (Stage::Take.label(), Some(Stage::Append.label())),
    (Stage::Check.label(), Some(Stage::Take.label())),
    (Stage::Commit.label(), Some(Stage::Check.label())),
    (Stage::Emit.label(), Some(Stage::Commit.label())),
    (Stage::Ack.label(), Some(Stage::Emit.label())),
    (Stage::AckWrite.label(), Some(Stage::Ack.label())),
    (PushStage::Push.label(), Some(Stage::Emit.label())),
    (PushStage::Write.label(), Some(PushStage::Push.label())),
    (PushStage::Ack.label(), Some(PushStage::Write.label())),
];

// === impl Joined ===

impl Joined {
    pub(super) fn add(&mut self, told: Told) {
        self.messages_over += told.messages_over;
        for told in told.messages {
            let name = (told.sender, told.client_msg_id);
            let message = self.messages.entry(name).or_default();
            message.conversation = message.conversation.take().or(told.conversation);
            message.seq = message.seq.or(told.seq);
            merge(&mut message.stages, told.stages, told.began_unix_us);
            for push in told.pushes {
                let known = message.pushes.entry(push.connection).or_default();
                merge(known, push.stages, told.began_unix_us);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn report(&self) -> Report {
        let stages = ROAD.iter().filter_map(|(stage, _)| self.figures(stage));
        let slowest = self.messages.iter().max_by_key(|(_, it)| it.total_us());
        Report {
            messages: self.messages.len(),
            messages_over: self.messages_over,
            stages: stages.collect(),
            slowest: slowest.map(|((sender, client_msg_id), message)| Slowest {
                sender: sender.clone(),
                client_msg_id: client_msg_id.clone(),
                conversation: message.conversation.clone(),
                seq: message.seq,
                total_us: message.total_us(),
                stages: message.stages(),
            }),
        }
    }

    fn figures(&self, stage: &'static str) -> Option<StageFigures> {
        let (mut steps, mut since_first) = (Vec::new(), Vec::new());
        for message in self.messages.values() {
            let first_us = message.first_us();
            for road in message.roads() {
                let Some(at_us) = road.at_us(stage).filter(|_| road.owns(stage)) else {
                    continue;
                };
                since_first.push(span(first_us, at_us));
                steps.extend(
                    road.before_us(stage)
                        .map(|before_us| span(before_us, at_us)),
                );
            }
        }
        steps.sort_unstable();
        since_first.sort_unstable();
        Some(StageFigures {
            stage,
            count: since_first.len(),
            step_p50_us: percentile(&steps, 50).unwrap_or(0),
            step_p99_us: percentile(&steps, 99).unwrap_or(0),
            since_first_p50_us: percentile(&since_first, 50)?,
            since_first_p99_us: percentile(&since_first, 99)?,
        })
    }
}

/// One way through the stages: to the sender's ack, or to one connection.
#[derive(Clone, Copy)]
struct Road<'a> {
    common: &'a BTreeMap<String, u64>,
    push: Option<&'a BTreeMap<String, u64>>,
}

// === impl Road ===

impl Road<'_> {
    fn at_us(&self, stage: &str) -> Option<u64> {
        let pushed = self.push.and_then(|push| push.get(stage));
        pushed.or_else(|| self.common.get(stage)).copied()
    }

    /// What all ways have in common is counted with the first only.
    fn owns(&self, stage: &str) -> bool {
        self.push.is_none_or(|push| push.contains_key(stage))
    }

    /// The nearest stage before that was told.
    fn before_us(&self, stage: &str) -> Option<u64> {
        let (_, before) = ROAD.iter().find(|(label, _)| *label == stage)?;
        let before = (*before)?;
        self.at_us(before).or_else(|| self.before_us(before))
    }
}

// === impl Message ===

impl Message {
    fn roads(&self) -> impl Iterator<Item = Road<'_>> {
        let road = |push| Road {
            common: &self.stages,
            push,
        };
        let pushes = self.pushes.values().map(Some);
        std::iter::once(None).chain(pushes).map(road)
    }

    fn first_us(&self) -> u64 {
        let pushed = self.pushes.values().flat_map(BTreeMap::values);
        self.stages
            .values()
            .chain(pushed)
            .min()
            .copied()
            .unwrap_or(0)
    }

    fn total_us(&self) -> i64 {
        let pushed = self.pushes.values().flat_map(BTreeMap::values);
        let last_us = self.stages.values().chain(pushed).max();
        last_us.map_or(0, |last_us| span(self.first_us(), *last_us))
    }

    fn stages(&self) -> Vec<(&'static str, i64)> {
        let slowest = self.pushes.values().max_by_key(|it| it.values().max());
        let road = Road {
            common: &self.stages,
            push: slowest,
        };
        let first_us = self.first_us();
        let seen = ROAD.iter().filter_map(|(stage, _)| {
            let at_us = road.at_us(stage)?;
            Some((*stage, span(first_us, at_us)))
        });
        seen.collect()
    }
}

fn merge(known: &mut BTreeMap<String, u64>, told: BTreeMap<String, u64>, began_us: u64) {
    for (stage, since_us) in told {
        let at_us = began_us.saturating_add(since_us);
        let earliest = known.entry(stage).or_insert(at_us);
        *earliest = at_us.min(*earliest);
    }
}

/// Below 0 where clocks of two machines differ by more than the message took.
fn span(from_us: u64, to_us: u64) -> i64 {
    i64::try_from(i128::from(to_us) - i128::from(from_us)).unwrap_or(i64::MAX)
}

/// The nearest rank, of sorted values.
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

// === impl Report ===

impl Report {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let Some(slowest) = &self.slowest else {
            return "no message was seen\n".to_owned();
        };
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header([
            "stage",
            "count",
            "step p50 µs",
            "p99",
            "since first p50 µs",
            "p99",
        ]);
        for it in &self.stages {
            let numbers = [
                it.count as i64,
                it.step_p50_us,
                it.step_p99_us,
                it.since_first_p50_us,
                it.since_first_p99_us,
            ];
            let right = |number: i64| Cell::new(number).set_alignment(CellAlignment::Right);
            table.add_row([Cell::new(it.stage)].into_iter().chain(numbers.map(right)));
        }
        // Writing to a string can't fail.
        let _ = writeln!(text, "{} messages\n{table}", self.messages);
        if self.messages_over > 0 {
            let over = self.messages_over;
            let _ = writeln!(
                text,
                "{over} more were not followed: --messages was reached"
            );
        }
        let place = slowest.conversation.as_deref().unwrap_or("?");
        let _ = writeln!(
            text,
            "slowest: {} µs, {} of {} in {place}{}",
            slowest.total_us,
            slowest.client_msg_id,
            slowest.sender,
            slowest
                .seq
                .map(|seq| format!(" at {seq}"))
                .unwrap_or_default(),
        );
        for (stage, since_us) in &slowest.stages {
            let _ = writeln!(text, "  {stage:<10} {since_us:>9}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(messages: serde_json::Value) -> Told {
        serde_json::from_value(json!({"messages_over": 0, "messages": messages})).unwrap()
    }

    #[test]
    fn the_road_has_every_stage_behind_the_one_before() {
        let labels = Stage::ALL.iter().map(|stage| stage.label());
        let labels = labels.chain(PushStage::ALL.iter().map(|stage| stage.label()));
        assert!(ROAD.iter().map(|(label, _)| *label).eq(labels));
        for (index, (label, before)) in ROAD.iter().enumerate() {
            let known = |name| ROAD.iter().take(index).any(|(label, _)| *label == name);
            assert!(before.is_none_or(known), "{label}");
        }
    }

    #[test]
    fn what_processes_tell_is_joined_by_their_clocks() {
        let name = json!({"sender": "alice", "client_msg_id": "1"});
        let part = |began: u64, stages: serde_json::Value, pushes: serde_json::Value| {
            let mut part = name.clone();
            part["began_unix_us"] = began.into();
            part["stages"] = stages;
            part["pushes"] = pushes;
            part
        };
        let mut joined = Joined::default();
        let of_service = part(
            5_100,
            json!({"take": 0, "commit": 900, "emit": 950}),
            json!([]),
        );
        joined.add(told(json!([of_service])));
        let pushes = json!([
            {"connection": "a", "push": 2_000, "push_write": 2_010},
            {"connection": "b", "push": 2_100, "push_write": 2_110, "push_ack": 9_000},
        ]);
        let of_gateway = part(
            5_000,
            json!({"read": 0, "append": 20, "ack": 1_200}),
            pushes,
        );
        joined.add(told(json!([of_gateway])));
        let report = joined.report();
        assert_eq!(report.messages, 1);
        let figures = |stage| report.stages.iter().find(|it| it.stage == stage).unwrap();
        assert_eq!(
            (figures("take").step_p50_us, figures("take").count),
            (80, 1)
        );
        assert_eq!(figures("commit").since_first_p50_us, 1_000);
        assert_eq!(
            (figures("ack").step_p50_us, figures("push").count),
            (150, 2)
        );
        assert_eq!(
            (figures("push").step_p50_us, figures("push").step_p99_us),
            (950, 1_050)
        );
        let slowest = report.slowest.as_ref().unwrap();
        assert_eq!(
            (slowest.total_us, slowest.stages.last()),
            (9_000, Some(&("push_ack", 9_000)))
        );
        assert!(report.text().contains("slowest: 9000 µs"));
        assert!(Joined::default().report().text().contains("no message"));
    }
}
