//! The transports that are compared. Each carries a [`Session`]'s messages between two ends on one
//! thread, reliably, and in order but for [`Transport::Unordered`].

mod frames;
mod kcp;
mod quic;
mod sluice;
mod tcp;
mod udp;

use crate::session::Session;
use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sluice_codec::datagram::Channel;
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
    /// Sluice's datagram session, sealed, on a reliable and ordered channel.
    Sluice,
    /// The same on a reliable channel that doesn't wait for what is missing: that of pushes, which
    /// the client brings into order by their sequence numbers.
    Unordered,
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
        Transport::Sluice => sluice::serve(Channel::CONTROL, listen, invite, session).await,
        Transport::Unordered => sluice::serve(Channel::PUSHES, listen, invite, session).await,
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
        Transport::Sluice => sluice::connect(Channel::CONTROL, to, session).await,
        Transport::Unordered => sluice::connect(Channel::PUSHES, to, session).await,
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
            Transport::Sluice => "Sluice",
            Transport::Unordered => "Sluice, unordered",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Kcp => "kcp",
            Transport::Quic => "quic",
            Transport::Sluice => "sluice",
            Transport::Unordered => "unordered",
        })
    }
}
