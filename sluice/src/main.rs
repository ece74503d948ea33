//! `sluice`: see `sluice --help`.

use std::process::ExitCode;

use clap::Parser;
use sluice::{allocator, cli::Cli};

fn main() -> ExitCode {
    allocator::give_large_blocks_back();
    sluice::cli::run(Cli::parse())
}
