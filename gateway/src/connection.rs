//! A connection: transport and channel. Reading and writing, one turn at
//! a time.

use std::{
    io::{self, Read},
    net::SocketAddr,
    sync::Arc,
};

use mio::net::TcpStream;
use sluice_codec::{
    Decoder, Frame, FrameError, Framing, Input,
    datagram::{self, AddressTicket, End, SessionHeader},
    decode_packet, websocket,
};
use sluice_protocol::packet::CloseReason;

use crate::{
    channel::Channel,
    config::TcpEncryption,
    context::ChannelContext,
    datagram::{DatagramLink, ticket},
    farewell::Farewell,
    handlers::Admission,
    pipeline::{Flow, Pipeline},
    slab::ChannelKey,
    transport::{Transport, TransportKind},
    workbench::Workbench,
};

/// What a loop keeps in a slot of its slab.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) channel: Channel,
    /// It was reached for in this turn ([`crate::connections`]).
    pub(crate) is_touched: bool,
    /// When its client was heard last after its login, as of the turns that are over.
    heard_before_ms: Option<u64>,
    /// Its client was heard twice in a short time.
    is_heard_often: bool,
}

/// A stream that is heard more often than this stays awake in between, and sleeps so
/// long after it was heard last: waking costs allocations, which a ping-pong or a chat
/// should not pay for at each packet. A session over UDP has acknowledgements under
/// way for about as long.
const LINGER_MS: u64 = 1_000;

// === impl Connection ===

impl Connection {
    pub(crate) fn new(transport: Transport, channel: Channel) -> Self {
        Self {
            transport,
            channel,
            is_touched: false,
            heard_before_ms: None,
            is_heard_often: false,
        }
    }

    /// Appends all that the connection is but its key and its socket, and answers
    /// true; appends nothing and answers false if something is under way.
    pub(crate) fn pack(&self, now_ms: u64, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        self.transport.kind(self.channel.framing).pack(out);
        let is_packed = self.channel.pack(now_ms, out)
            && match &self.transport {
                Transport::Stream { decoder, .. } => decoder.pack(out),
                Transport::Datagram(link) => link.pack(out),
            };
        if !is_packed {
            out.truncate(start);
        }
        is_packed
    }

    /// What was packed; a stream takes its socket.
    pub(crate) fn unpack(
        key: ChannelKey,
        mut packed: &[u8],
        socket: &mut Option<TcpStream>,
        config: &Arc<datagram::Config>,
    ) -> Option<Self> {
        let kind = TransportKind::unpack(&mut packed)?;
        let channel = Channel::unpack(key, kind.framing(), &mut packed)?;
        let transport = if kind == TransportKind::Datagram {
            let link = DatagramLink::unpack(&mut packed, Arc::clone(config))?;
            Transport::Datagram(Box::new(link))
        } else {
            let decoder = Decoder::unpack(&mut packed)?;
            let socket = socket.take()?;
            Transport::Stream { socket, decoder }
        };
        let heard_before_ms = Some(channel.last_inbound_ms);
        Some(Self {
            heard_before_ms,
            ..Self::new(transport, channel)
        })
    }

    /// What it goes by, of what was packed.
    pub(crate) fn unpack_kind(mut packed: &[u8]) -> Option<TransportKind> {
        TransportKind::unpack(&mut packed)
    }

    /// The channel alone of what was packed.
    pub(crate) fn unpack_channel(key: ChannelKey, mut packed: &[u8]) -> Option<Channel> {
        let kind = TransportKind::unpack(&mut packed)?;
        Channel::unpack(key, kind.framing(), &mut packed)
    }

    /// The same without who it is.
    pub(crate) fn unpack_unnamed(key: ChannelKey, mut packed: &[u8]) -> Option<Channel> {
        let kind = TransportKind::unpack(&mut packed)?;
        Channel::unpack_unnamed(key, kind.framing(), &mut packed)
    }

    /// Its socket, which is all that it has beside what [`Connection::pack`] appends.
    pub(crate) fn into_socket(self) -> Option<TcpStream> {
        match self.transport {
            Transport::Stream { socket, .. } => Some(socket),
            Transport::Datagram(_) => None,
        }
    }

