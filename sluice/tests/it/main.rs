//! The program as it is used: real processes, real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so")]

mod account;
mod archive;
mod backend;
mod bench;
mod chat;
mod cluster;
mod crash;
mod dead_letters;
mod demo;
mod flash_sale;
mod growth;
mod hostile_link;
mod ledger;
mod moves;
mod oracle;
mod outages;
mod peers;
mod python_backend;
mod readme;
mod rejoin;
mod restarts;
mod roles;
mod same_device;
mod server;
mod shell;
mod slow_http;
mod stops;
mod talkers;
mod timelines;
