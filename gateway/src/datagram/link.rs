//! A channel's datagram session: packets from the output into the session,
//! datagrams into the loop's [`Outgoing`], and back.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use sluice_codec::{
    Framing,
    datagram::{
        self, Accepted, Channel as DatagramChannel, ConnectionId, End, ReceiveError, SendError,
        ServerConnection, SessionHeader,
    },
    packed::{put_number, take_narrow},
};

use super::Outgoing;
use crate::{channel::Channel, metrics::LoopMetrics, workbench::Workbench};

/// Packets lie in the output as on TCP, until the session takes them.
pub(crate) const DATAGRAM_FRAMING: Framing = Framing::Tcp;

/// What a connection over UDP has where others have a socket and a decoder.
#[derive(Debug)]
pub(crate) struct DatagramLink {
    session: ServerConnection,
    /// Largest packet that is taken.
    packet_max_bytes: usize,
    /// A packet that the session had no room for.
    waiting: Option<Bytes>,
}

// === impl DatagramLink ===

impl DatagramLink {
    pub(crate) fn new(
        accepted: Accepted,
        peer: SocketAddr,
        config: Arc<datagram::Config>,
        now_us: u64,
        packet_max_bytes: usize,
    ) -> Self {
        Self {
            session: ServerConnection::new(now_us, accepted, peer, config),
            packet_max_bytes,
            waiting: None,
        }
    }

    /// Appends all that it is, and answers true; appends nothing and answers false
    /// if something is under way. Keys are in it: whoever has it wipes it.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) -> bool {
        let Self {
            session,
            packet_max_bytes,
            waiting,
        } = self;
        let start = out.len();
        put_number(out, *packet_max_bytes as u64);
        // The keys come last, when nothing can be in their way any more.
        let is_packed = waiting.is_none() && session.pack(out);
        if !is_packed {
            out.truncate(start);
        }
        is_packed
    }

    /// Takes what [`DatagramLink::pack`] appended off the front.
    pub(crate) fn unpack(input: &mut &[u8], config: Arc<datagram::Config>) -> Option<Self> {
        Some(Self {
            packet_max_bytes: take_narrow(input)?,
            session: ServerConnection::unpack(input, config)?,
            waiting: None,
        })
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.session.connection_id()
    }

    pub(crate) fn packet_max_bytes(&self) -> usize {
        self.packet_max_bytes
    }

    pub(crate) fn set_packet_max_bytes(&mut self, packet_max_bytes: usize) {
        self.packet_max_bytes = packet_max_bytes;
    }

    /// Heap of the session, packets that others share left out.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.session.heap_bytes()
    }

    /// The Welcome once more, while the client hasn't shown that it has it.
    pub(crate) fn repeat_welcome(&self, to: SocketAddr, out: &mut Outgoing, metrics: &LoopMetrics) {
        if let Some(answer) = self.session.welcome() {
            out.append(metrics, |bytes| {
                bytes.extend_from_slice(answer);
                Some(to)
            });
        }
    }

    /// The peer's address, as of the newest packet.
    pub(crate) fn address(&self) -> SocketAddr {
        self.session.address()
    }

    /// Hands the client a token to keep.
    pub(crate) fn send_token(&mut self, now_us: u64, token: &[u8]) {
        self.session.send_token(now_us, token);
    }

    /// Opens a datagram and hands its packets to `take`, which says false when it
    /// can't take one now. Says whether the peer has just proven to be at another
    /// address; nothing if the datagram was not the peer's.
    pub(crate) fn receive(
        &mut self,
        now_us: u64,
        from: SocketAddr,
        header: &SessionHeader,
        datagram: &mut [u8],
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Option<bool> {
        let mut sink = |_: DatagramChannel, packet: &[u8]| take(packet);
        let token = rand::random();
        match (self.session).receive(now_us, header, datagram, from, token, &mut sink) {
            Ok(is_proven) => Some(is_proven),
            // That, too, was the peer's; the session has ended, and says so.
            Err(ReceiveError::Violation(_)) => Some(false),
            Err(ReceiveError::NotSealed | ReceiveError::Open(_)) => None,
        }
    }

    /// Hands on what was held back.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        self.session
            .drain(&mut |_: DatagramChannel, packet: &[u8]| take(packet));
    }

    /// Moves packets from the channel's output into the session, as far as it has
    /// room, and datagrams from there to `bench`. True if anything moved.
    pub(crate) fn write(&mut self, channel: &mut Channel, bench: &mut Workbench) -> bool {
        let now_us = bench.now.mono_us;
        let before = channel.written_bytes;
        loop {
            let packet = match self.waiting.take() {
                Some(packet) => packet,
                None => match channel
                    .output
                    .as_mut()
                    .and_then(|it| it.next_frame(&mut bench.pool))
                {
                    Some(packet) => packet,
                    None => break,
                },
            };
            let taken = self.session.send(
                now_us,
                DatagramChannel::of_server_packet(&packet),
                packet.clone(),
            );
            match taken {
                Ok(()) | Err(SendError::Closed | SendError::Empty) => {}
                Err(SendError::Full) => {
                    self.waiting = Some(packet);
                    break;
                }
                // Ephemeral ones only: frames are capped at what reliable ones may be.
                Err(SendError::TooLarge { .. }) => bench.metrics.events_dropped.increment(1),
            }
        }
        if channel.output_bytes() == 0
            && let Some(output) = channel.output.take()
        {
            bench.pool.give(output);
        }
        // Written is what the peer has: only then may a push be missing there.
        let queued = channel.output_bytes() + self.queued_bytes();
        let written = channel.appended_bytes.saturating_sub(queued as u64);
        channel.written_bytes = channel.written_bytes.max(written);
        let session = &mut self.session;
        let out = &mut bench.outgoing;
        let mut transmit = |bytes: &mut Vec<u8>| session.transmit(now_us, bytes);
        while out.append(&bench.metrics, |bytes| Some(transmit(bytes)?.address)) {}
        channel.written_bytes > before
    }

    /// True when nothing waits for the peer any more.
    pub(crate) fn is_written(&self) -> bool {
        self.queued_bytes() == 0 || self.session.end().is_some()
    }

    /// Of the packet that the session had no room for.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, Bytes::len)
    }

    fn queued_bytes(&self) -> usize {
        self.session.session().send_bytes() + self.waiting_bytes()
    }

    /// Ends the session; [`DatagramLink::write`] tells the peer.
    pub(crate) fn close(&mut self, now_us: u64, code: u16) {
        self.session.close(now_us, code, "");
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.session.end()
    }

    /// When [`DatagramLink::on_timeout`] has something to do, in the loop's ms.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        self.session.timeout().map(|at_us| at_us.div_ceil(1_000))
    }

    pub(crate) fn on_timeout(&mut self, now_us: u64) {
        self.session.on_timeout(now_us);
    }
}
