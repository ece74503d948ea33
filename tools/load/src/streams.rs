//! The sockets of an engine's clients: TCP connections of one poll. A client reads
//! into a buffer that all share and keeps only a frame's beginning; what it has to
//! say is gathered and written at once.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    LoadError,
    carrier::Ready,
    clock::{Alarm, MS_NS, now_ns},
};

/// All sockets.
pub(crate) struct Streams {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    /// Clients take them in turn.
    addresses: Vec<SocketAddr>,
    /// The first source address, counted from 127.0.0.1 on.
    source: usize,
    streams: Vec<Stream>,
    scratch: Box<[u8]>,
}

/// One client's.
#[derive(Default)]
struct Stream {
    socket: Option<TcpStream>,
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    is_connected: bool,
    is_blocked: bool,
}

const ALARM: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
const SCRATCH_BYTES: usize = 256 * 1024;
/// A poll waits no longer, so that whoever asks to stop is heard.
const WAIT_MAX_NS: u64 = 50 * MS_NS;
/// So many come from one address; its ports are bounded.
pub const PER_SOURCE_ADDRESS: usize = 16_000;
/// Of these, below the ports that the kernel gives away.
const FIRST_PORT: u16 = 16_384;

// === impl Streams ===

impl Streams {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        source: usize,
        clients: usize,
    ) -> io::Result<Self> {
        if addresses.is_empty() {
            return Err(io::Error::other("nowhere to connect to"));
        }
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            alarm,
            addresses,
            source,
            streams: (0..clients).map(|_| Stream::default()).collect(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        })
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self, client: usize) -> Result<(), LoadError> {
        let address = self.addresses[client % self.addresses.len()];
        let mut socket = connect(address, self.source, client)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut socket, Token(client), interest)?;
        self.streams[client] = Stream {
            socket: Some(socket),
            ..Stream::default()
        };
        Ok(())
    }

    /// Closes with RST, so that no port waits for its last packet.
    pub(crate) fn cut(&mut self, client: usize) {
        let stream = std::mem::take(&mut self.streams[client]);
        if let Some(socket) = &stream.socket {
            // Whatever fails here, the socket closes.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Waits for what happens, at most until a time; 0: for ever.
    pub(crate) fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        let now = now_ns();
        let wait = match until_ns {
            0 => WAIT_MAX_NS,
            _ => until_ns.saturating_sub(now).min(WAIT_MAX_NS),
        };
        let wait = match wait {
            0 => Duration::ZERO,
            WAIT_MAX_NS => Duration::from_nanos(WAIT_MAX_NS),
            _ => {
                self.alarm.set(until_ns)?;
                Duration::from_nanos(WAIT_MAX_NS)
            }
        };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            if event.token() == ALARM {
                continue;
            }
            let client = event.token().0;
            let stream = &mut self.streams[client];
            let connected = event.is_writable() && !stream.is_connected;
            stream.is_connected |= event.is_writable();
            ready.push(Ready {
                client,
                connected,
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable() && stream.is_blocked,
            });
        }
        Ok(())
    }

    /// Whether connecting has worked.
    pub(crate) fn connected(&mut self, client: usize) -> Result<(), LoadError> {
        let Some(socket) = &self.streams[client].socket else {
            return Err(LoadError::Closed);
        };
        if let Some(error) = socket.take_error()? {
            return Err(error.into());
        }
        socket.set_nodelay(true)?;
        Ok(())
    }

    /// What a client is going to say.
    pub(crate) fn out(&mut self, client: usize) -> &mut Vec<u8> {
        &mut self.streams[client].out
    }

    /// Gives `take` what has come, which returns how much of it is used, until all
    /// is read.
    pub(crate) fn read(
        &mut self,
        client: usize,
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, LoadError>,
    ) -> Result<(), LoadError> {
        let scratch = &mut self.scratch;
        let stream = &mut self.streams[client];
        let Some(socket) = &mut stream.socket else {
            return Ok(());
        };
        loop {
            let count = match socket.read(scratch) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let came = &scratch[..count];
            if stream.partial.is_empty() {
                let used = take(came, &mut stream.out)?;
                stream.partial.extend_from_slice(&came[used..]);
            } else {
                stream.partial.extend_from_slice(came);
                let used = take(&stream.partial, &mut stream.out)?;
                stream.partial.drain(..used);
            }
            // Less than was asked for: the socket is empty (epoll(7)).
            if count < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Writes what a client has to say, as far as the socket takes it.
    pub(crate) fn write(&mut self, client: usize) -> Result<(), LoadError> {
        let stream = &mut self.streams[client];
        let Some(socket) = &mut stream.socket else {
            stream.out.clear();
            return Ok(());
        };
        if !stream.is_connected {
            return Ok(());
        }
        while stream.written < stream.out.len() {
            match socket.write(&stream.out[stream.written..]) {
                Ok(count) => stream.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.is_blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        stream.is_blocked = false;
        stream.written = 0;
        stream.out.clear();
        Ok(())
    }
}

/// Begins to connect, from 127.0.0.1 and, on loopback, the addresses behind it.
fn connect(address: SocketAddr, source: usize, client: usize) -> io::Result<TcpStream> {
    let source = source + client / PER_SOURCE_ADDRESS;
    let SocketAddr::V4(v4) = address else {
        return TcpStream::connect(address);
    };
    if source == 0 || !v4.ip().is_loopback() {
        return TcpStream::connect(address);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Many sockets of one port, each to be told apart by where it leads.
    socket.set_reuse_address(true)?;
    let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + source as u32);
    // Asked for any port, the kernel looks through those in use, ever longer: with 120,000
    // sockets that took most of the machine.
    let own = FIRST_PORT + (client % PER_SOURCE_ADDRESS) as u16;
    if socket.bind(&SocketAddrV4::new(from, own).into()).is_err() {
        socket.bind(&SocketAddrV4::new(from, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
