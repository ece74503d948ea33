//! Timelines of single messages through all stages of their road, on demand.
//!
//! One [`Tracer`] a process, cloned into whatever works on messages. While it is off,
//! which is nearly always, [`Tracer::is_armed`] is all that is asked of it: a relaxed
//! load, once for a batch or a turn of a loop; no clock is read and nothing is kept.
//! Once it is [armed](Tracer::arm) with a [`Watch`] (the messages that a user sends, or
//! that come by a connection, or a sample), stages report when a message came to them,
//! until the time is over or so many messages have been begun.
//!
//! A message is known by its sender and `client_msg_id`, and a sample is chosen by that
//! id alone: so the processes of a cluster, each with a tracer of its own, choose the
//! same messages, and whoever reads their [`Report`]s can join them.
//!
//! Kept are ids and times, never what a message says.

mod report;
mod stage;
mod table;
mod timeline;
mod tracer;
mod watch;

pub use report::Report;
pub use stage::{PushStage, Stage};
pub use table::SETTLE;
pub use timeline::{PUSHES_MAX, TimelineRow};
pub use tracer::{Sighting, TraceId, Tracer};
pub use watch::{FOR_MAX_S, MESSAGES_MAX, Order, Watch, WatchError};
