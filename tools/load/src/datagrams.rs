//! Datagram sessions of an engine's clients: one socket, an address of 127.0.0.0/8
//! each, so that no session is an open file. What the engine writes and reads are
//! length-framed packets as on TCP; here they become the session's messages.
//!
//! Without pins there is no session: a frame is a datagram, as the bare server echoes
//! it, and what is lost is lost.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use sluice_codec::datagram::{Channel, ClientConnection, Config, SendError, ServerPins};
use sluice_timer::{TimerHandle, Wheel};

use crate::{
    LoadError, LoadTransport,
    carrier::Ready,
    clock::{Alarm, MS_NS, now_ns},
};

/// All sessions.
pub(crate) struct Datagrams {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    /// Clients take them in turn.
    addresses: Vec<SocketAddr>,
    /// Of the servers, which share their keys; none: there are no sessions.
    pins: Option<ServerPins>,
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    members: Vec<Member>,
    /// Those that may speak and haven't been told.
    fresh: Vec<usize>,
    config: Arc<Config>,
    wheel: Wheel<u64>,
    expired: Vec<u64>,
    slots: Box<[u8]>,
    datagram: Vec<u8>,
}

#[derive(Default)]
struct Member {
    connection: Option<ClientConnection>,
    timer: Option<TimerHandle>,
    came: Vec<u8>,
    out: Vec<u8>,
    is_ready: bool,
}

/// 127.1.0.1 and on: apart from what else listens on this machine.
const FIRST_ADDRESS: u32 = 0x7f01_0001;
const SOCKET: Token = Token(0);
const ALARM: Token = Token(1);
/// Of one `recvmmsg` slot: a run of datagrams that the kernel has joined (GRO).
const SLOT_BYTES: usize = 64 * 1024;
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const WAIT_MAX_NS: u64 = 50 * MS_NS;
const TICK_MS: u64 = 1;

// === impl Datagrams ===

