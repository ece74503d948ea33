//! The Rust SDK: one session over any transport.
