//! The main job, by the program and its JSON.

use std::process::Command;

use serde_json::Value;

use crate::server::{SLUICE, Server};

pub(crate) fn demo(arguments: &[&str]) -> Value {
    let output = Command::new(SLUICE)
        .arg("demo")
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stdout.lines().count(),
        1,
        "one object and no more: {stdout}\n{stderr}"
    );
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert!(output.status.success(), "{report}\n{stderr}");
    report
}

/// The fields that acceptance relies on.
const FIELDS: &[&str] = &[
    "conversations",
    "strands",
    "users",
    "devices",
    "messages",
    "expected",
    "delivered",
    "acked",
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "reconnects",
    "cuts",
    "groups",
    "msgs_per_s",
    "latency_p50_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "latency_max_ms",
    "ack_p50_ms",
    "ack_p99_ms",
    "duration_s",
    "server_rss_peak_mb",
    "seed",
    "ok",
];

#[test]
fn the_excerpt_replays_over_all_transports() {
    let transports = "tcp,tcp+noise,ws,udp";
    let report = demo(&["--limit", "40", "--transports", transports, "--seed", "7"]);
    for field in FIELDS {
        assert!(
            report.get(field).is_some(),
            "{field} is missing in {report}"
        );
    }
    assert_eq!(report["ok"], true);
    assert_eq!(report["strands"], 40);
    assert_eq!(report["groups"], 2);
    assert_eq!(report["seed"], 7);
    assert_eq!(report["delivered"], report["expected"]);
    assert_eq!(report["acked"], report["messages"]);
    assert!(report["server_rss_peak_mb"].as_f64().unwrap() > 1.0);
}

#[test]
fn a_running_server_is_judged_like_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let data = folder.path().join("data");
    let at = ["--limit", "30", "--seed", "3", "--server"];
    let mut arguments = at.to_vec();
    arguments.push(&server.addresses.http);
    let unknown = demo(&arguments);
    assert_eq!(unknown["server_rss_peak_mb"], 0.0);
    arguments.extend(["--data-dir", data.to_str().unwrap()]);
    for report in [unknown, demo(&arguments)] {
        let figure = |name: &str| report[name].as_f64().unwrap();
        assert_eq!(report["ok"], true);
        assert!(figure("cuts") >= figure("users") * 0.05, "{report}");
        // Whoever was cut off came back.
        assert!(figure("reconnects") >= figure("cuts"), "{report}");
        if report["server_rss_peak_mb"] != 0.0 {
            assert!(figure("server_rss_peak_mb") > 1.0, "{report}");
            return;
        }
    }
    panic!("the memory is not known");
}

#[test]
fn a_bad_link_loses_nothing() {
    let faults = "delay_ms=5,jitter_ms=10,reset_s=2,stall_s=4";
    let report = demo(&["--limit", "20", "--faults", faults, "--seed", "11"]);
    assert_eq!(report["ok"], true);
    assert!(report["reconnects"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_bad_network_of_datagrams_loses_nothing() {
    let faults = "loss=0.1,delay_ms=5,jitter_ms=10,dup=0.05,reorder=0.1,corrupt=0.01,rebind_s=5";
    let report = demo(&[
        "--limit",
        "10",
        "--transports",
        "udp",
        "--faults",
        faults,
        "--seed",
        "12",
    ]);
    assert_eq!(report["ok"], true);
    assert_eq!(report["delivered"], report["expected"]);
}

#[test]
fn sessions_go_from_transport_to_transport() {
    let faults = "loss=0.05,delay_ms=5,rebind_s=5,reset_s=3,stall_s=5";
    let transports = "tcp+noise,ws,udp,auto,tcp";
    let report = demo(&[
        "--limit",
        "30",
        "--transports",
        transports,
        "--faults",
        faults,
        "--seed",
        "13",
    ]);
    assert_eq!(report["ok"], true);
    let figure = |name: &str| report[name].as_u64().unwrap();
    assert!(figure("reconnects") >= figure("cuts"), "{report}");
}
