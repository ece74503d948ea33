//! Load driver: many clients from one thread.
//!
//! [`Job`] is what a generator process does: an open-loop schedule, latencies from
//! when messages were due, counts of all that was sent and heard. The protocol is a
//! [`Driver`]: Sluice's own, or a peer's by its [`Protocol`]. [`Swarm`] holds idle
//! datagram sessions, a million if need be.
//! Bounded by the count it is given and by the open files of the process.

mod body;
mod carrier;
mod client;
mod clock;
pub mod cores;
mod course;
mod datagram_echo;
mod datagrams;
mod driver;
mod echo;
mod engine;
mod error;
mod fields;
mod frame;
mod job;
mod login;
mod memory;
mod peers;
mod rounds;
mod schedule;
mod sequence;
mod session;
mod storm;
mod streams;
mod swarm;
mod tally;

pub use body::{BODY_MIN_BYTES, due_ns_of};
pub use client::WINDOW_MAX;
pub use clock::now_ns;
pub use datagram_echo::DatagramEcho;
pub use driver::{Driver, Heard, Message};
pub use echo::EchoServer;
pub use error::LoadError;
pub use frame::LoadTransport;
pub use job::{Control, Job, Outcome, Told, Work};
pub use login::Login;
pub use memory::{KernelMemory, ProcessMemory, process_cpu_ms, process_rss_bytes};
pub use peers::{PeerError, Protocol};
pub use schedule::Pace;
pub use streams::PER_SOURCE_ADDRESS;
pub use swarm::{Swarm, SwarmOptions};
pub use tally::{Counts, Interval, Latencies};
