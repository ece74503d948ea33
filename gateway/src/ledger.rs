//! What connections cost in this process's memory, part by part.
//!
//! Counted when somebody asks, never on the road of a message.

use std::ops::AddAssign;

use mio::net::TcpStream;
use serde::Serialize;
use socket2::SockRef;

use crate::{channel::Identity, connection::Connection, connections::Connections};

/// Bytes held for one connection, or for many. What the kernel holds for a socket (some
/// 4 KB, and what is in its buffers) comes on top; entries that several windows share are
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    /// Its place in the slab; while it is awake socket, decoder and channel.
    pub(crate) channel: usize,
    /// Its entry in the timing wheel.
    pub(crate) timer: usize,
    /// While it is awake: names of user and device, and the session.
    pub(crate) session: usize,
    /// While it sleeps: the cell in which all that it is lies packed.
    pub(crate) sleeper: usize,
    /// Keys of an encrypted TCP connection.
    pub(crate) sealing: usize,
    /// A frame that is not whole yet.
    pub(crate) buffers: usize,
    /// Over UDP, while it is awake: the session's state and what it has under way.
    pub(crate) datagrams: usize,
    /// Output that the client has not taken.
    pub(crate) queue: usize,
    /// The window of unacked pushes.
    pub(crate) window: usize,
    /// The table of pending requests and pulls.
    pub(crate) requests: usize,
}

/// What some of a loop's connections cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) ledger: Ledger,
    pub(crate) asleep: usize,
}

/// What the kernel may hold for a stream's socket at most, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct SocketBuffers {
    receive_max_bytes: usize,
    send_max_bytes: usize,
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
            channel: Connections::SLOT_BYTES + size_of::<Connection>(),
            timer: TIMER_BYTES,
            session: channel.identity.as_ref().map_or(0, |identity| {
                size_of::<Identity>()
                    + 2 * ARC_BYTES
                    + identity.user.as_str().len()
                    + identity.device.as_str().len()
            }),
            sleeper: 0,
            sealing: connection.transport.sealing_bytes(),
            buffers: connection.transport.partial_frame_bytes(),
            datagrams: connection.transport.datagram_bytes(),
            queue: channel.output.as_ref().map_or(0, |o| o.heap_bytes()),
            window: channel.pushes.as_ref().map_or(0, |w| w.heap_bytes()),
            requests: channel.requests.as_ref().map_or(0, |r| r.heap_bytes()),
        }
    }

    /// Of one that sleeps, packed in so many bytes.
    pub(crate) fn asleep(packed_bytes: usize) -> Self {
        Self {
            channel: Connections::SLOT_BYTES,
            timer: TIMER_BYTES,
            sleeper: packed_bytes,
            ..Self::default()
        }
    }

    /// By name, as metrics have them.
    pub(crate) fn parts(&self) -> [(&'static str, usize); 10] {
        [
            ("channel", self.channel),
            ("timer", self.timer),
            ("session", self.session),
            ("sleeper", self.sleeper),
            ("sealing", self.sealing),
            ("buffers", self.buffers),
            ("datagrams", self.datagrams),
            ("queue", self.queue),
            ("window", self.window),
            ("requests", self.requests),
        ]
    }

    pub(crate) fn total(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.channel += other.channel;
        self.timer += other.timer;
        self.session += other.session;
        self.sleeper += other.sleeper;
        self.sealing += other.sealing;
        self.buffers += other.buffers;
        self.datagrams += other.datagrams;
        self.queue += other.queue;
        self.window += other.window;
        self.requests += other.requests;
    }
}

// === impl SocketBuffers ===

impl SocketBuffers {
    /// Two system calls; `None` for a socket that has failed.
    pub(crate) fn of(socket: &TcpStream) -> Option<Self> {
        let socket = SockRef::from(socket);
        Some(Self {
            receive_max_bytes: socket.recv_buffer_size().ok()?,
            send_max_bytes: socket.send_buffer_size().ok()?,
        })
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

    #[test]
    fn the_total_has_every_part_once() {
        let mut sum = Ledger::asleep(100);
        sum += Ledger {
            channel: 1,
            timer: 2,
            session: 3,
            sleeper: 4,
            sealing: 5,
            buffers: 6,
            datagrams: 7,
            queue: 8,
            window: 9,
            requests: 10,
        };
        assert_eq!(sum.total(), Ledger::asleep(100).total() + 55);
        let told = serde_json::to_value(sum).unwrap();
        let told = told.as_object().unwrap();
        assert_eq!(told.len(), sum.parts().len());
        for (name, bytes) in sum.parts() {
            assert_eq!(told[name], bytes, "{name}");
        }
    }
}
