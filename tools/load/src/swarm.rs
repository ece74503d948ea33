//! The swarm: datagram sessions from many addresses, through a few sockets.
//!
//! A socket that is bound to all addresses may send from any of this machine's, and
//! 127.0.0.0/8 has 16 million. So a session is a pair of socket and source address,
//! not an open file.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use sluice_codec::{
    datagram::{Channel, ClientConnection, Config, ServerPins},
    decode_packet,
};
use sluice_protocol::packet::packet::Body;
use sluice_timer::{TimerHandle, Wheel};

use crate::{LoadError, Login};

/// How a swarm connects.
#[derive(Debug, Clone)]
pub struct SwarmOptions {
    /// Where to; on loopback.
    pub address: SocketAddr,
    /// Of the server.
    pub pins: ServerPins,
    /// Source addresses that the sessions are spread over.
    pub addresses: usize,
    /// Sessions that may be on their way to login at once.
    pub opening_max: usize,
    /// Without any progress for this long, opening has failed.
    pub patience: Duration,
}

/// Logged-in datagram sessions, held by one thread.
pub struct Swarm {
    options: SwarmOptions,
    poll: Poll,
    events: Events,
    ports: Vec<Port>,
    members: Vec<Member>,
    config: Arc<Config>,
    wheel: Wheel<u64>,
    expired: Vec<u64>,
    buffers: Box<[u8]>,
    began: Instant,
    held: usize,
    lost: usize,
}

struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

struct Member {
    connection: ClientConnection,
    timer: Option<TimerHandle>,
    is_held: bool,
    is_lost: bool,
}

/// 127.1.0.1 and on: apart from what else listens on this machine.
const FIRST_ADDRESS: u32 = 0x7f01_0001;
const ADDRESSES_MAX: usize = 1 << 20;
/// Of one `recvmmsg` slot: a run of datagrams that the kernel has joined (GRO).
const SLOT_BYTES: usize = 64 * 1024;
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const WAIT_MAX: Duration = Duration::from_millis(50);

// === impl Swarm ===

