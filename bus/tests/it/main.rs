//! The bus and the directory as gateways and services use them: one suite for
//! every implementation (`contract`), and what is each implementation's own.

// Here a failed unwrap is a failed test; clippy knows that of `#[test]` functions only.
#![allow(clippy::unwrap_used)]

mod contract;
mod faulty;
mod memory;
mod redis;
