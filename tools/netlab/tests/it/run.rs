//! `sluice-netlab run`.

use crate::{output_of, program};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn each_command_runs_on_a_host_of_its_own_and_nothing_else_goes_over_the_wire() {
    let client = "cat /proc/net/route; cat /proc/net/dev";
    let Some(output) = output_of(&["run", "--client", client]) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    // 192.0.2.0/30, as the kernel writes it, and no other route; two devices.
    assert!(stdout.contains("000200C0"), "{stdout}");
    assert!(!stdout.contains("eth0"), "{stdout}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("packets_up=0 packets_down=0"), "{stderr}");
}

#[test]
fn faults_and_failures_are_named() {
    let failing = ["run", "--client", "exit 3"];
    let Some(output) = output_of(&failing) else {
        return;
    };
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("exit status: 3"), "{stderr}");

    let faults = ["run", "--faults", "rebind_s=1", "--client", "true"];
    let output = output_of(&faults).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("`rebind_s`"), "{stderr}");
}

#[test]
fn after_a_kill_nothing_is_left() {
    let client = "readlink /proc/self/ns/net; sleep 600; true";
    let mut lab = program()
        .args(["run", "--server", "sleep 600", "--client", client])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut namespace = String::new();
    BufReader::new(lab.stdout.take().unwrap())
        .read_line(&mut namespace)
        .unwrap();
    if namespace.is_empty() {
        assert_eq!(lab.wait().unwrap().code(), Some(77));
        eprintln!("SKIPPED: no lab can be made here");
        return;
    }
    assert!(lives(namespace.trim()));
    lab.kill().unwrap();
    lab.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(namespace.trim()) {
        assert!(Instant::now() < deadline, "{namespace} is still there");
        // Waits a little without a runtime of ours.
        Command::new("sleep").arg("0.05").status().unwrap();
    }
}

/// Whether any process of this machine is in the namespace.
fn lives(namespace: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("ns/net")).ok())
        .any(|link| link.to_str() == Some(namespace))
}
