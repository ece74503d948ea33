//! The implementations of the ports on Redis (7 or newer), which let any number
//! of gateways and services meet.
//!
//! `config` says where Redis is, `link` runs commands and scripts on it (one
//! server, behind Sentinel, or a cluster), over connections made by `node`.
//!
//! The road of an entry: `bus` appends it, `doorbell` wakes its `reader`, which
//! reads a `page` by right of a `lease` or as one of several (`held`); what is
//! never acknowledged ends among the `dead_letters`.
//!
//! `directory` is who is connected where: `routes` (one hash a user, its values
//! laid out in `record`), `leases` (which gateways live), `presence` (who
//! watches whom).

mod bus;
mod config;
mod dead_letters;
mod directory;
mod doorbell;
mod held;
mod lease;
mod leases;
mod link;
mod names;
mod node;
mod page;
mod presence;
mod reader;
mod record;
mod routes;
mod scripts;
mod slot;

pub use bus::RedisBus;
pub use config::{RedisConfig, RedisMode};
pub use dead_letters::DeadLetter;
pub use directory::RedisDirectory;
