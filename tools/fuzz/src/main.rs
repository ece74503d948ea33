//! Runs the targets on mutated seeds for as long as told, on stable Rust.

use std::{
    panic,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser as _;
use sluice_fuzz::{Mutator, TARGETS, Target, target};

/// Runs fuzz targets on mutated seeds
///
/// An input that breaks a promise is written to a file; give that with --input to see it
/// again.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Which targets; all unless told
    targets: Vec<String>,
    /// For so long, each target a share
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Every input follows it
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the one target on this file only
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where inputs go that break a promise
    #[arg(long, value_name = "DIR", default_value = ".")]
    found: PathBuf,
}

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let args = Args::parse();
    let named = args.targets.iter().map(|name| (name, target(name)));
    if let Some((name, _)) = named.clone().find(|(_, target)| target.is_none()) {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there is no target {name}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let mut targets: Vec<&Target> = named.filter_map(|(_, target)| target).collect();
    if targets.is_empty() {
        targets = TARGETS.iter().collect();
    }
    if let Some(path) = &args.input {
        let input = match std::fs::read(path) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        };
        targets.iter().for_each(|target| (target.run)(&input));
        return ExitCode::SUCCESS;
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let span = Duration::from_secs(args.seconds) / u32::try_from(targets.len()).unwrap_or(1);
    let mut all_hold = true;
    for target in targets {
        match run(target, seed, span) {
            Ok(cases) => println!("{}: {cases} inputs, all held", target.name),
            Err(input) => {
                all_hold = false;
                let path = args.found.join(format!("found-{}", target.name));
                match std::fs::write(&path, input) {
                    Ok(()) => println!("{}: see {}", target.name, path.display()),
                    Err(error) => eprintln!("{}: {error}", path.display()),
                }
            }
        }
    }
    if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How many inputs held, or one that did not.
fn run(target: &Target, seed: u64, span: Duration) -> Result<u64, Vec<u8>> {
    let mut mutator = Mutator::new(seed, (target.seeds)());
    let until = Instant::now() + span;
    let mut cases = 0;
    while Instant::now() < until {
        let input = mutator.next_input();
        if panic::catch_unwind(|| (target.run)(input)).is_err() {
            return Err(input.to_vec());
        }
        cases += 1;
    }
    Ok(cases)
}
