//! The codec as its callers use it: pieces of bytes in, frames out.

#![allow(clippy::unwrap_used)]

mod cutting;
mod datagram;
mod events;
mod handshake;
mod memory;
mod packets;
mod peer;
mod sealed_tcp;
mod session;
mod tcp;
mod websocket;
