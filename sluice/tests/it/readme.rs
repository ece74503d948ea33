//! Every command of the README is one that the program takes.

use clap::Parser;
use sluice::cli::Cli;

const README: &str = include_str!("../../../README.md");

/// Lines of the console blocks.
fn commands() -> Vec<&'static str> {
    README
        .split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .flat_map(str::lines)
        .collect()
}

fn words(line: &str) -> Vec<String> {
    // Quotes hold words together; nothing else of a shell is used there.
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(nth, piece)| match nth % 2 {
            0 => piece.split_whitespace().map(str::to_owned).collect(),
            _ => vec![piece.to_owned()],
        })
        .collect()
}

#[test]
fn every_command_is_understood() {
    let mut understood = 0;
    for line in commands() {
        let words = words(&line.replace("cargo run --release -- ", "sluice "));
        match words[0].as_str() {
            "sluice" => {
                Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
                understood += 1;
            }
            // These are what runs this test, what builds it, and what other tests run.
            "tools/test" | "cargo" => {}
            // `python_backend` runs both.
            "examples/python/setup" | "target/python/bin/python" => {}
            other => panic!("{line}: nothing tests {other}"),
        }
    }
    assert!(understood >= 8, "{understood}");
}
