//! The one binary of Sluice, as a library so that its tests can call it:
//! wires, parses, prints.

pub mod demo;
pub mod transport;
