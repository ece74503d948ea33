//! The implementations of the ports on Redis (7 or newer), which let any number
//! of gateways and services meet.
//!
//! `config` says where Redis is, `link` runs commands and scripts on it (one
//! server, behind Sentinel, or a cluster), over connections made by `node`.
//!
//! The road of an entry: `bus` appends it, `doorbell` wakes its `reader`, which
//! reads a `page` by right of a `lease` or as one of several (`held`); what is
//! never acknowledged ends among the `dead_letters`.

mod bus;
mod config;
mod dead_letters;
mod doorbell;
mod held;
mod lease;
mod link;
mod names;
mod node;
mod page;
mod reader;
mod scripts;

pub use bus::RedisBus;
pub use config::{RedisConfig, RedisMode};
pub use dead_letters::DeadLetter;
