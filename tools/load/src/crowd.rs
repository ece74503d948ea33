//! The crowd: opens connections at a bounded pace, and holds them.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use crate::{connection::Connection, frame::LoadTransport, login::Login};

/// How a crowd connects.
#[derive(Debug, Clone, Copy)]
pub struct CrowdOptions {
    /// Where to.
    pub address: SocketAddr,
    /// By what.
    pub transport: LoadTransport,
    /// Connections that may be on their way to login at once.
    pub opening_max: usize,
    /// Without any progress for this long, opening has failed.
    pub patience: Duration,
}

/// What can go wrong with a crowd.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server closed a connection.
    #[error("the server closed a connection")]
    Closed,
    /// The server refused a login.
    #[error("login refused with {code}: {reason}")]
    Refused {
        /// The error's name.
        code: &'static str,
        /// The server's words.
        reason: String,
    },
    /// Something that the protocol does not foresee.
    #[error("unexpected: {0}")]
    Unexpected(String),
    /// No progress.
    #[error("{held} of {wanted} connections were logged in, then nothing moved")]
    Stalled {
        /// Logged in.
        held: usize,
        /// Wanted.
        wanted: usize,
    },
    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Logged-in connections, held by one thread.
pub struct Crowd {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    /// Connections lost while they were held.
    lost: usize,
}

/// What a socket is ready for.
enum Readiness<'a> {
    /// It has become writable for the first time.
    Connected,
    /// Something has come; here is a buffer.
    Readable(&'a mut [u8]),
}

// === impl Crowd ===

impl Crowd {
    /// Opens one connection a login and returns when all are logged in.
    /// `progress` is told how many are; it returns false to stop.
    ///
    /// # Errors
    /// The first thing that goes wrong with any connection.
    pub fn open(
        options: CrowdOptions,
        logins: &[Login],
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Self, LoadError> {
        let mut crowd = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            connections: Vec::with_capacity(logins.len()),
            scratch: vec![0; 64 * 1024],
            lost: 0,
        };
        let mut held = 0;
        let mut moved = Instant::now();
        while held < logins.len() {
            while crowd.connections.len() < logins.len()
                && crowd.connections.len() - held < options.opening_max
            {
                crowd.add(options)?;
            }
            let newly = crowd.turn(
                Duration::from_millis(100),
                |connection, readiness, index| {
                    let login = &logins[index];
                    match readiness {
                        Readiness::Connected => {
                            connection.begin(options.address, login).map(|()| false)
                        }
                        Readiness::Readable(scratch) => connection.read(scratch, login),
                    }
                },
            )?;
            if newly > 0 {
                held += newly;
                moved = Instant::now();
            } else if moved.elapsed() > options.patience {
                return Err(LoadError::Stalled {
                    held,
                    wanted: logins.len(),
                });
            }
            if !progress(held) {
                return Err(LoadError::Stopped);
            }
        }
        Ok(crowd)
    }

    /// Keeps the connections alive for a span, each pinging in its turn.
    /// Returns how many were lost; `go_on` returns false to stop early.
    ///
    /// # Errors
    /// The poll's own failure.
    pub fn hold(
        &mut self,
        span: Duration,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<usize, LoadError> {
        let until = Instant::now() + span;
        let count = self.connections.len().max(1);
        let interval = self
            .connections
            .first()
            .map_or(30_000, |c| c.heartbeat_interval_ms.max(1));
        // Well inside the interval, and spread evenly over it.
        let gap = Duration::from_millis(u64::from(interval)) * 3 / 4 / count as u32;
        let mut next_ping = Instant::now();
        let mut turn = 0;
        // Nobody logs in any more.
        let login = Login::nobody()?;
        while Instant::now() < until && go_on() {
            while Instant::now() >= next_ping {
                next_ping += gap;
                if let Some(connection) = self.connections.get_mut(turn % count)
                    && connection.ping().is_err()
                {
                    self.lost += 1;
                }
                turn += 1;
            }
            let wait = next_ping.saturating_duration_since(Instant::now());
            let mut lost = 0;
            self.turn(
                wait.min(Duration::from_millis(100)),
                |connection, readiness, _| {
                    if let Readiness::Readable(scratch) = readiness
                        && connection.read(scratch, &login).is_err()
                    {
                        lost += 1;
                    }
                    Ok(false)
                },
            )?;
            self.lost += lost;
        }
        Ok(self.lost)
    }

    /// Connections that are held.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    fn add(&mut self, options: CrowdOptions) -> Result<(), LoadError> {
        let mut connection = Connection::open(options.address, options.transport)?;
        self.poll.registry().register(
            &mut connection.stream,
            Token(self.connections.len()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.connections.push(connection);
        Ok(())
    }

    /// One round of readiness; `handle` returns true for a connection that has
    /// just been logged in.
    fn turn(
        &mut self,
        wait: Duration,
        mut handle: impl FnMut(&mut Connection, Readiness<'_>, usize) -> Result<bool, LoadError>,
    ) -> Result<usize, LoadError> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        let mut newly = 0;
        for event in &self.events {
            let index = event.token().0;
            let Some(connection) = self.connections.get_mut(index) else {
                continue;
            };
            if event.is_writable() && !connection.greeted {
                connection.greeted = true;
                handle(connection, Readiness::Connected, index)?;
            }
            if event.is_readable()
                && handle(connection, Readiness::Readable(&mut self.scratch), index)?
            {
                newly += 1;
            }
        }
        Ok(newly)
    }
}