impl Swarm {
    /// Opens one session a login and returns when all are logged in. `progress` is
    /// told how many are; it returns false to stop.
    ///
    /// # Errors
    /// The first thing that goes wrong with any session.
    pub fn open(
        options: SwarmOptions,
        logins: &[Login],
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Self, LoadError> {
        let mut swarm = Self::prepare(options, logins.len())?;
        let (mut before, mut moved) = (0, Instant::now());
        while swarm.held < logins.len() {
            while swarm.members.len() < logins.len()
                && swarm.members.len() - swarm.held < swarm.options.opening_max
            {
                swarm.begin(&logins[swarm.members.len()])?;
            }
            swarm.turn()?;
            if swarm.lost > 0 {
                return Err(LoadError::Closed);
            }
            if swarm.held > before {
                (before, moved) = (swarm.held, Instant::now());
            } else if moved.elapsed() > swarm.options.patience {
                return Err(LoadError::Stalled {
                    held: swarm.held,
                    wanted: logins.len(),
                });
            }
            if !progress(swarm.held) {
                return Err(LoadError::Stopped);
            }
        }
        Ok(swarm)
    }

    /// Keeps the sessions alive for a span. Returns how many were lost; `go_on`
    /// returns false to stop early.
    ///
    /// # Errors
    /// The poll's own failure.
    pub fn hold(
        &mut self,
        span: Duration,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<usize, LoadError> {
        let until = Instant::now() + span;
        while Instant::now() < until && go_on() {
            self.turn()?;
        }
        Ok(self.lost)
    }

    /// Sessions that are held.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn prepare(mut options: SwarmOptions, count: usize) -> Result<Self, LoadError> {
        options.addresses = options.addresses.clamp(1, ADDRESSES_MAX);
        let poll = Poll::new()?;
        let mut ports = Vec::new();
        for index in 0..count.div_ceil(options.addresses) {
            let port = Port::open()?;
            let fd = port.socket.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
            ports.push(port);
        }
        Ok(Self {
            options,
            poll,
            events: Events::with_capacity(1024),
            ports,
            members: Vec::with_capacity(count),
            config: Arc::new(Config::default()),
            wheel: Wheel::new(8, count + 1, 0),
            expired: Vec::new(),
            buffers: vec![0; SLOT_BYTES * BATCH_SIZE].into_boxed_slice(),
            began: Instant::now(),
            held: 0,
            lost: 0,
        })
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn begin(&mut self, login: &Login) -> Result<(), LoadError> {
        let now_us = self.now_us();
        let pins = self.options.pins.clone();
        let config = Arc::clone(&self.config);
        let mut connection =
            ClientConnection::connect(now_us, pins, None, rand::random(), rand::random(), config);
        let sent = connection.send(now_us, Channel::CONTROL, Bytes::from(login.packet()?));
        sent.map_err(|error| LoadError::Unexpected(error.to_string()))?;
        self.members.push(Member {
            connection,
            timer: None,
            is_held: false,
            is_lost: false,
        });
        self.serve(self.members.len() - 1, now_us)
    }

    fn turn(&mut self) -> Result<(), LoadError> {
        let now_ms = self.now_us() / 1_000;
        let due_ms = self.wheel.next_deadline_ms().unwrap_or(u64::MAX);
        let wait = Duration::from_millis(due_ms.saturating_sub(now_ms)).min(WAIT_MAX);
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for port in ready {
            self.receive(port)?;
        }
        let now_us = self.now_us();
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.advance(now_us / 1_000, &mut expired);
        for index in expired.drain(..) {
            let index = index as usize;
            if let Some(member) = self.members.get_mut(index) {
                member.timer = None;
                member.connection.on_timeout(now_us);
                self.serve(index, now_us)?;
            }
        }
        self.expired = expired;
        Ok(())
    }

    fn receive(&mut self, port: usize) -> Result<(), LoadError> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let mut slots = buffers.chunks_mut(SLOT_BYTES);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            let Port { socket, state } = &self.ports[port];
            let count = match state.recv(UdpSockRef::from(socket), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let now_us = self.now_us();
            for (slot, meta) in buffers.chunks_mut(SLOT_BYTES).zip(&metas).take(count) {
                let Some(index) = self.member_of(port, meta.dst_ip) else {
                    continue;
                };
                let received = slot.get_mut(..meta.len).unwrap_or_default();
                for datagram in received.chunks_mut(meta.stride.max(1)) {
                    self.take(index, datagram, now_us)?;
                }
                self.serve(index, now_us)?;
            }
        }
        self.buffers = buffers;
        Ok(())
    }

    fn take(&mut self, index: usize, datagram: &mut [u8], now_us: u64) -> Result<(), LoadError> {
        let member = &mut self.members[index];
        let mut refused = None;
        let mut logged_in = false;
        let mut sink = |_, message: &[u8]| {
            match decode_packet(message).map(|packet| packet.body) {
                Ok(Some(Body::ConnectAck(_))) => logged_in = true,
                Ok(Some(Body::Error(error))) => {
                    let code = error.code().as_str_name();
                    let reason = error.reason;
                    refused = Some(LoadError::Refused { code, reason });
                }
                Ok(_) => {}
                Err(error) => refused = Some(LoadError::Unexpected(error.to_string())),
            }
            true
        };
        // What is not the server's is dropped.
        let _ = member.connection.receive(now_us, datagram, &mut sink);
        if logged_in && !member.is_held {
            member.is_held = true;
            self.held += 1;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends what is due, and sees to it in time.
    fn serve(&mut self, index: usize, now_us: u64) -> Result<(), LoadError> {
        let (port, source) = self.source_of(index);
        let member = &mut self.members[index];
        let mut datagram = Vec::new();
        while member.connection.transmit(now_us, &mut datagram).is_some() {
            let Port { socket, state } = &self.ports[port];
            let transmit = Transmit {
                destination: self.options.address,
                ecn: None,
                contents: &datagram,
                segment_size: None,
                src_ip: Some(source),
            };
            match state.try_send(UdpSockRef::from(socket), &transmit) {
                // A full buffer is a loss, which the session makes good.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(error.into());
                }
                _ => {}
            }
            datagram.clear();
        }
        let has_ended = member.connection.end().is_some() || member.connection.failure().is_some();
        if has_ended && !member.is_lost {
            member.is_lost = true;
            self.lost += 1;
        }
        let Some(due_us) = member.connection.timeout() else {
            return Ok(());
        };
        let due_ms = due_us.div_ceil(1_000).max(now_us / 1_000 + 1);
        if member
            .timer
            .is_none_or(|timer| !self.wheel.rearm(timer, due_ms))
        {
            let timer = self.wheel.schedule(due_ms, index as u64);
            member.timer = Some(timer.map_err(|error| LoadError::Unexpected(error.to_string()))?);
        }
        Ok(())
    }

    fn source_of(&self, index: usize) -> (usize, IpAddr) {
        let address = FIRST_ADDRESS + (index % self.options.addresses) as u32;
        (
            index / self.options.addresses,
            Ipv4Addr::from_bits(address).into(),
        )
    }

    fn member_of(&self, port: usize, source: Option<IpAddr>) -> Option<usize> {
        let Some(IpAddr::V4(source)) = source else {
            return None;
        };
        let place = source.to_bits().checked_sub(FIRST_ADDRESS)? as usize;
        let index = port * self.options.addresses + place;
        (place < self.options.addresses && index < self.members.len()).then_some(index)
    }
}

// === impl Port ===

impl Port {
    fn open() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        let sizes = socket2::SockRef::from(&socket);
        // What the kernel doesn't give is lost in bursts only.
        let _ = sizes.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = sizes.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket, state })
    }
}
