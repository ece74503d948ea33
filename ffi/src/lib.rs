//! The client for C and whatever calls C: a static library and `include/sluice.h`.
//!
//! It opens no socket, reads no clock, starts no thread: a device or a game brings its own and
//! hands over datagrams, times and random bytes. Behind it is
//! [`DatagramClient`](::sluice_client::DatagramClient), with all of the SDK's promises.
//!
//! Unsafe code is in `boundary` alone, with its proof. `types` is what both sides see,
//! `client` and `event` say the same in safe Rust. No panic leaves the library: a client that
//! met one answers `SLUICE_STATUS_INTERNAL` from then on.

mod boundary;
mod client;
mod error_text;
mod event;
mod types;

pub use boundary::*;
pub use client::sluice_client;
pub use types::*;
