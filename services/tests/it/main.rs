//! The services as they are used: a real store, the in-process bus and
//! directory, and a gateway played by the test.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod caches;
mod faults;
mod groups;
mod http;
mod outages;
mod private;
mod pulls;
mod recall;
mod receipts;
mod sessions;
mod shares;
mod world;
