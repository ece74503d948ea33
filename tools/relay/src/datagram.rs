//! Relaying UDP datagrams: [`relay`] listens and finds a datagram's flow, [`flow`] is one client's
//! binding at a NAT with its clock of faults, and [`line`] is one direction of it, where datagrams
//! are lost, doubled and held until they are due.

pub(crate) mod flow;
pub(crate) mod line;
pub(crate) mod relay;
pub(crate) mod stats;
