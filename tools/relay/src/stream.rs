//! Relaying TCP connections: [`relay`] accepts, [`connection`] gives each its partner and its clock
//! of faults, [`pump`] moves one direction's bytes, which wait in [`flight`] until they are due.

pub(crate) mod connection;
pub(crate) mod flight;
pub(crate) mod pump;
pub(crate) mod relay;
pub(crate) mod stats;
