//! The crowd: opens connections at a bounded pace, and holds them.

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    Login,
    carrier::Carrier,
    clock::now_ns,
    engine::{Engine, EngineOptions},
    frame::LoadTransport,
    session::{Session, Talk},
    streams::Streams,
};

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
    engine: Engine<Session>,
    count: usize,
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
        progress: impl FnMut(usize) -> bool,
    ) -> Result<Self, LoadError> {
        let count = logins.len();
        let CrowdOptions {
            address, transport, ..
        } = options;
        let host = address.to_string();
        let session = Session::new(transport, host, Talk::Idle, logins.to_vec(), 0);
        let carrier = Carrier::Streams(Streams::new(address, count)?);
        let options = EngineOptions {
            opening_max: options.opening_max,
            patience_ns: u64::try_from(options.patience.as_nanos()).unwrap_or(u64::MAX),
            window_max: 1,
            reconnects: false,
        };
        let mut engine = Engine::new(session, carrier, count, options);
        engine.open(progress)?;
        Ok(Self { engine, count })
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
        let span_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = now_ns().saturating_add(span_ns);
        self.engine.turn_until(until_ns, |_, _| go_on())?;
        Ok(self.engine.tally.counts.disconnects as usize)
    }

    /// Connections that are held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
