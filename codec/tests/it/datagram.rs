//! The datagram session.

mod handshake;
mod hostile;
pub(crate) mod pair;
mod rotation;
mod sealing;
