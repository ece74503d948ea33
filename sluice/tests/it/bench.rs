//! `sluice bench`, small: what each workload prints, and that it finds a server.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::server::{SLUICE, Server};

/// Runs a workload; it must succeed.
fn bench(workload: &str, arguments: &[&str]) -> Value {
    let output = Command::new(SLUICE)
        .args(["bench", workload, "--duration", "1", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{printed}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["workload"], workload);
    assert_eq!(report["errors"], 0);
    for name in ["duration_s", "server_cpu_s", "generator_cpu_s"] {
        assert!(report[name].is_number(), "{name}: {report}");
    }
    assert!(report["generator_bound"].is_boolean(), "{report}");
    report
}

fn idle(more: &[&str]) -> Value {
    bench("idle", &[&["--connections", "20"], more].concat())
}

/// Runs it in vain; returns what it says.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(SLUICE)
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Each is above 0.
fn assert_figures(report: &Value, names: &[&str]) {
    for name in names {
        let figure = report[name].as_f64();
        assert!(figure.is_some_and(|it| it > 0.0), "{name}: {report}");
    }
}

#[test]
fn it_starts_a_server_of_its_own() {
    let report = idle(&["--transport", "ws"]);
    assert_eq!(report["transport"], "ws");
    assert_eq!(report["connections"], 20);
    for name in [
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
}

#[test]
fn numbers_that_cannot_be_are_refused_with_the_cure() {
    let cluster = ["idle", "--cluster", "gateways=2", "--connections"];
    for (connections, cure) in [("9", "10 for example"), ("99999998", "more gateways")] {
        let told = refused(&[&cluster[..], &[connections]].concat());
        assert!(told.contains(cure), "{connections}: {told}");
    }
    for (arguments, cure) in [
        (["idle", "--duration", "0"], "at least 1"),
        (["idle", "--connections", "0"], "at least 1"),
        (["idle", "--connections", "99999999"], "ulimit -n"),
        (["ping", "--connections", "99999999"], "ulimit -n"),
        (["ping", "--depth", "129"], "at most 128"),
        (["chat", "--rate", "0"], "above 0"),
        (["chat", "--connections", "3"], "4 for example"),
        (["chat", "--body", "11"], "from 12"),
        (["fanout", "--connections", "1"], "at least 2"),
        (["storm", "--at-once", "0"], "at least 1"),
        (["request", "--duration", "soon"], "a whole number"),
        (["chat", "--transport", "carrier-pigeon"], "tcp, ws and udp"),
        (["fanout", "--transport", "udp"], "tcp and ws"),
        (["idle", "--cluster", "gateways=0"], "from 1"),
        (["ping", "--cluster", "gateways=2"], "--cluster"),
    ] {
        let told = refused(&arguments);
        assert!(told.contains(cure), "{arguments:?}: {told}");
    }
}

#[test]
fn it_holds_datagram_sessions() {
    let report = idle(&["--transport", "udp"]);
    assert_eq!(report["transport"], "udp");
    assert_eq!(report["connections"], 20);
}

#[test]
fn it_pings_the_gateway_and_the_floor() {
    for transport in ["tcp", "ws", "udp"] {
        let few = ["--connections", "4", "--depth", "3", "--warm-up", "0"];
        let report = bench("ping", &[&few[..], &["--transport", transport]].concat());
        assert_eq!(report["transport"], transport);
        assert_figures(
            &report,
            &[
                "msgs_per_s",
                "floor_msgs_per_s",
                "ratio",
                "rounds",
                "floor_duration_s",
            ],
        );
        // The machine and the configuration are in every report.
        assert_figures(&report, &["cores", "memory_mb"]);
        assert!(report["settings"].as_str().unwrap().contains("event_loops"));
    }
}

const CHAT_FIGURES: [&str; 7] = [
    "msgs_per_s",
    "ack_p50_ms",
    "ack_p99_ms",
    "ack_p999_ms",
    "recv_p50_ms",
    "recv_p99_ms",
    "recv_p999_ms",
];

#[test]
fn pairs_chat_at_a_rate_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let plots = folder.path().join("chat.svg");
    let few = ["--connections", "10", "--rate", "100", "--warm-up", "0"];
    let drawn = ["--svg", plots.to_str().unwrap()];
    let report = bench("chat", &[&few[..], &drawn].concat());
    let plots = std::fs::read_to_string(plots).unwrap();
    for title in [
        "sluice bench chat",
        "Latency by percentile",
        "Rate over time",
    ] {
        assert!(plots.contains(title), "{title}: {plots}");
    }
    assert_figures(&report, &CHAT_FIGURES);
    assert_eq!(report["sent"], 100);
    assert_eq!(report["rate_per_s"], 100.0);
}

#[test]
fn pairs_chat_over_datagrams() {
    let few = ["--connections", "10", "--rate", "100", "--warm-up", "0"];
    let report = bench("chat", &[&few[..], &["--transport", "udp"]].concat());
    assert_figures(&report, &CHAT_FIGURES);
    assert_eq!(report["transport"], "udp");
}

#[test]
fn pairs_chat_as_fast_as_they_can_with_a_server_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let data = folder.path().join("data");
    let few = ["--connections", "10", "--transport", "ws", "--warm-up", "0"];
    // Few under way: this server limits its clients' packets.
    let running = ["--depth", "2", "--server", &server.addresses.http];
    let data = ["--data-dir", data.to_str().unwrap()];
    let report = bench("chat", &[&few[..], &running, &data].concat());
    assert_figures(&report, &CHAT_FIGURES);
    assert_eq!(report["settings"], "");
}

