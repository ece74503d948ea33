//! Load driver: many logged-in connections from one thread.
//!
//! A `mio` loop that opens connections, logs each of them in, and holds them:
//! what a bench of idle connections needs. Bounded by the count it is given and
//! by the open files of the process; it connects to loopback only.

mod connection;
mod crowd;
mod memory;
mod swarm;

pub use connection::LoadTransport;
pub use crowd::{Crowd, CrowdOptions, LoadError, Login};
pub use memory::{KernelMemory, ProcessMemory};
pub use swarm::{Swarm, SwarmOptions};
