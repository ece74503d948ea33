//! When a session gets a fresh address ticket.
//!
//! The Welcome brings the first. It is bound to the client's IP address and holds for
//! a day. So there is another one when the client has shown to be at another
//! address, and every half day, told by the wall clock and the session's name, so
//! that nothing need be remembered and not all sessions get theirs at once.

use sluice_codec::datagram::{ConnectionId, TICKET_LIFETIME_MS};

const RENEWED_MS: u64 = TICKET_LIFETIME_MS / 2;

/// Whether a session gets a fresh ticket with the packet that comes now, after
/// one at `before_unix_ms`.
pub(crate) fn is_due(id: ConnectionId, before_unix_ms: u64, now_unix_ms: u64) -> bool {
    let [.., high, low] = *id.as_bytes();
    let shift_ms = RENEWED_MS / 65_536 * u64::from(u16::from_be_bytes([high, low]));
    (before_unix_ms + shift_ms) / RENEWED_MS < (now_unix_ms + shift_ms) / RENEWED_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_lives_has_a_ticket_that_holds() {
        for low in 0..=255 {
            let id = ConnectionId::from_bytes([0, 1, 2, 3, 4, 5, low, low]);
            let began_ms = 1_790_000_000_000;
            let (mut before_ms, mut given_ms) = (began_ms, began_ms);
            let mut given = 0;
            while before_ms < began_ms + 10 * TICKET_LIFETIME_MS {
                let now_ms = before_ms + 45_000;
                if is_due(id, before_ms, now_ms) {
                    given += 1;
                    given_ms = now_ms;
                }
                assert!(now_ms - given_ms < TICKET_LIFETIME_MS * 3 / 4);
                before_ms = now_ms;
            }
            assert!((20..=21).contains(&given), "{given}");
        }
    }
}
