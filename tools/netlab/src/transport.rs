//! The transports that are compared. Each carries a [`Session`]'s messages between two ends,
//! reliably and in order, on one thread.

mod frames;
mod kcp;
mod quic;
mod tcp;
mod udp;

use crate::session::Session;
use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// Plain TCP, without Nagle's delay, a length before each message.
    Tcp,
    /// KCP in its fast mode (`nodelay 1, interval 10, resend 2, nc 1`), unsealed.
    Kcp,
    /// QUIC by quinn, one stream, a length before each message.
    Quic,
}

/// What a client must know of a server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    pub(crate) address: SocketAddr,
    /// By which the client knows the server, in hexadecimal, where the transport has such a thing.
    pub(crate) key: String,
}

/// Listens, calls `invite` when a client may come, and carries the session with it until told to
/// stop.
pub(crate) async fn serve(
    transport: Transport,
    listen: SocketAddr,
    invite: impl FnOnce(Invitation) -> Result<()>,
    session: &mut Session,
) -> Result<()> {
    match transport {
        Transport::Tcp => tcp::serve(listen, invite, session).await,
        Transport::Kcp => kcp::serve(listen, invite, session).await,
        Transport::Quic => quic::serve(listen, invite, session).await,
    }
}

/// Carries the session with a server until told to stop.
pub(crate) async fn connect(
    transport: Transport,
    to: &Invitation,
    session: &mut Session,
) -> Result<()> {
    match transport {
        Transport::Tcp => tcp::connect(to, session).await,
        Transport::Kcp => kcp::connect(to, session).await,
        Transport::Quic => quic::connect(to, session).await,
    }
}

// === impl Transport ===

impl Transport {
    /// The name in the head of a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Kcp => "KCP, fast mode",
            Transport::Quic => "QUIC (quinn)",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Kcp => "kcp",
            Transport::Quic => "quic",
        })
    }
}
