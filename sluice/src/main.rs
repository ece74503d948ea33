//! `sluice`: see `sluice --help`.

use std::process::ExitCode;

use clap::Parser;
use sluice::{allocator, cli::Cli};

fn main() -> ExitCode {
    allocator::tune();
    sluice::cli::run(Cli::parse())
}
