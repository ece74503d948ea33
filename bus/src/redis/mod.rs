//! The implementations of the ports on Redis (7 or newer), which let any number
//! of gateways and services meet.
//!
//! `config` says where Redis is, `link` runs commands and scripts on it (one
//! server, behind Sentinel, or a cluster), over connections made by `node`.

mod config;
mod link;
mod node;

pub use config::{RedisConfig, RedisMode};
