//! `sluice demo`: replays a chat log through real sockets and judges the run by
//! what clients saw.

pub mod log;
pub mod oracle;
pub mod plan;
