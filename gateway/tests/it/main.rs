//! A real gateway on random ports, with the in-process bus and directory and a
//! small stand-in for the services, spoken to over real sockets.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod admin;
mod backpressure;
mod client;
mod dormant;
mod drain;
mod faults;
mod faulty_directory;
mod handlers;
mod hostile;
mod limits;
mod login;
mod lost_bus;
mod moves;
mod pushes;
mod registration;
mod requests;
mod rig;
mod sealed;
mod services;
mod udp;
mod udp_client;
mod websocket;
