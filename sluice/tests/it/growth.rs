//! What a durable message costs the server, counted and not timed, so that a change
//! that makes it dearer shows on a noisy machine: instructions and allocations under
//! callgrind, of a whole `sluice serve`.
//!
//! One pair sends one message at a time, so nothing is shared by a batch: that is the
//! dearest message there is. Two runs of different length against one server; what
//! is not a message's own (logins, accounts) is the same in both, and falls out.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::server::{SLUICE, Server};

/// Of one durable message, from the read of its send to the write of its ack and push,
/// without optimization: 541,000 to 562,000 were seen. To be lowered when it gets cheaper.
const INSTRUCTIONS_MAX: f64 = 640_000.0;
/// 149 to 160 were seen.
const ALLOCATIONS_MAX: f64 = 180.0;

/// What callgrind has counted.
#[derive(Debug, Clone, Copy)]
struct Count {
    messages: f64,
    instructions: f64,
    allocations: f64,
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "the bounds are those of a debug build"
)]
fn a_message_gets_no_dearer() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(SLUICE);
    let server = Server::start_by(valgrind, folder.path(), None, "");
    // What is set up once, and the first pages.
    count(&server, folder.path(), 2);
    let short = count(&server, folder.path(), 1);
    let long = count(&server, folder.path(), 6);
    let messages = long.messages - short.messages;
    assert!(messages > 100.0, "{short:?} {long:?}");
    let instructions = (long.instructions - short.instructions) / messages;
    let allocations = (long.allocations - short.allocations) / messages;
    println!("a message: {instructions:.0} instructions, {allocations:.1} allocations");
    assert!(instructions < INSTRUCTIONS_MAX, "{instructions}");
    assert!(allocations < ALLOCATIONS_MAX, "{allocations}");
}

/// Of a run of so many seconds.
fn count(server: &Server, folder: &Path, seconds: u32) -> Count {
    let output = Command::new(SLUICE)
        .args(["bench", "chat", "--connections", "2", "--depth", "1"])
        .args(["--warm-up", "0", "--duration", &seconds.to_string()])
        .args(["--server", &server.addresses.http, "--data-dir"])
        .arg(folder.join("data"))
        .arg("--json")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pid = server.pid().to_string();
    let dumped = Command::new("callgrind_control")
        .args(["--dump", &pid])
        .output();
    assert!({ dumped }.unwrap().status.success());
    // The newest part; all parts have been read but this one.
    let mut parts: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some() && path.to_string_lossy().contains("callgrind."))
        .collect();
    let part = parts.pop().unwrap();
    assert!(parts.is_empty(), "{parts:?}");
    let text = fs::read_to_string(&part).unwrap();
    fs::remove_file(part).unwrap();
    Count {
        messages: report["sent"].as_f64().unwrap(),
        instructions: instructions(&text),
        allocations: allocations(&text),
    }
}

fn instructions(part: &str) -> f64 {
    let totals = part.lines().find_map(|line| line.strip_prefix("totals: "));
    totals.unwrap().trim().parse().unwrap()
}

/// Calls of the allocator. A name is written out where it comes first, as `(7) malloc`,
/// and is `(7)` from then on; the line behind a callee says how often it was called.
fn allocations(part: &str) -> f64 {
    let mut allocators = Vec::new();
    let mut is_allocator = false;
    let mut sum = 0.0;
    for line in part.lines() {
        let callee = line.strip_prefix("cfn=");
        if let Some(function) = callee.or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if ["malloc", "calloc", "realloc", "posix_memalign"].contains(&name) {
                allocators.push(number.to_owned());
            }
            is_allocator = callee.is_some() && allocators.iter().any(|it| it == number);
        } else if let Some(calls) = line.strip_prefix("calls=")
            && is_allocator
        {
            let times = calls.split_whitespace().next().unwrap();
            sum += times.parse::<f64>().unwrap();
        }
    }
    sum
}
