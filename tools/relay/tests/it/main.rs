//! The relay between real sockets. Tests of times run on tokio's paused clock: loopback delivers
//! while the runtime is busy, so the clock only jumps when everybody waits for it.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used)]

mod datagrams;
mod faults;
mod harness;
mod passing;
mod program;
mod schedule;
