//! `sluice`: see `sluice --help`.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use sluice::cli::Cli;

/// glibc keeps what each thread has freed: the 19 MiB of a password hash once
/// for each of its arenas, 700 MB after a few hundred logins. This one gives it back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sluice::cli::run(Cli::parse())
}
