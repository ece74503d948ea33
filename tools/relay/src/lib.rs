//! A fault relay: does to streams and datagrams what bad networks do.
//!
//! Role: stands between clients and a server on TCP or UDP, in user space and without privileges.
//! It never looks into the bytes, so that raw TCP, WebSocket and any datagram protocol pass alike.
//! Whatever it does follows a seed, one schedule a connection (or flow) number.
//!
//! The road of a byte of a stream: [`Relay`] accepts (`stream::relay`), a connection gets its
//! partner and its clock of faults (`connection`), each direction reads, queues and writes on its
//! own (`pump`), and what is under way waits in a bounded queue until it is due (`flight`).
//!
//! The road of a datagram: [`DatagramRelay`] receives (`datagram::relay`), finds or opens the
//! client's flow, which is its binding at a NAT (`flow`), and puts it on the flow's [`Line`], which
//! loses, doubles, damages and holds it (`line`). When things go wrong is decided in `schedule`,
//! from one [`FaultPlan`] for both; [`FaultPlan::part_for`] picks what concerns one of them.
//!
//! Limits: a direction of a connection holds at most 256 KiB or 1,024 chunks under way. A stream
//! then stops reading, so that a delay of `d` also caps a direction at 256 KiB / `d`; a flow drops
//! and counts. At most 16,384 connections or 8,192 flows; newcomers are reset or dropped past that.
//! A relay can't make TCP lose segments: `tools/netlab` does that, a level lower. Timers tick in
//! milliseconds. A chunk costs two copies and some system calls: good for faults, not for records.
//! An open connection takes two file descriptors; with none left, newcomers wait in the backlog.

mod bandwidth;
mod datagram;
mod error;
mod plan;
mod relays;
mod schedule;
mod stream;

pub use datagram::line::{Line, Passage};
pub use datagram::relay::DatagramRelay;
pub use datagram::stats::DatagramStats;
pub use error::RelayError;
pub use plan::{Carries, FaultPlan, PlanError};
pub use relays::Relays;
pub use schedule::Direction;
pub use stream::relay::Relay;
pub use stream::stats::RelayStats;