    /// Until when it stays awake because its client is heard often; to be asked when
    /// a turn is over.
    pub(crate) fn lingers_until_ms(&mut self, now_ms: u64) -> Option<u64> {
        let heard_ms = self.channel.last_inbound_ms;
        if heard_ms == now_ms && self.channel.is_open() {
            // Its coming and its login are no talk.
            let before_ms = self.heard_before_ms.replace(now_ms);
            self.is_heard_often = before_ms.is_some_and(|at| now_ms.saturating_sub(at) < LINGER_MS);
        }
        let until_ms = heard_ms.saturating_add(LINGER_MS);
        let is_stream = matches!(self.transport, Transport::Stream { .. });
        (is_stream && self.is_heard_often && now_ms < until_ms).then_some(until_ms)
    }

    /// The timer has fired.
    pub(crate) fn on_timer(&mut self, bench: &mut Workbench) {
        self.channel.on_timer(bench);
        if let Transport::Datagram(link) = &mut self.transport
            && !self.channel.flags.gone
        {
            if link.timeout_ms().is_some_and(|at| at <= bench.now.mono_ms) {
                link.on_timeout(bench.now.mono_us);
                self.channel.mark_dirty(bench);
            }
            self.heed_link(bench);
        }
    }

    /// Takes a datagram whose connection id is this one's. True if its client should
    /// get a fresh ticket, by [`Connection::give_ticket`].
    pub(crate) fn take_datagram(
        &mut self,
        bench: &mut Workbench,
        pipeline: &Pipeline,
        from: SocketAddr,
        header: &SessionHeader,
        datagram: &mut [u8],
    ) -> bool {
        let Self {
            transport, channel, ..
        } = self;
        let Transport::Datagram(link) = transport else {
            return false;
        };
        bench.traces.note_read();
        let (now, bytes) = (bench.now, datagram.len() as u64);
        let packet_max_bytes = link.packet_max_bytes();
        let opened = link.receive(now.mono_us, from, header, datagram, |packet| {
            take_packet(channel, bench, pipeline, packet, packet_max_bytes)
        });
        channel.mark_dirty(bench);
        let Some(is_proven) = opened else {
            bench.metrics.datagrams_useless.increment(1);
            return false;
        };
        let quiet_ms = now.mono_ms.saturating_sub(channel.last_inbound_ms);
        channel.read_bytes += bytes;
        channel.last_inbound_ms = now.mono_ms;
        let before_ms = now.unix_ms.saturating_sub(quiet_ms);
        let has_moved = is_proven && channel.settle_at(bench, link.address());
        has_moved || ticket::is_due(link.id(), before_ms, now.unix_ms)
    }

    /// Sends what spares the client the cookie when it connects again from here.
    pub(crate) fn give_ticket(&mut self, bench: &Workbench, ticket: &AddressTicket) {
        if let Transport::Datagram(link) = &mut self.transport {
            link.send_token(bench.now.mono_us, ticket.as_bytes());
        }
    }

    /// Ends with the session, and sees to it in time.
    fn heed_link(&mut self, bench: &mut Workbench) {
        let Self {
            transport, channel, ..
        } = self;
        let Transport::Datagram(link) = transport else {
            return;
        };
        if let Some(end) = link.end() {
            let why = match end {
                End::Closed(_) => "closed",
                End::ClosedByPeer(_) => "peer_closed",
                End::Violated(violation) => violation.label(),
                End::Silent => "silent",
                End::Forgotten => "forgotten",
                End::Forged => "forged",
                End::Exhausted => "exhausted",
            };
            channel.abandon(bench, why);
        } else if let Some(at_ms) = link.timeout_ms() {
            channel.arm(bench, at_ms.max(bench.now.mono_ms + 1));
        }
    }

