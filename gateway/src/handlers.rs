//! The handlers of the pipeline, one a file; [`crate::Pipeline::standard`] has
//! their order.

mod auth;
mod dispatch;
mod heartbeat;
mod push_acks;
mod rate_limit;
mod replay;
mod requests;
mod session;

pub(crate) use auth::Auth;
pub(crate) use dispatch::Dispatch;
pub(crate) use heartbeat::Heartbeat;
pub(crate) use push_acks::PushAcks;
pub(crate) use rate_limit::{Admission, RateLimit};
pub(crate) use replay::Replay;
pub(crate) use requests::Requests;
pub(crate) use session::Session;
