//! The datagram session over a simulated network.

mod connections;
mod faults;
mod figures;
mod hostile;
mod idle;
mod kcp;
mod network;
mod pair;
mod paths;
mod schedules;
mod steady;
