//! Where the server is, and by which transport to go there.

use std::net::SocketAddr;

/// A server's addresses, one a transport.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Of the TCP port, usually 8900.
    pub tcp: Option<SocketAddr>,
    /// Of the WebSocket port: `ws://127.0.0.1:8902/`.
    pub ws: Option<String>,
}

/// By which transport to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Length-framed packets over TCP.
    Tcp,
    /// Binary frames over WebSocket.
    WebSocket,
    /// TCP first; after a failed try (of each endpoint) the other one, in turn.
    #[default]
    Auto,
}

// === impl Endpoint ===

impl Endpoint {
    /// Only TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            tcp: Some(address),
            ws: None,
        }
    }

    /// Only WebSocket: `ws://host:port/`.
    pub fn ws(url: impl Into<String>) -> Self {
        Self {
            tcp: None,
            ws: Some(url.into()),
        }
    }

    /// The way to go on the `attempt`-th try after the last success.
    pub(crate) fn route(&self, transport: Transport, attempt: u32) -> Option<Route<'_>> {
        let tcp = || self.tcp.map(Route::Tcp);
        let ws = || self.ws.as_deref().map(Route::WebSocket);
        match transport {
            Transport::Tcp => tcp(),
            Transport::WebSocket => ws(),
            Transport::Auto if attempt.is_multiple_of(2) => tcp().or_else(ws),
            Transport::Auto => ws().or_else(tcp),
        }
    }
}

/// One transport with its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Tcp(SocketAddr),
    WebSocket(&'a str),
}