impl Datagrams {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        pins: Option<ServerPins>,
        clients: usize,
    ) -> io::Result<Self> {
        if addresses.is_empty() {
            return Err(io::Error::other("nowhere to connect to"));
        }
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let mut socket = mio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let sizes = socket2::SockRef::from(&socket);
        // What the kernel doesn't give is lost in bursts only.
        let _ = sizes.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = sizes.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let registry = poll.registry();
        registry.register(&mut socket, SOCKET, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(8),
            alarm,
            addresses,
            pins,
            socket,
            state,
            members: (0..clients).map(|_| Member::default()).collect(),
            fresh: Vec::new(),
            config: Arc::new(Config::default()),
            wheel: Wheel::new(TICK_MS, clients + 1, now_ns() / MS_NS),
            expired: Vec::new(),
            slots: vec![0; SLOT_BYTES * BATCH_SIZE].into_boxed_slice(),
            datagram: Vec::new(),
        })
    }

    pub(crate) fn connect(&mut self, client: usize) {
        let connection = self.pins.clone().map(|pins| {
            let (id, secret) = (rand::random(), rand::random());
            let config = Arc::clone(&self.config);
            ClientConnection::connect(now_us(), pins, None, id, secret, config)
        });
        self.members[client].connection = connection;
        self.fresh.push(client);
    }

    pub(crate) fn cut(&mut self, client: usize) {
        let member = std::mem::take(&mut self.members[client]);
        if let Some(timer) = member.timer {
            self.wheel.cancel(timer);
        }
    }

    pub(crate) fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        for client in self.fresh.drain(..) {
            ready.push(Ready {
                client,
                connected: true,
                readable: false,
                writable: false,
            });
        }
        let due_ns = self.wheel.next_deadline_ms().map(|ms| ms * MS_NS);
        let until_ns = match (until_ns, due_ns) {
            (0, due_ns) => due_ns.unwrap_or(0),
            (until_ns, due_ns) => due_ns.map_or(until_ns, |due_ns| due_ns.min(until_ns)),
        };
        let mut wait = Duration::from_nanos(WAIT_MAX_NS);
        if !ready.is_empty() || (until_ns > 0 && until_ns <= now_ns()) {
            wait = Duration::ZERO;
        } else if until_ns > 0 {
            self.alarm.set(until_ns)?;
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.events.iter().any(|event| event.token() == SOCKET) {
            self.receive(ready)?;
        }
        let now_us = now_us();
        self.wheel.advance(now_us / 1_000, &mut self.expired);
        for index in self.expired.drain(..) {
            let member = &mut self.members[index as usize];
            member.timer = None;
            if let Some(connection) = &mut member.connection {
                connection.on_timeout(now_us);
            }
            mark(&mut self.members, index as usize, ready);
        }
        for it in ready {
            self.members[it.client].is_ready = false;
        }
        Ok(())
    }

    pub(crate) fn out(&mut self, client: usize) -> &mut Vec<u8> {
        &mut self.members[client].out
    }

    pub(crate) fn read(
        &mut self,
        client: usize,
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, LoadError>,
    ) -> Result<(), LoadError> {
        let member = &mut self.members[client];
        if !member.came.is_empty() {
            let used = take(&member.came, &mut member.out)?;
            member.came.drain(..used);
        }
        let ended = |it: &ClientConnection| it.end().is_some() || it.failure().is_some();
        match member.connection.as_ref().is_some_and(ended) {
            true => Err(LoadError::Closed),
            false => Ok(()),
        }
    }

    /// Hands what a client has to say to its session, and sends what is due. Called for
    /// everyone of whom something was told, so that acknowledgements go out, too.
    pub(crate) fn write(&mut self, client: usize) -> Result<(), LoadError> {
        let now_us = now_us();
        let address = self.addresses[client % self.addresses.len()];
        let member = &mut self.members[client];
        let mut said = 0;
        while let Some(frame) = LoadTransport::Udp.first_frame(&member.out[said..])? {
            let payload = &member.out[said..][frame.payload.clone()];
            match &mut member.connection {
                None => self.datagram.extend_from_slice(payload),
                Some(connection) => {
                    let payload = Bytes::copy_from_slice(payload);
                    match connection.send(now_us, Channel::CONTROL, payload) {
                        Ok(()) => {}
                        // When something is acknowledged, its timer or a datagram tells.
                        Err(SendError::Full) => break,
                        Err(error) => return Err(LoadError::Unexpected(error.to_string())),
                    }
                }
            }
            said += frame.payload.end;
            if member.connection.is_none() {
                send(&self.socket, &self.state, address, client, &self.datagram)?;
                self.datagram.clear();
            }
        }
        member.out.drain(..said);
        let Some(connection) = &mut member.connection else {
            return Ok(());
        };
        while connection.transmit(now_us, &mut self.datagram).is_some() {
            let datagram = &self.datagram;
            send(&self.socket, &self.state, address, client, datagram)?;
            self.datagram.clear();
        }
        let Some(due_us) = connection.timeout() else {
            return Ok(());
        };
        let due_ms = due_us.div_ceil(1_000).max(now_us / 1_000 + 1);
        if member
            .timer
            .is_none_or(|timer| !self.wheel.rearm(timer, due_ms))
        {
            let timer = self.wheel.schedule(due_ms, client as u64);
            member.timer = Some(timer.map_err(|error| LoadError::Unexpected(error.to_string()))?);
        }
        Ok(())
    }

    fn receive(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let mut slots = self.slots.chunks_mut(SLOT_BYTES);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            let socket = UdpSockRef::from(&self.socket);
            let count = match self.state.recv(socket, &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now_us = now_us();
            for (slot, meta) in self.slots.chunks_mut(SLOT_BYTES).zip(&metas).take(count) {
                let Some(client) = client_at(meta.dst_ip, self.members.len()) else {
                    continue;
                };
                let received = slot.get_mut(..meta.len).unwrap_or_default();
                for datagram in received.chunks_mut(meta.stride.max(1)) {
                    self.members[client].take(datagram, now_us);
                }
                mark(&mut self.members, client, ready);
            }
        }
    }
}

// === impl Member ===

impl Member {
    fn take(&mut self, datagram: &mut [u8], now_us: u64) {
        let came = &mut self.came;
        let mut keep = |message: &[u8]| {
            LoadTransport::Udp.frame(came, |out| out.extend_from_slice(message));
        };
        match &mut self.connection {
            None => keep(datagram),
            Some(connection) => {
                let mut sink = |_, message: &[u8]| {
                    keep(message);
                    true
                };
                // What is not the server's is dropped.
                let _ = connection.receive(now_us, datagram, &mut sink);
            }
        }
    }
}

/// Tells of a client, once a turn.
fn mark(members: &mut [Member], client: usize, ready: &mut Vec<Ready>) {
    if !std::mem::replace(&mut members[client].is_ready, true) {
        ready.push(Ready {
            client,
            connected: false,
            readable: true,
            writable: false,
        });
    }
}

fn send(
    socket: &mio::net::UdpSocket,
    state: &UdpSocketState,
    address: SocketAddr,
    client: usize,
    datagram: &[u8],
) -> io::Result<()> {
    let source = Ipv4Addr::from_bits(FIRST_ADDRESS + client as u32);
    let transmit = Transmit {
        destination: address,
        ecn: None,
        contents: datagram,
        segment_size: None,
        src_ip: Some(source.into()),
    };
    match state.try_send(UdpSockRef::from(socket), &transmit) {
        // A full buffer is a loss, which a session makes good.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

fn client_at(address: Option<IpAddr>, clients: usize) -> Option<usize> {
    let Some(IpAddr::V4(address)) = address else {
        return None;
    };
    let client = address.to_bits().checked_sub(FIRST_ADDRESS)? as usize;
    (client < clients).then_some(client)
}

fn now_us() -> u64 {
    now_ns() / 1_000
}
