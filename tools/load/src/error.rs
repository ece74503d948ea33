//! What can go wrong while load is made.

use std::io;

/// What ends a generator's work.
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
    /// Another system's protocol was broken, or the system refuses something.
    #[error(transparent)]
    Peer(#[from] crate::PeerError),
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
