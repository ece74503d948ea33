//! A fault relay: delay, stall, reset and blackout for streams.
//!
//! Role: stands between clients and a server on plain TCP, in user space and without privileges,
//! and does to their bytes what bad networks do. It never looks into the bytes, so that raw TCP and
//! WebSocket pass alike. Whatever it does follows a seed, one schedule a connection number.
//!
//! The road of a byte: [`Relay`] accepts (`relay`), a connection gets its partner and its clock of
//! faults (`connection`), each direction reads, queues and writes on its own (`pump`), and what is
//! under way waits in a bounded queue until it is due (`flight`). When things go wrong is decided in
//! `schedule`, from a [`FaultPlan`].
//!
//! Limits: streams only. The datagram keys of the grammar parse, but [`Relay::start`] refuses them by
//! name. A direction of a connection holds at most 256 KiB or 1,024 chunks under way, then stops
//! reading, so that a delay of `d` also caps a direction at 256 KiB / `d`. Timers tick in
//! milliseconds. A chunk costs two copies and some system calls: good for faults, not for records.
//! An open connection takes two file descriptors; with none left, newcomers wait in the backlog.

mod connection;
mod flight;
mod plan;
mod pump;
mod relay;
mod schedule;
mod stats;

pub use plan::{FaultPlan, PlanError};
pub use relay::{Relay, RelayError};
pub use stats::RelayStats;
