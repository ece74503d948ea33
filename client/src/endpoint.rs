//! Where the server is, and by which transport to go there.

use std::net::SocketAddr;

use sluice_codec::datagram::ServerPins;

use crate::ticket::Ticket;

/// A server's addresses, one a transport.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Of the TCP port, usually 8900.
    pub tcp: Option<SocketAddr>,
    /// Of the WebSocket port: `ws://127.0.0.1:8902/`.
    pub ws: Option<String>,
    /// Of the UDP port, usually 8901; used together with `pins` only.
    pub udp: Option<SocketAddr>,
    /// The keys of the server that are taken for its own over UDP and encrypted TCP.
    pub pins: Option<ServerPins>,
}

/// By which transport to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Length-framed packets over TCP, in the clear.
    Tcp,
    /// The same, encrypted by the server's pinned key.
    SealedTcp,
    /// Binary frames over WebSocket.
    WebSocket,
    /// Sealed packets over UDP, which survive a change of the network.
    Udp,
    /// Whichever is there first, UDP with a head start; another one when that goes
    /// silent; and back to UDP when it works again. TCP is encrypted wherever the
    /// server's keys are known, so that who blocks UDP doesn't get to read.
    #[default]
    Auto,
}

/// One transport with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Tcp(SocketAddr),
    SealedTcp(SocketAddr, ServerPins),
    WebSocket(String),
    Datagram(SocketAddr, ServerPins, Option<Ticket>),
}

// === impl Endpoint ===

impl Endpoint {
    /// Only TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            tcp: Some(address),
            ..Self::default()
        }
    }

    /// Only WebSocket: `ws://host:port/`.
    pub fn ws(url: impl Into<String>) -> Self {
        Self {
            ws: Some(url.into()),
            ..Self::default()
        }
    }

    /// Only datagram sessions, with servers that have one of these keys.
    pub fn udp(address: SocketAddr, pins: ServerPins) -> Self {
        Self {
            udp: Some(address),
            pins: Some(pins),
            ..Self::default()
        }
    }

    /// Encrypted TCP, with servers that have one of these keys.
    pub fn sealed_tcp(address: SocketAddr, pins: ServerPins) -> Self {
        Self {
            tcp: Some(address),
            pins: Some(pins),
            ..Self::default()
        }
    }

    /// How [`Transport::Auto`] goes over TCP.
    pub(crate) fn tcp_kind(&self) -> Transport {
        match self.pins {
            Some(_) => Transport::SealedTcp,
            None => Transport::Tcp,
        }
    }

    /// The way there by this transport, if there is one.
    pub(crate) fn route(&self, transport: Transport) -> Option<Route> {
        match transport {
            Transport::Tcp => self.tcp.map(Route::Tcp),
            Transport::SealedTcp => Some(Route::SealedTcp(self.tcp?, self.pins.clone()?)),
            Transport::WebSocket => self.ws.clone().map(Route::WebSocket),
            Transport::Udp => {
                let (address, pins) = (self.udp?, self.pins.clone()?);
                Some(Route::Datagram(address, pins, None))
            }
            Transport::Auto => [Transport::Udp, self.tcp_kind(), Transport::WebSocket]
                .into_iter()
                .find_map(|transport| self.route(transport)),
        }
    }
}

// === impl Route ===

impl Route {
    /// Saves a round trip, where it is one of a datagram session.
    pub(crate) fn use_ticket(&mut self, saved: &mut Option<Ticket>) {
        if let Self::Datagram(_, _, ticket) = self {
            *ticket = saved.take();
        }
    }
}
