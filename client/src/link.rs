//! One connection: packets over TCP, WebSocket or a datagram session.
//!
//! Polled as a whole (writes what is queued, then reads), so that a peer who
//! doesn't read never keeps this side from reading. One file a transport.

mod datagram;
mod socket;
mod tcp;
mod websocket;

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use sluice_protocol::packet::Packet;

use crate::{LinkError, Transport, endpoint::Route, ticket::Ticket};
use datagram::DatagramLink;
use tcp::TcpLink;
use websocket::WebSocketLink;

/// Bytes that one read takes at most; they lie on the stack.
const READ_BYTES: usize = 16 * 1024;
/// A farewell that isn't written within this span isn't waited for.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection.
pub(crate) enum Link {
    Tcp(TcpLink),
    WebSocket(Box<WebSocketLink>),
    Datagram(Box<DatagramLink>),
}

// === impl Link ===

impl Link {
    /// Connects, within this span.
    pub(crate) async fn connect(route: Route, timeout: Duration) -> Result<Self, LinkError> {
        let connecting = async {
            match route {
                Route::Tcp(address) => TcpLink::connect(address).await.map(Self::Tcp),
                Route::SealedTcp(address, pins) => {
                    TcpLink::connect_sealed(address, &pins).await.map(Self::Tcp)
                }
                Route::WebSocket(url) => WebSocketLink::connect(&url)
                    .await
                    .map(|link| Self::WebSocket(Box::new(link))),
                Route::Datagram(address, pins, ticket) => {
                    DatagramLink::connect(address, pins, ticket)
                        .await
                        .map(|link| Self::Datagram(Box::new(link)))
                }
            }
        };
        tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| LinkError::Timeout)?
    }

    /// By which transport it goes.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(link) if link.is_sealed() => Transport::SealedTcp,
            Self::Tcp(_) => Transport::Tcp,
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Datagram(_) => Transport::Udp,
        }
    }

    /// Queues a packet for the next [`Link::poll`].
    pub(crate) fn queue(&mut self, packet: &Packet) -> Result<(), LinkError> {
        match self {
            Self::Tcp(link) => link.queue(packet),
            Self::WebSocket(link) => link.queue(packet),
            Self::Datagram(link) => link.queue(packet),
        }
    }

    /// What waits to be written (over datagrams: to be acknowledged), in bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        match self {
            Self::Tcp(link) => link.queued_bytes(),
            Self::WebSocket(link) => link.queued_bytes(),
            Self::Datagram(link) => link.queued_bytes(),
        }
    }

    /// Writes what it can, and gives the next packet. After an error it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        match self {
            Self::Tcp(link) => link.poll(cx),
            Self::WebSocket(link) => link.poll(cx),
            Self::Datagram(link) => link.poll(cx),
        }
    }

    /// A packet that has been read already.
    pub(crate) fn next_received(&mut self) -> Option<Result<Packet, LinkError>> {
        match self {
            Self::Tcp(link) => link.next_received(),
            Self::WebSocket(_) => None,
            Self::Datagram(link) => link.next_received(),
        }
    }

    /// Writes what is queued, and closes.
    pub(crate) async fn finish(mut self) {
        let finished = poll_fn(|cx| match &mut self {
            Self::Tcp(link) => link.poll_finish(cx),
            Self::WebSocket(link) => link.poll_finish(cx),
            Self::Datagram(link) => link.poll_finish(cx),
        });
        // Nobody is left to be told that the farewell failed.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, finished).await;
    }

    /// Drops it as a dying network does: without a word to the server.
    pub(crate) fn cut(self) {
        if let Self::Datagram(link) = self {
            link.cut();
        }
    }

    /// The server bears silences of twice this. Only datagram sessions keep
    /// themselves alive; over the others the session pings.
    pub(crate) fn keep_alive(&mut self, heartbeat: Duration) {
        if let Self::Datagram(link) = self {
            link.keep_alive(heartbeat);
        }
    }

    /// Whether the session waits for an answer. Over datagrams one may be lost on
    /// its way to an address that this side no longer has.
    pub(crate) fn expect_answer(&mut self, is_expected: bool) {
        if let Self::Datagram(link) = self {
            link.expect_answer(is_expected);
        }
    }

    /// The server has owed an answer for so long that another way should be
    /// looked for. Over streams the system repeats by itself, and tells nothing.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Datagram(link) => link.is_silent(),
            Self::Tcp(_) | Self::WebSocket(_) => false,
        }
    }

    /// A smoothed round trip, where the link measures it.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Datagram(link) => link.round_trip(),
            Self::Tcp(_) | Self::WebSocket(_) => None,
        }
    }

    /// A ticket to be kept for the next datagram session.
    pub(crate) fn take_ticket(&mut self) -> Option<Ticket> {
        match self {
            Self::Datagram(link) => link.take_ticket(),
            Self::Tcp(_) | Self::WebSocket(_) => None,
        }
    }
}
