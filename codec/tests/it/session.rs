//! The datagram session over a simulated network.

mod connections;
mod faults;
mod hostile;
mod idle;
mod network;
mod pair;
mod paths;
mod schedules;
mod steady;
