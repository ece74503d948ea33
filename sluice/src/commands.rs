//! The commands, one a file: parse, run, print.

pub mod demo;
pub mod serve;
