//! The library as it is used: through pointers, and from C against a running server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so")]

mod bounds;
mod from_c;
mod readme;
