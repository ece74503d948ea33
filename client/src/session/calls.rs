//! Questions under way: pulls, heads, and what the application asks.

use hashbrown::HashMap;
use sluice_protocol::{
    ConversationId,
    packet::{self, ErrorCode, Packet, packet::Body},
};

use super::{Output, Session, answer_wait::AnswerWait, client_msg_id, refusal};
use crate::{CallError, SendReceipt};

/// A pull or a look at the heads that isn't answered within this span (of silence,
/// over datagrams) is done again.
const PULL_TIMEOUT_MS: u64 = 10_000;

/// All questions under way, by packet id.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: HashMap<u64, Call>,
    /// How many the application has asked.
    asked: usize,
    /// Not later than the earliest deadline; exact after `expire_calls`.
    deadline_ms: Option<u64>,
}

#[derive(Debug)]
struct Call {
    question: Question,
    wait: CallWait,
    /// To be asked again at this time, after `Busy`.
    retry_at_ms: Option<u64>,
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
enum CallWait {
    /// As the application says.
    Until(u64),
    Answer(AnswerWait),
}

/// Who wants to know what.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Inbox,
    Group(ConversationId),
    Heads,
    /// The application; the body is kept to be sent again.
    Application(Box<Body>),
}

// === impl Calls ===

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.calls.contains_key(&id)
    }

    /// Takes the question that this id answers, if it is one of that kind.
    pub(super) fn take_if(
        &mut self,
        id: u64,
        fits: impl FnOnce(&Question) -> bool,
    ) -> Option<Question> {
        if !fits(&self.calls.get(&id)?.question) {
            return None;
        }
        let question = self.calls.remove(&id)?.question;
        if matches!(question, Question::Application(_)) {
            self.asked -= 1;
        }
        Some(question)
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    fn insert(&mut self, id: u64, question: Question, wait: CallWait) {
        if matches!(question, Question::Application(_)) {
            self.asked += 1;
        }
        self.expect(wait.ends_ms(0));
        self.calls.insert(
            id,
            Call {
                question,
                wait,
                retry_at_ms: None,
            },
        );
    }

    fn expect(&mut self, at_ms: u64) {
        self.deadline_ms = Some(self.deadline_ms.map_or(at_ms, |it| it.min(at_ms)));
    }
}

// === impl CallWait ===

impl CallWait {
    fn ends_ms(&self, heard_ms: u64) -> u64 {
        match self {
            Self::Until(ends_ms) => *ends_ms,
            Self::Answer(wait) => wait.ends_ms(heard_ms),
        }
    }
}

// === impl Session ===

impl Session {
    /// Asks on behalf of the application; [`Output::Answered`] will carry the id.
    pub(crate) fn ask(
        &mut self,
        now_ms: u64,
        mut body: Body,
        timeout_ms: u64,
    ) -> Result<u64, CallError> {
        if let Some(ended) = self.ended() {
            return Err(CallError::Ended(ended.clone()));
        }
        if self.calls.asked >= self.config.calls_max {
            return Err(CallError::TooMany);
        }
        if !self.is_online() && !is_repeatable(&body) {
            return Err(CallError::ConnectionLost);
        }
        if let Body::Recall(recall) = &mut body {
            recall.client_msg_id = client_msg_id(&self.stamp(now_ms));
        }
        let id = self.packet_id();
        self.transmit_call(id, body.clone());
        let wait = CallWait::Until(now_ms.saturating_add(timeout_ms));
        self.calls
            .insert(id, Question::Application(Box::new(body)), wait);
        Ok(id)
    }

    /// Asks on behalf of a timeline or the heads.
    pub(super) fn pull(&mut self, now_ms: u64, question: Question, body: Body) {
        let id = self.packet_id();
        self.transmit_call(id, body);
        let wait = CallWait::Answer(AnswerWait::new(now_ms, PULL_TIMEOUT_MS));
        self.calls.insert(id, question, wait);
    }

    fn transmit_call(&mut self, id: u64, body: Body) {
        if self.is_online() {
            self.transmit.push_back(Packet {
                id,
                body: Some(body),
            });
        }
    }

    /// The application's question is settled.
    pub(super) fn answer(&mut self, id: u64, answer: Result<Body, CallError>) {
        let is_asked = |question: &Question| matches!(question, Question::Application(_));
        if self.calls.take_if(id, is_asked).is_some() {
            self.outputs.push_back(Output::Answered(id, answer));
        }
    }

