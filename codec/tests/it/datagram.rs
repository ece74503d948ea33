//! The datagram session.

mod handshake;
mod hostile;
mod pair;
mod rotation;
mod sealing;
