//! The datagram session.

mod allocations;
mod handshake;
mod hostile;
pub(crate) mod pair;
mod rotation;
mod sealing;
