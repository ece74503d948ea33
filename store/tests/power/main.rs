//! The store on a disk that forgets: power cuts and failing writes.
//!
//! `kill -9` leaves the kernel's page cache alone, so it shows nothing about
//! syncing. Here SQLite works on a shim (`disk`) that knows which bytes were
//! synced and can tell at any moment what a power cut would leave.

// Helpers outside of #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

mod cut;
mod disk;
mod failing;
mod load;
