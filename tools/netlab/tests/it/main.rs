//! The lab as its user starts it: real namespaces, real devices. Where none can be made (no root,
//! no /dev/net/tun) each test says so and is skipped.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used)]

mod compare;
mod run;

use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sluice-netlab"));
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program
}

/// What the program said; `None` where no lab can be made.
fn output_of(arguments: &[&str]) -> Option<Output> {
    let output = program().args(arguments).output().unwrap();
    if output.status.code() == Some(77) {
        let why = String::from_utf8_lossy(&output.stderr);
        eprintln!("SKIPPED: {}", why.trim());
        return None;
    }
    Some(output)
}
