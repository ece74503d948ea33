//! `sluice bench`: what the gateway can do, measured.
//!
//! A workload a file. What is common to all: the server under measure (`subject`),
//! the processes that make the load (`generator`, and `worker` on their side),
//! another system that is measured alike (`peer`), and what a report says beside the workload's own figures (`report`).

pub mod all;
pub mod chat;
pub mod fanout;
mod generator;
pub mod idle;
mod latencies;
pub mod live;
pub mod load;
pub mod peer;
pub mod peers;
pub mod ping;
mod plot;
pub mod report;
pub mod request;
pub mod results;
pub mod storm;
mod subject;
mod wheel;
pub mod worker;

pub use subject::{RunningServer, Server};

/// Logins on their way at once.
const OPENING_MAX: usize = 256;
/// Without any login for this long, opening has failed.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
