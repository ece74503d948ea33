//! What a process has seen, to be read.

use serde::Serialize;

use crate::{timeline::TimelineRow, watch::Order};

/// The timelines of the newest order.
#[derive(Debug, Serialize)]
pub struct Report {
    /// New messages are begun.
    pub armed: bool,
    /// What was asked for; none since the process began, or since it was forgotten.
    pub order: Option<Order>,
    /// For so long new messages are begun still.
    pub left_ms: u64,
    /// Messages that came from their senders to this process and were wanted, and not
    /// begun because there were enough.
    pub messages_over: u64,
    /// Those that were followed, in the order in which they came.
    pub messages: Vec<TimelineRow>,
}
