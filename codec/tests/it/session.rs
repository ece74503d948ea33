//! The datagram session over a simulated network.

mod faults;
mod idle;
mod network;
mod pair;
mod schedules;