    /// Reads once, at most a scratch full, and works off what came. A socket
    /// that may hold more goes on the ready list, behind the others.
    pub(crate) fn read_turn(
        &mut self,
        bench: &mut Workbench,
        pipeline: &Pipeline,
        scratch: &mut [u8],
    ) {
        let channel = &mut self.channel;
        let socket = match &mut self.transport {
            Transport::Stream { socket, .. } => socket,
            Transport::Datagram(link) => {
                // What it held back while the output was full.
                let packet_max_bytes = link.packet_max_bytes();
                link.drain(|packet| {
                    take_packet(channel, bench, pipeline, packet, packet_max_bytes)
                });
                return channel.mark_dirty(bench);
            }
        };
        // A paused channel is read again once its output has shrunk; a closing
        // one is read on, into the void, so that the peer gets our last words
        // and not a reset.
        if !channel.flags.readable || channel.flags.gone || is_held_back(channel) {
            return;
        }
        let read = match socket.read(scratch) {
            Ok(0) => return channel.abandon(bench, "peer_closed"),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                channel.flags.readable = false;
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return channel.mark_ready(bench);
            }
            Err(_) => return channel.abandon(bench, "socket_error"),
        };
        bench.traces.note_read();
        channel.read_bytes += read as u64;
        channel.last_inbound_ms = bench.now.mono_ms;
        bench.metrics.bytes_in.increment(read as u64);
        // A short read has emptied the socket (epoll(7)), unless the end of the
        // stream is behind it: that edge has been and gone.
        channel.flags.readable = read == scratch.len() || channel.flags.read_closed;
        self.take_in(bench, pipeline, scratch.get_mut(..read).unwrap_or_default());
        if self.channel.flags.readable && !is_held_back(&self.channel) {
            self.channel.mark_ready(bench);
        }
    }

    /// Decodes and handles all frames in these bytes.
    fn take_in(&mut self, bench: &mut Workbench, pipeline: &Pipeline, bytes: &mut [u8]) {
        let Self {
            transport, channel, ..
        } = self;
        let Transport::Stream { decoder, .. } = transport else {
            return;
        };
        if channel.is_closing() {
            return;
        }
        let mut input = Input::new(bytes);
        loop {
            let is_sealed = decoder.is_sealed();
            match decoder.decode(&mut input) {
                Ok(Some(Frame::Packet(payload)))
                    if !is_sealed && must_be_sealed(channel, bench) =>
                {
                    channel.close(bench, Farewell::encryption_required(payload));
                }
                Ok(Some(frame)) => {
                    // What follows is another frame, with a deadline of its own.
                    // A ping between fragments ends nothing.
                    if matches!(frame, Frame::Packet(_) | Frame::Handshake(_)) {
                        channel.frame_began_ms = 0;
                    }
                    handle_frame(channel, bench, pipeline, frame);
                }
                Ok(None) => break,
                Err(error) => channel.close(bench, Farewell::broken_frame(error)),
            }
            if channel.is_closing() {
                return;
            }
        }
        note_partial_frame(channel, bench, decoder.is_mid_frame());
    }

    /// Writes what the socket takes.
    pub(crate) fn write_turn(&mut self, bench: &mut Workbench) {
        let channel = &mut self.channel;
        let (socket, sealer) = match &mut self.transport {
            Transport::Stream { socket, decoder } => (socket, decoder.sealer()),
            Transport::Datagram(_) => return self.write_datagrams(bench),
        };
        if channel.flags.gone || channel.flags.write_blocked {
            return;
        }
        if let Some(output) = &mut channel.output {
            let written = match sealer {
                None => output.write_to(socket, &mut bench.pool),
                Some(sealer) => output.write_sealed_to(sealer, socket, &mut bench.pool),
            };
            let written = match written {
                Ok(written) => written,
                Err(_) => return channel.abandon(bench, "socket_error"),
            };
            channel.flags.write_blocked = written.blocked;
            channel.written_bytes += written.bytes as u64;
            bench.traces.written(channel.key, channel.written_bytes);
            bench.metrics.bytes_out.increment(written.wire_bytes as u64);
            if output.bytes() == 0
                && let Some(output) = channel.output.take()
            {
                bench.pool.give(output);
            }
            channel.after_write(bench, written.wire_bytes > 0);
        }
        if channel.is_closing() && channel.output.is_none() && !channel.flags.shut {
            channel.flags.shut = true;
            // The peer may be gone already; the timer takes care of the rest.
            let _ = socket.shutdown(std::net::Shutdown::Write);
            channel.flags.readable = true;
            channel.mark_ready(bench);
        }
    }

    fn write_datagrams(&mut self, bench: &mut Workbench) {
        let Self {
            transport, channel, ..
        } = self;
        let Transport::Datagram(link) = transport else {
            return;
        };
        if channel.flags.gone {
            // A last word to a peer that broke the rules, or none.
            link.write(channel, bench);
            return;
        }
        if link.write(channel, bench) {
            channel.after_write(bench, true);
        }
        let untaken = channel.output_bytes() + link.waiting_bytes();
        let taken = channel.appended_bytes.saturating_sub(untaken as u64);
        bench.traces.written(channel.key, taken);
        if channel.is_closing() && channel.output.is_none() && link.is_written() {
            link.close(bench.now.mono_us, CloseReason::Unspecified as u16);
            link.write(channel, bench);
            return channel.abandon(bench, "closed");
        }
        self.heed_link(bench);
    }
}

