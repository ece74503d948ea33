//! A lossy network on one machine: two network namespaces with a line between them that loses,
//! delays and disorders whole IP packets, TCP's too, which a relay of streams can't do.
//!
//! Role: for comparing and testing transports under loss. [`Lab::start`] makes two namespaces
//! (`namespace`), a TUN device in each (`tun`), and carries packets between them over two
//! [`sluice_relay::Line`]s (`wire`); [`Lab::command`] starts programs on either side.
//!
//! Limits: Linux, root, `/dev/net/tun`, and the programs `ip`, `unshare` and `nsenter`; without
//! them [`LabError::Unavailable`] says what is missing. Nothing is left behind, not even after a
//! kill: a namespace and all that runs in it live as long as its keeper, whose standard input is a
//! pipe from here, and a TUN device lives as long as its file descriptor.

mod lab;
mod namespace;
mod tun;
mod wire;

pub use lab::{Lab, LabError, Side};
pub use wire::WireCounts;
