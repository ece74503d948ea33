//! What saves the next datagram session with a server a round trip.

use sluice_codec::datagram::{AddressTicket, ServerPin};

/// Saves the next session a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) pin: ServerPin,
    pub(crate) ticket: AddressTicket,
}

// === impl Ticket ===

impl Ticket {
    const BYTES: usize = ServerPin::BYTES + AddressTicket::BYTES;

    /// As it is kept.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts = self.pin.as_bytes().iter().chain(self.ticket.as_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = *from;
        }
        bytes
    }

    /// What [`Ticket::to_bytes`] made.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (pin, ticket) = bytes.split_first_chunk()?;
        Some(Self {
            pin: ServerPin::from_bytes(*pin),
            ticket: AddressTicket::from_bytes(ticket.try_into().ok()?),
        })
    }
}
