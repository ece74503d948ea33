//! The one binary of Sluice, as a library so that its tests can call it:
//! wires, parses, prints.

mod admin;
pub mod allocator;
pub mod bench;
pub mod chat;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod datagram_keys;
pub mod demo;
pub mod endpoints;
pub mod engines;
pub mod environment;
mod http;
mod metric_help;
pub mod node;
mod secret_file;
pub mod server_process;
mod timelines;
pub mod token_keys;
