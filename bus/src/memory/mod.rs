//! The in-process implementations of the ports: one node needs no server beside it.

mod bus;
mod directory;
mod leases;
mod presence;
mod reader;
mod stream;
mod user_records;

pub use bus::{MemoryBus, MemoryBusConfig, MemoryBusStats};
pub use directory::{MemoryDirectory, MemoryDirectoryConfig};