/// Works on a packet that came whole. False: not now, the channel's own output
/// stands too high.
fn take_packet(
    channel: &mut Channel,
    bench: &mut Workbench,
    pipeline: &Pipeline,
    packet: &[u8],
    packet_max_bytes: usize,
) -> bool {
    if is_held_back(channel) {
        return false;
    }
    if channel.is_closing() {
        return true;
    }
    if packet.len() > packet_max_bytes {
        let error = FrameError::TooLarge {
            bytes: packet.len() as u64,
            // Frames are capped far below 4 GiB.
            max_bytes: packet_max_bytes as u32,
        };
        channel.close(bench, Farewell::broken_frame(error));
    } else {
        handle_packet(channel, bench, pipeline, packet);
    }
    true
}

/// Whether plain TCP is refused here.
fn must_be_sealed(channel: &Channel, bench: &Workbench) -> bool {
    channel.framing == Framing::Tcp && bench.shared.config.tcp_encryption == TcpEncryption::Required
}

fn is_held_back(channel: &Channel) -> bool {
    channel.flags.paused && !channel.is_closing()
}

fn handle_frame(
    channel: &mut Channel,
    bench: &mut Workbench,
    pipeline: &Pipeline,
    frame: Frame<'_>,
) {
    match frame {
        Frame::Packet(payload) => handle_packet(channel, bench, pipeline, payload),
        Frame::Handshake(answer) if channel.framing == Framing::Tcp => {
            bench.metrics.streams_sealed.increment(1);
            channel.send_opening(bench, &answer);
        }
        Frame::Handshake(answer) => {
            channel.flags.established = true;
            channel.send_raw(bench, |out| out.extend_from_slice(&answer));
        }
        Frame::Ping(payload) => {
            if admit_control_frame(channel, bench) {
                channel.send_raw(bench, |out| websocket::append_pong(payload, out));
            }
        }
        Frame::Pong => {
            admit_control_frame(channel, bench);
        }
        // The close frame is answered as part of the farewell.
        Frame::Close(_) => channel.close(bench, Farewell::silent()),
    }
}

/// Control frames cost what packets cost, before login too: they are as much work.
fn admit_control_frame(channel: &mut Channel, bench: &mut Workbench) -> bool {
    let admission = channel.admit(bench, 1);
    if admission == Admission::Exhausted {
        channel.close(bench, CloseReason::RateLimited.into());
    }
    admission == Admission::Taken
}

fn handle_packet(
    channel: &mut Channel,
    bench: &mut Workbench,
    pipeline: &Pipeline,
    payload: &[u8],
) {
    bench.metrics.packets_in.increment(1);
    let packet = match decode_packet(payload) {
        Ok(packet) => packet,
        Err(error) => return channel.close(bench, Farewell::broken_frame(error)),
    };
    if bench.traces.is_on() {
        let from = bench.connection_id(channel.key);
        bench.traces.note_packet(channel, from, &packet);
    }
    let mut context = ChannelContext {
        channel,
        bench,
        raw: payload,
    };
    match pipeline.inbound(&mut context, packet) {
        Flow::Close(farewell) => channel.close(bench, farewell),
        Flow::Done | Flow::Next(_) => {}
    }
    bench.traces.end_packet();
}

/// A frame may not stay open for ever: its deadline starts with the read that
/// brought its first byte and is not put off by the next.
fn note_partial_frame(channel: &mut Channel, bench: &mut Workbench, mid_frame: bool) {
    if !mid_frame {
        channel.frame_began_ms = 0;
    } else if channel.frame_began_ms == 0 {
        // At time 0 the gateway wasn't up yet, so 0 can mean "none".
        channel.frame_began_ms = bench.now.mono_ms.max(1);
        let due_ms = channel.frame_began_ms + bench.shared.config.timeouts.frame_ms;
        channel.arm(bench, due_ms);
    }
}