    /// The recall is done; its entry comes like any other.
    pub(super) fn handle_recall_ack(&mut self, now_ms: u64, id: u64, ack: packet::SendAck) {
        let is_recall = |question: &Question| matches!(question, Question::Application(body) if matches!(**body, Body::Recall(_)));
        if self.calls.take_if(id, is_recall).is_none() {
            return;
        }
        // Who sent the entry at this place it doesn't say: of a message that was
        // recalled before, it is that recall, by whomever.
        if let Some(receipt) = SendReceipt::parse(&ack) {
            self.pull_up_to(now_ms, &receipt);
        }
        self.outputs
            .push_back(Output::Answered(id, Ok(Body::SendAck(ack))));
    }

    pub(super) fn handle_call_error(&mut self, now_ms: u64, id: u64, error: packet::Error) {
        match self.calls.take_if(id, |_| true) {
            None => {}
            Some(Question::Application(_)) => self.outputs.push_back(Output::Answered(
                id,
                Err(CallError::Refused(refusal(&error))),
            )),
            Some(question) => {
                let is_final = matches!(
                    error.code(),
                    ErrorCode::NotAMember | ErrorCode::UnknownConversation | ErrorCode::Forbidden
                );
                self.pull_failed(now_ms, question, is_final, None);
            }
        }
    }

    /// The server is busy: asks again then.
    pub(super) fn retry_call(&mut self, now_ms: u64, id: u64, retry_at_ms: u64) {
        let is_pull = |question: &Question| !matches!(question, Question::Application(_));
        if let Some(question) = self.calls.take_if(id, is_pull) {
            self.pull_failed(now_ms, question, false, Some(retry_at_ms));
        } else if let Some(call) = self.calls.calls.get_mut(&id) {
            call.retry_at_ms = Some(retry_at_ms);
            self.calls.expect(retry_at_ms);
        }
    }

    pub(super) fn expire_calls(&mut self, now_ms: u64) {
        if self.calls.deadline_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        let heard_ms = self.heard_ms();
        let calls = &mut self.calls.calls;
        let expired: Vec<u64> = calls
            .iter()
            .filter_map(|(id, call)| (call.wait.ends_ms(heard_ms) <= now_ms).then_some(*id))
            .collect();
        let mut again = Vec::new();
        let mut earliest = None;
        for (id, call) in calls {
            let ends_ms = call.wait.ends_ms(heard_ms);
            if ends_ms <= now_ms {
                continue;
            }
            if call.retry_at_ms.is_some_and(|at| at <= now_ms) {
                call.retry_at_ms = None;
                if let Question::Application(body) = &call.question {
                    again.push((*id, (**body).clone()));
                }
            }
            let next = call.retry_at_ms.unwrap_or(u64::MAX).min(ends_ms);
            earliest = Some(earliest.map_or(next, |it: u64| it.min(next)));
        }
        self.calls.deadline_ms = earliest;
        for (id, body) in again {
            self.transmit_call(id, body);
        }
        for id in expired {
            match self.calls.take_if(id, |_| true) {
                Some(Question::Application(_)) => self
                    .outputs
                    .push_back(Output::Answered(id, Err(CallError::Timeout))),
                Some(question) => {
                    tracing::debug!(user = %self.user, ?question, "a pull was not answered");
                    self.pull_failed(now_ms, question, false, None);
                }
                None => {}
            }
        }
    }

    /// Pulls start anew after the next connect; so do the application's
    /// questions that may be asked twice. The others fail.
    pub(super) fn calls_lost_connection(&mut self) {
        let lost: Vec<u64> = self
            .calls
            .calls
            .iter()
            .filter_map(|(id, call)| match &call.question {
                Question::Application(body) => (!is_repeatable(body)).then_some(*id),
                _ => Some(*id),
            })
            .collect();
        for id in lost {
            if let Some(Question::Application(_)) = self.calls.take_if(id, |_| true) {
                self.outputs
                    .push_back(Output::Answered(id, Err(CallError::ConnectionLost)));
            }
        }
    }

    /// On a new connection: what the application still wants to know.
    pub(super) fn repeat_calls(&mut self) {
        let mut again: Vec<(u64, Body)> = Vec::new();
        for (id, call) in &mut self.calls.calls {
            if let Question::Application(body) = &call.question {
                call.retry_at_ms = None;
                again.push((*id, (**body).clone()));
            }
        }
        again.sort_unstable_by_key(|(id, _)| *id);
        for (id, body) in again {
            self.transmit_call(id, body);
        }
    }
}

/// Asking twice is harmless: it only reads, or carries its own id.
fn is_repeatable(body: &Body) -> bool {
    !matches!(body, Body::Request(_))
}
