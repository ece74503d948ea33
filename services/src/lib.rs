//! User, message and group services: bus consumers and axum APIs.
//!
//! The road of a message through this crate: `message` owns a partition,
//! reads a batch, checks it, commits it, looks up routes and hands acks and
//! pushes to the `downlink`; `receipts` takes the acks that come back, `query`
//! answers pulls, `session` opens sessions. `http` is the API beside it.
//!
//! Absent by design: SQL and sockets of clients. Everything here is repeatable,
//! since the bus may deliver twice.

mod cache_metrics;
mod clock;
mod config;
mod consumer;
mod down_reader;
mod downlink;
mod error;
mod http;
mod message;
mod node;
mod origin;
mod outbox;
mod peers;
mod query;
mod receipts;
mod recent;
mod seats;
mod services;
mod session;
mod snowflake;
mod standing;
mod token;
mod wire;

pub use config::{AdminToken, Config, DeviceRule, Roles};
pub use http::Peer;
pub use services::{Parts, Services, ServicesError};
pub use snowflake::Snowflake;
pub use token::{Claims, TokenError, TokenSigner};
