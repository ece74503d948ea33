//! `sluice bench idle`, small: what it prints and that it finds a server.

use std::process::Command;

use serde_json::Value;

use crate::server::{SLUICE, Server};

fn idle(more: &[&str]) -> Value {
    let output = Command::new(SLUICE)
        .args(["bench", "idle", "--connections", "20", "--duration", "1"])
        .arg("--json")
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn it_starts_a_server_of_its_own() {
    let report = idle(&["--transport", "ws"]);
    assert_eq!(report["workload"], "idle");
    assert_eq!(report["transport"], "ws");
    assert_eq!(report["connections"], 20);
    assert_eq!(report["errors"], 0);
    assert_eq!(report["generator_bound"], false);
    for name in [
        "duration_s",
        "server_cpu_s",
        "generator_cpu_s",
        "process_bytes_per_connection",
        "kernel_bytes_per_connection",
    ] {
        assert!(report[name].is_number(), "{name}: {report}");
    }
}

#[test]
fn it_measures_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let data = folder.path().join("data");
    let report = idle(&[
        "--server",
        &server.addresses.http,
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert_eq!(report["connections"], 20);
    assert_eq!(report["errors"], 0);
}

#[test]
fn no_time_at_all_is_refused_by_name() {
    let output = Command::new(SLUICE)
        .args(["bench", "idle", "--duration", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--duration must be at least 1"), "{told}");
}

#[test]
fn more_connections_than_open_files_are_refused_at_once() {
    let output = Command::new(SLUICE)
        .args(["bench", "idle", "--connections", "99999999"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("ulimit -n"), "{told}");
}

#[test]
fn it_holds_datagram_sessions() {
    let report = idle(&["--transport", "udp"]);
    assert_eq!(report["transport"], "udp");
    assert_eq!(
        (&report["connections"], &report["errors"]),
        (&20.into(), &0.into())
    );
}
