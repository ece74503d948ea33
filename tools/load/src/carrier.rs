//! What carries the clients' frames: sockets of their own, or datagram sessions that
//! share one.

use std::io;

use crate::{LoadError, datagrams::Datagrams, streams::Streams};

/// All clients' connections.
pub(crate) enum Carrier {
    /// A TCP connection each.
    Streams(Streams),
    /// A session each, from an address of its own.
    Datagrams(Box<Datagrams>),
}

/// What became of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) client: usize,
    /// It may speak, as of now.
    pub(crate) connected: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

// === impl Carrier ===

impl Carrier {
    /// Begins to connect.
    pub(crate) fn connect(&mut self, client: usize) -> Result<(), LoadError> {
        match self {
            Self::Streams(streams) => streams.connect(client),
            Self::Datagrams(datagrams) => {
                datagrams.connect(client);
                Ok(())
            }
        }
    }

    /// Ends a connection without a word: by RST, or in silence.
    pub(crate) fn cut(&mut self, client: usize) {
        match self {
            Self::Streams(streams) => streams.cut(client),
            Self::Datagrams(datagrams) => datagrams.cut(client),
        }
    }

    /// Waits for what happens, at most until a time; 0: for ever.
    pub(crate) fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        match self {
            Self::Streams(streams) => streams.wait(until_ns, ready),
            Self::Datagrams(datagrams) => datagrams.wait(until_ns, ready),
        }
    }

    /// Whether connecting has worked.
    pub(crate) fn connected(&mut self, client: usize) -> Result<(), LoadError> {
        match self {
            Self::Streams(streams) => streams.connected(client),
            Self::Datagrams(_) => Ok(()),
        }
    }

    /// What a client is going to say.
    pub(crate) fn out(&mut self, client: usize) -> &mut Vec<u8> {
        match self {
            Self::Streams(streams) => streams.out(client),
            Self::Datagrams(datagrams) => datagrams.out(client),
        }
    }

    /// Gives `take` what has come, which returns how much of it is used, until all
    /// is read.
    pub(crate) fn read(
        &mut self,
        client: usize,
        take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, LoadError>,
    ) -> Result<(), LoadError> {
        match self {
            Self::Streams(streams) => streams.read(client, take),
            Self::Datagrams(datagrams) => datagrams.read(client, take),
        }
    }

    /// Writes what a client has to say, as far as it is taken.
    pub(crate) fn write(&mut self, client: usize) -> Result<(), LoadError> {
        match self {
            Self::Streams(streams) => streams.write(client),
            Self::Datagrams(datagrams) => datagrams.write(client),
        }
    }
}
