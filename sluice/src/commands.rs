//! The commands, one a file: parse, run, print.

pub mod bench;
pub mod chat;
pub mod dead_letters;
pub mod demo;
pub mod keygen;
pub mod keys;
pub mod migrate;
pub mod months;
pub mod recv;
pub mod send;
pub mod serve;
pub mod timeline;
