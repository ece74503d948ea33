//! `sluice`: see `sluice --help`.

use std::process::ExitCode;

use clap::Parser;
use sluice::cli::Cli;

fn main() -> ExitCode {
    sluice::cli::run(Cli::parse())
}
