//! `sluice bench peers`, small: each system under the same load, nothing lost.

use std::process::Command;

use serde_json::Value;

use crate::server::SLUICE;

/// The command's output, or `None`, with a word, where a package isn't installed.
fn peers(names: &str, more: &[&str]) -> Option<Value> {
    let output = Command::new(SLUICE)
        .args(["bench", "peers", "--json", "--peers", names])
        .args(["--connections", "20", "--depth", "4"])
        .args(["--idle-connections", "20", "--idle", "1"])
        .args(["--warm-up", "0", "--duration", "1"])
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("needs the Debian package") {
        eprintln!("skipped: {told}");
        return None;
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{printed}");
    Some(serde_json::from_str(&printed).unwrap())
}

/// One system's part of the report.
fn system(name: &str) -> Option<Value> {
    let report = peers(name, &[])?;
    assert_eq!(report["workload"], "peers");
    assert_eq!(report["errors"], 0, "{report}");
    let system = report["systems"][0].clone();
    assert_eq!(system["system"], name);
    assert!(!system["version"].as_str().unwrap().is_empty());
    assert!(system["process_bytes_per_connection"].is_number());
    for figure in ["msgs_per_s", "half.ack_p99_ms", "half.recv_p50_ms"] {
        let found = figure.split('.').fold(&system, |it, key| &it[key]);
        assert!(found.as_f64().unwrap() > 0.0, "{figure}: {system}");
    }
    Some(system)
}

#[test]
fn mosquitto_acks_and_delivers() {
    if let Some(system) = system("mosquitto") {
        assert_eq!(system["durability"], "memory");
    }
}

#[test]
fn nats_acks_and_delivers() {
    if let Some(system) = system("nats") {
        assert_eq!(system["durability"], "none");
    }
}

#[test]
fn jetstream_acks_and_delivers() {
    if let Some(system) = system("jetstream") {
        assert_eq!(system["durability"], "written");
    }
}

#[test]
fn ejabberd_acks_and_delivers() {
    if let Some(system) = system("ejabberd") {
        assert_eq!(system["durability"], "synced");
    }
}

#[test]
fn sluice_is_held_against_a_peer_in_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("peers.md");
    let Some(report) = peers("sluice,nats", &["--markdown", table.to_str().unwrap()]) else {
        return;
    };
    let ratios = [0, 1].map(|at| report["systems"][at]["sluice_ratio"].as_f64());
    assert_eq!(ratios[0], Some(1.0));
    assert!(ratios[1].is_some_and(|it| it > 0.0), "{report}");
    let table = std::fs::read_to_string(table).unwrap();
    for line in [
        "| sluice ",
        "| nats 2",
        "What an ack means",
        "PONG after a batch",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn who_is_no_peer_is_refused_with_the_names_of_those_who_are() {
    for (arguments, cure) in [
        (["--peers", "sluice,rabbit"], "sluice, mosquitto, nats"),
        (["--body-bytes", "23"], "at least 24"),
        (["--connections", "3"], "4 for example"),
    ] {
        let output = Command::new(SLUICE)
            .args(["bench", "peers"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(cure), "{arguments:?}: {told}");
    }
}
