//! Event loops, channels, pipeline and lanes: the only room that accepts client
//! sockets.
//!
//! The road of a packet, file by file:
//!
//! ```text
//! listener ─▶ event_loop ─▶ connection (read, decode) ─▶ pipeline ─▶ handlers/* ─▶ lane ─▶ bus
//! bus ─▶ downlink ─▶ mailbox ─▶ event_loop ─▶ delivery ─▶ push_window, output ─▶ connection (write)
//! ```
//!
//! An event loop is a thread with its own poll, listeners, connections and
//! timers; a channel is touched by its own loop only, so nothing on this
//! road is locked. Tokio runs what is off it: lanes' writers, the reader of the
//! down stream, the directory, admin HTTP.
//!
//! What is absent: a map from users to connections (a delivery names slot,
//! generation and user), a task or a buffer a connection, an unbounded queue.

mod ack_tally;
mod address_limits;
mod admin;
mod admin_error;
#[cfg(feature = "bench")]
pub mod bed;
mod bus_health;
mod channel;
mod clock;
pub mod config;
mod connection;
mod connections;
mod context;
mod datagram;
mod deadlines;
mod delivery;
mod dormitory;
mod downlink;
mod drain;
mod event_loop;
mod farewell;
mod gateway;
mod handlers;
mod handover;
mod kernel;
mod lane;
mod ledger;
mod listener;
mod mailbox;
mod metrics;
mod output;
mod pipeline;
mod push_window;
mod rate;
mod registration;
mod replay;
mod requests;
mod rtt;
mod session_check;
mod shared;
mod slab;
mod token;
mod traces;
mod transport;
mod workbench;

pub use admin_error::AdminError;
pub use channel::Phase;
pub use clock::Now;
pub use config::{Config, TcpEncryption};
pub use context::ChannelContext;
pub use farewell::Farewell;
pub use gateway::{BoundAddresses, Gateway, GatewayParts, StartError};
pub use metrics::{PrometheusHandle, install as install_metrics, keep_up as keep_up_metrics};
pub use pipeline::{Flow, Handler, Outbound, Pipeline};
pub use token::{KeyError, TokenVerifier, VerifiedToken};
