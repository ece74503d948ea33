//! The client over real sockets, against a model of the server.

#![allow(clippy::unwrap_used)]

#[path = "../model/mod.rs"]
mod model;

mod datagram;
mod datagram_client;
mod http;
mod lifecycle;
mod messages;
mod sealed;
mod server;
mod slow_server;
mod udp_port;
