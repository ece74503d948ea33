//! Names of transports on the command line.

use std::str::FromStr;

/// By what a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Length-framed packets over TCP.
    #[default]
    Tcp,
    /// One packet a binary WebSocket message.
    WebSocket,
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Transport::Tcp),
            "ws" => Ok(Transport::WebSocket),
            other => Err(format!(
                "no transport is called {other:?}; there are tcp and ws"
            )),
        }
    }
}
