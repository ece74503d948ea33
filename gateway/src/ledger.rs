//! What one connection costs in this process's memory, part by part.

use serde::Serialize;

use crate::{channel::Identity, connection::Connection, connections::Connections};

/// Bytes held for one connection. What the kernel holds for its socket (some
/// 4 KB) comes on top; entries that several windows share are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    /// Its place in the slab, and its timer; while it is awake socket, decoder, channel.
    pub(crate) slot: usize,
    /// Names of user and device, and the session; while it is asleep all that it is.
    pub(crate) session: usize,
    /// Keys of an encrypted TCP connection.
    pub(crate) sealing: usize,
    /// A frame that is not whole yet; over UDP the session.
    pub(crate) partial_frame: usize,
    /// Output that the client has not taken.
    pub(crate) output: usize,
    /// The window of unacked pushes.
    pub(crate) pushes: usize,
    /// The table of pending requests and pulls.
    pub(crate) requests: usize,
}

/// `Arc<str>`: two counters before the text.
const ARC_BYTES: usize = 2 * size_of::<usize>();
/// An entry of the timing wheel (`sluice-timer`, measured).
const TIMER_BYTES: usize = 24;

// === impl Ledger ===

impl Ledger {
    pub(crate) fn of(connection: &Connection) -> Self {
        let channel = &connection.channel;
        Self {
            slot: Connections::SLOT_BYTES + size_of::<Connection>() + TIMER_BYTES,
            session: channel.identity.as_ref().map_or(0, |identity| {
                size_of::<Identity>()
                    + 2 * ARC_BYTES
                    + identity.user.as_str().len()
                    + identity.device.as_str().len()
            }),
            sealing: connection.transport.sealing_bytes(),
            partial_frame: connection.transport.held_bytes(),
            output: channel.output.as_ref().map_or(0, |o| o.heap_bytes()),
            pushes: channel.pushes.as_ref().map_or(0, |w| w.heap_bytes()),
            requests: channel.requests.as_ref().map_or(0, |r| r.heap_bytes()),
        }
    }

    /// Of one that sleeps, packed in so many bytes.
    pub(crate) fn asleep(packed_bytes: usize) -> Self {
        Self {
            slot: Connections::SLOT_BYTES + TIMER_BYTES,
            session: packed_bytes,
            ..Self::default()
        }
    }

    pub(crate) fn total(&self) -> usize {
        let unwritten = self.output + self.pushes + self.requests;
        self.slot + self.session + self.sealing + self.partial_frame + unwritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_channel_stays_small() {
        let slot = Connections::SLOT_BYTES + size_of::<Connection>();
        assert!(slot <= 384, "a slot has {slot} bytes");
        let session = size_of::<Identity>() + 2 * ARC_BYTES + 2 * 16;
        assert!(session <= 192, "a session has {session} bytes");
    }
}