const FANOUT_FIGURES: [&str; 5] = [
    "deliveries_per_s",
    "floor_deliveries_per_s",
    "floor_duration_s",
    "ratio",
    "recv_p99_ms",
];

#[test]
fn a_group_larger_than_clients_can_make_hears_all() {
    let many = ["--connections", "600", "--warm-up", "0"];
    let report = bench("fanout", &many);
    assert_figures(&report, &FANOUT_FIGURES);
}

#[test]
fn a_group_on_a_running_server_hears_all_at_a_rate() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let data = folder.path().join("data");
    let few = ["--connections", "5", "--rate", "50", "--transport", "ws"];
    let running = ["--server", &server.addresses.http];
    let data = ["--data-dir", data.to_str().unwrap(), "--warm-up", "0"];
    let report = bench("fanout", &[&few[..], &running, &data].concat());
    assert_figures(&report, &FANOUT_FIGURES);
    assert_eq!(report["sent"], 50);
}

#[test]
fn all_come_back_after_a_storm() {
    for transport in ["tcp", "ws", "udp"] {
        let few = ["--connections", "50", "--transport", transport];
        let report = bench("storm", &few);
        assert_figures(&report, &["last_back_s", "rss_before_mb", "rss_after_mb"]);
    }
}

#[test]
fn a_backend_answers_requests() {
    let few = ["--connections", "10", "--rate", "100", "--warm-up", "0"];
    let report = bench("request", &few);
    assert_figures(&report, &CHAT_FIGURES);
    assert_eq!(report["sent"], 100);
}

/// Roles of a report's processes, each of which took memory.
fn roles(report: &Value) -> Vec<&str> {
    let processes = report["processes"].as_array().unwrap().iter();
    let roles = processes.map(|it| {
        assert_figures(it, &["process_bytes", "pid"]);
        assert!(it["cpu_s"].is_number(), "{it}");
        it["role"].as_str().unwrap()
    });
    roles.collect()
}

#[test]
fn a_cluster_holds_connections_and_reaches_each() {
    let shape = ["--cluster", "gateways=2", "--connections", "200"];
    let report = bench("idle", &shape);
    assert_eq!(report["connections"], 200);
    assert_eq!(report["pushed"], 200);
    assert_figures(&report, &["process_bytes_per_connection", "recv_p50_ms"]);
    let expected = ["gateway", "gateway", "service", "redis", "mariadb"];
    assert_eq!(roles(&report), expected);
}

#[test]
fn a_cluster_chats_across_its_gateways() {
    let shape = ["--cluster", "gateways=2,services=2", "--transport", "udp"];
    let few = ["--connections", "20", "--rate", "100", "--warm-up", "0"];
    let report = bench("chat", &[&shape[..], &few].concat());
    assert_figures(&report, &CHAT_FIGURES);
    assert_eq!(report["sent"], 100);
    assert_eq!(roles(&report).len(), 6);
}

#[test]
fn a_group_and_a_storm_meet_a_cluster() {
    let shape = ["--cluster", "gateways=2", "--connections", "60"];
    let report = bench("fanout", &[&shape[..], &["--warm-up", "0"]].concat());
    assert_figures(&report, &FANOUT_FIGURES);
    let report = bench("storm", &shape);
    assert_figures(&report, &["last_back_s", "rss_before_mb", "rss_after_mb"]);
}

#[test]
fn each_idle_connection_is_pushed_to_where_that_is_wanted() {
    let report = idle(&["--push-each"]);
    assert_eq!(report["pushed"], 20);
    assert_eq!(roles(&report), ["server"]);
}

#[test]
fn a_bench_that_is_stopped_leaves_no_process() {
    let mut child = Command::new(SLUICE)
        .args(["bench", "chat", "--connections", "4", "--duration", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let deadline = Instant::now() + Duration::from_secs(30);
    // The server and a generator.
    let mut offspring = Vec::new();
    while offspring.len() < 2 {
        assert!(Instant::now() < deadline);
        offspring = children(pid);
        std::thread::yield_now();
    }
    let sent = Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    while offspring.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|pid| parent(*pid) == Some(of)).collect()
}

fn is_alive(pid: u32) -> bool {
    parent(pid).is_some()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn all_is_a_document_with_goals_tables_and_plots() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("RESULTS.md");
    let output = Command::new(SLUICE)
        .args(["bench", "all", "--quick", "--only", "ping,wheel", "--json"])
        .arg("--markdown")
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], 0);
    assert_eq!(report["goals"][0]["goal"], "≥ 95 %");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("| wheel: cancel | ≤ 10 ns |"), "{text}");
    assert!(text.contains("](results/ping-16.svg)"), "{text}");
    assert!(folder.path().join("results/ping-1.svg").exists());
}
