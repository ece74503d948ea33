//! What is known of one message's road.

use serde::Serialize;
use sluice_protocol::{ClientMsgId, ConnectionId, ConversationId, Seq, UserId};

use crate::stage::{PushStage, Stage};

/// Connections of which one message's push is followed; a group may have many more.
pub const PUSHES_MAX: usize = 8;

const NEVER: u64 = u64::MAX;

/// One message: when it came to each stage, in microseconds of the tracer's clock.
#[derive(Debug)]
pub(crate) struct Timeline {
    sender: UserId,
    message: ClientMsgId,
    connection: Option<ConnectionId>,
    place: Option<(ConversationId, Seq)>,
    marks: [u64; Stage::ALL.len()],
    pushes: Vec<Push>,
    pushes_over: u32,
}

#[derive(Debug)]
struct Push {
    connection: ConnectionId,
    marks: [u64; PushStage::ALL.len()],
}

/// The same for people and programs.
#[derive(Debug, Serialize)]
pub struct TimelineRow {
    sender: String,
    client_msg_id: String,
    /// That it came by, as far as this process knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// By this machine's clock, when it came to the first stage that this process saw.
    began_unix_us: u64,
    /// Microseconds from then to each stage.
    stages: Spans,
    pushes: Vec<PushRow>,
    /// Connections that it was pushed to beyond those above.
    pushes_over: u32,
}

#[derive(Debug, Serialize)]
struct PushRow {
    connection: String,
    #[serde(flatten)]
    stages: Spans,
}

/// Names and microseconds, in the order of the road.
#[derive(Debug)]
struct Spans(Vec<(&'static str, u64)>);

// === impl Timeline ===

impl Timeline {
    pub(crate) fn new(
        sender: UserId,
        message: ClientMsgId,
        connection: Option<ConnectionId>,
    ) -> Self {
        Self {
            sender,
            message,
            connection,
            place: None,
            marks: [NEVER; Stage::ALL.len()],
            pushes: Vec::new(),
            pushes_over: 0,
        }
    }

    /// It came to this stage. Only the first time counts: what comes again is a repeat.
    pub(crate) fn mark(&mut self, stage: Stage, at_us: u64) {
        set(&mut self.marks, stage as usize, at_us);
    }

    pub(crate) fn stored(&mut self, conversation: &ConversationId, seq: Seq) {
        self.place
            .get_or_insert_with(|| (conversation.clone(), seq));
    }

    /// Whether this connection is among those that are followed.
    pub(crate) fn mark_push(
        &mut self,
        connection: ConnectionId,
        stage: PushStage,
        at_us: u64,
    ) -> bool {
        let known = self
            .pushes
            .iter_mut()
            .find(|it| it.connection == connection);
        if let Some(push) = known {
            set(&mut push.marks, stage as usize, at_us);
            true
        } else if stage != PushStage::Push {
            // One of those over.
            false
        } else if self.pushes.len() < PUSHES_MAX {
            let mut marks = [NEVER; PushStage::ALL.len()];
            set(&mut marks, stage as usize, at_us);
            self.pushes.push(Push { connection, marks });
            true
        } else {
            self.pushes_over = self.pushes_over.saturating_add(1);
            false
        }
    }

    /// `origin_unix_us`: when the tracer's clock was at 0.
    pub(crate) fn row(&self, origin_unix_us: u64) -> TimelineRow {
        let pushed = self.pushes.iter().flat_map(|push| push.marks);
        let began_us = self.marks.into_iter().chain(pushed).min().unwrap_or(0);
        let stages = Stage::ALL.map(Stage::label).into_iter().zip(self.marks);
        TimelineRow {
            sender: self.sender.to_string(),
            client_msg_id: self.message.to_string(),
            connection: self.connection.map(|connection| connection.to_string()),
            conversation: self.place.as_ref().map(|(it, _)| it.as_str().to_owned()),
            seq: self.place.as_ref().map(|(_, seq)| seq.0),
            began_unix_us: origin_unix_us.saturating_add(began_us),
            stages: Spans::since(began_us, stages),
            pushes: self
                .pushes
                .iter()
                .map(|push| PushRow {
                    connection: push.connection.to_string(),
                    stages: Spans::since(
                        began_us,
                        PushStage::ALL
                            .map(PushStage::label)
                            .into_iter()
                            .zip(push.marks),
                    ),
                })
                .collect(),
            pushes_over: self.pushes_over,
        }
    }
}

fn set(marks: &mut [u64], index: usize, at_us: u64) {
    if let Some(mark) = marks.get_mut(index)
        && *mark == NEVER
    {
        *mark = at_us;
    }
}

// === impl Spans ===

impl Spans {
    fn since(began_us: u64, marks: impl Iterator<Item = (&'static str, u64)>) -> Self {
        let seen = marks.filter(|(_, at_us)| *at_us != NEVER);
        Self(
            seen.map(|(label, at_us)| (label, at_us.saturating_sub(began_us)))
                .collect(),
        )
    }
}

impl Serialize for Spans {
    fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_map(self.0.iter().copied())
    }
}
