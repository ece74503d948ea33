//! The bytes of one direction that are under way: each chunk waits until it is due.
//!
//! Holds no socket and no clock; time comes in as an argument. Bounded in bytes and chunks: past
//! either the direction stops reading, which the sender's TCP window then feels.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Above this many bytes under way a direction stops reading.
pub(crate) const IN_FLIGHT_MAX_BYTES: usize = 256 * 1024;
/// Above this many chunks under way a direction stops reading.
const IN_FLIGHT_MAX_CHUNKS: usize = 1024;

/// What can travel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parcel {
    /// Some bytes, never none.
    Bytes(Vec<u8>),
    /// The sender has said its last byte (a half-close).
    Fin,
    /// The sender is gone with a reset.
    Abort,
}

/// A queue of parcels, each with the time at which it may leave.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    parcels: VecDeque<(Instant, Parcel)>,
    held_bytes: usize,
    /// How much of the first parcel has left already.
    sent_of_first_bytes: usize,
    ended: bool,
}

// === impl Flight ===

impl Flight {
    /// Whether another chunk may be read: there is room, and the sender hasn't ended.
    pub(crate) fn wants_more(&self) -> bool {
        !self.ended
            && self.held_bytes < IN_FLIGHT_MAX_BYTES
            && self.parcels.len() < IN_FLIGHT_MAX_CHUNKS
    }

    /// Puts a parcel on its way, which has passed the line's bandwidth at `passed`. It never
    /// becomes due before the one ahead of it.
    pub(crate) fn push(&mut self, parcel: Parcel, passed: Instant, lateness: Duration) {
        let ahead = self.parcels.back().map_or(passed, |(due, _)| *due);
        match &parcel {
            Parcel::Bytes(bytes) => self.held_bytes += bytes.len(),
            Parcel::Fin | Parcel::Abort => self.ended = true,
        }
        self.parcels
            .push_back((ahead.max(passed + lateness), parcel));
    }

    /// When the first parcel is due, if there is one.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.parcels.front().map(|(due, _)| *due)
    }

    /// The unsent rest of the first parcel, when that is bytes.
    pub(crate) fn first_bytes(&self) -> Option<&[u8]> {
        match self.parcels.front() {
            Some((_, Parcel::Bytes(bytes))) => bytes.get(self.sent_of_first_bytes..),
            _ => None,
        }
    }

    /// Says that so many bytes of [`first_bytes`](Self::first_bytes) have left.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_of_first_bytes += bytes;
        if self.first_bytes().is_some_and(<[u8]>::is_empty) {
            self.pop();
        }
    }

    /// Takes the first parcel off.
    pub(crate) fn pop(&mut self) -> Option<Parcel> {
        let (_, parcel) = self.parcels.pop_front()?;
        self.sent_of_first_bytes = 0;
        if let Parcel::Bytes(bytes) = &parcel {
            self.held_bytes -= bytes.len();
        }
        if self.parcels.is_empty() {
            // An idle direction owns no buffer.
            self.parcels = VecDeque::new();
        }
        Some(parcel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_flight_wants_no_more_until_bytes_leave() {
        let now = Instant::now();
        let mut flight = Flight::default();
        while flight.wants_more() {
            flight.push(Parcel::Bytes(vec![7; 16 * 1024]), now, Duration::ZERO);
        }
        assert_eq!(flight.held_bytes, IN_FLIGHT_MAX_BYTES);
        flight.sent(16 * 1024 - 1);
        assert!(!flight.wants_more());
        flight.sent(1);
        assert!(flight.wants_more());

        let mut crumbs = Flight::default();
        while crumbs.wants_more() {
            crumbs.push(Parcel::Bytes(vec![7]), now, Duration::ZERO);
        }
        assert_eq!(crumbs.parcels.len(), IN_FLIGHT_MAX_CHUNKS);
    }

    #[test]
    fn after_the_end_nothing_is_wanted() {
        for end in [Parcel::Fin, Parcel::Abort] {
            let mut flight = Flight::default();
            flight.push(end, Instant::now(), Duration::ZERO);
            assert!(!flight.wants_more());
            assert_eq!(flight.first_bytes(), None);
            flight.pop();
            assert!(!flight.wants_more());
        }
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_however_late_each_is(
            chunks in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..50), 0u64..100), 0..60),
            step in 1usize..20,
        ) {
            let start = Instant::now();
            let mut flight = Flight::default();
            let mut expected = Vec::new();
            for (at, (bytes, late_ms)) in chunks.iter().enumerate() {
                expected.extend_from_slice(bytes);
                let now = start + Duration::from_millis(at as u64);
                flight.push(Parcel::Bytes(bytes.clone()), now, Duration::from_millis(*late_ms));
            }
            let (mut arrived, mut last_due) = (Vec::new(), start);
            while let Some(due) = flight.next_due() {
                prop_assert!(due >= last_due);
                last_due = due;
                let bytes = flight.first_bytes().unwrap();
                let part = &bytes[..step.min(bytes.len())];
                arrived.extend_from_slice(part);
                let part_bytes = part.len();
                flight.sent(part_bytes);
            }
            prop_assert_eq!(arrived, expected);
            prop_assert_eq!(flight.held_bytes, 0);
        }
    }
}
