//! Datagram sessions in an event loop: one UDP socket a loop, sessions found by
//! the connection id in their packets, whatever address these come from.
//!
//! The first byte of a connection id names the loop, so a packet that the kernel
//! hands to another one (a client that moved hashes elsewhere) is passed on by
//! mail. What a turn sends is written at its end, packets to one peer by one call.

mod link;
mod outgoing;
mod port;
mod socket;
pub(crate) mod ticket;

pub(crate) use link::{DATAGRAM_FRAMING, DatagramLink};
pub(crate) use outgoing::Outgoing;
pub(crate) use port::{DatagramPort, Errand, Strayed, answer_with};
pub(crate) use socket::{DatagramSocket, ReceiveBuffers};
