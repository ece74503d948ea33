//! The datagram session over a simulated network.

mod connections;
mod faults;
mod idle;
mod network;
mod pair;
mod schedules;
