//! The store as it is used: real files, a real server, the public port.

// Helpers outside of #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

mod crash;
mod folder;
mod full_disk;
mod group;
mod kit;
mod merge;
mod message;
mod migrate;
mod model;
mod months;
mod placement;
mod pull;
mod replicas;
mod retries;
mod servers;
mod session;
mod suite;
mod tls;
mod user;
