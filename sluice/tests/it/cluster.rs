//! Gateways and services as processes of their own, on Redis and MariaDB.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sluice_client::{Content, Event, EventStream, LocalState, Target};

use crate::{
    account::Account,
    demo::demo,
    roles::{Roles, endpoint, http},
    server::SLUICE,
    talkers::{PATIENCE, Talkers, say},
};

/// The next message that somebody else sent.
async fn next_text(events: &mut EventStream) -> String {
    let next = async {
        loop {
            let event = events.next().await.unwrap();
            if let Event::Entry { entry, own: false } = event
                && let Content::Message { body, .. } = entry.content
            {
                return String::from_utf8(body.to_vec()).unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_one_cluster_meet_on_redis_and_mariadb() {
    let roles = Roles::start().await;
    let users = roles.service("user").await;
    let messages = roles.service("message,group").await;
    let (one, other) = (roles.gateway().await, roles.gateway().await);

    let alice = Account::register(&http(&users), "alice").await;
    let bob = Account::register(&http(&users), "bob").await;
    let (alice_client, mut alice_events) =
        alice.device("phone", &endpoint(&one), LocalState::memory());
    let (bob_client, mut bob_events) = bob.device("phone", &endpoint(&other), LocalState::memory());
    say(&alice_client, Target::User(bob.user.clone()), "hello").await;
    assert_eq!(next_text(&mut bob_events).await, "hello");
    say(&bob_client, Target::User(alice.user.clone()), "hello you").await;
    assert_eq!(next_text(&mut alice_events).await, "hello you");

    let api = http(&messages);
    let group = api.create_group(&alice.token, "tea", std::slice::from_ref(&bob.user));
    let group = group.await.unwrap();
    say(&bob_client, Target::Conversation(group), "to all").await;
    assert_eq!(next_text(&mut alice_events).await, "to all");

    // Lanes and owners would mean other conversations by the same number.
    for role in ["service", "gateway"] {
        let refused = roles.refused(role, &[("SLUICE__PARTITIONS", "32")]);
        assert!(refused.contains("partitions"), "{refused}");
    }

    alice_client.disconnect(true).await;
    bob_client.disconnect(true).await;
    // SIGTERM, one kind after the other: each ends with 0.
    for process in [one, other, messages, users] {
        process.stop().await.unwrap();
    }
}

/// A draining gateway tells its clients when to go; they go on at the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_ends_under_load_and_its_clients_move_on() {
    const PAIRS: usize = 8;
    let roles = Roles::start().await;
    let services = roles.service("").await;
    let (one, other) = (roles.gateway().await, roles.gateway().await);
    let all = [endpoint(&one), endpoint(&other)];
    let talkers = Talkers::start(&http(&services), PAIRS, &all).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    one.stop().await.expect("a drained gateway ends with 0");
    // The longest delay it may ask for is 5 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut moved = 0;
    for met in talkers.finish().await {
        assert!(met.late < Duration::from_secs(1), "{met:?}");
        assert!(met.disconnects <= 1, "{met:?}");
        moved += met.disconnects;
    }
    assert_eq!(moved, PAIRS, "those of the gateway that ended");
    for process in [other, services] {
        process.stop().await.unwrap();
    }
}

/// As in a rolling update: who ends hands its partitions over, so that nobody
/// waits for a lease to run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_end_under_load_one_after_the_other() {
    let roles = Roles::start().await;
    let mut services = vec![roles.service("").await, roles.service("").await];
    let gateway = roles.gateway().await;
    let talkers = Talkers::start(&http(&services[0]), 8, &[endpoint(&gateway)]).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let next = roles.service("").await;
        let ending = std::mem::replace(&mut services[0], next);
        ending.stop().await.expect("it ends with 0");
        services.rotate_left(1);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for met in talkers.finish().await {
        assert!(met.slowest_ack < Duration::from_secs(3), "{met:?}");
        assert_eq!(met.disconnects, 0, "{met:?}");
    }
    services.push(gateway);
    for process in services {
        process.stop().await.unwrap();
    }
}

#[test]
fn a_demo_runs_on_a_cluster() {
    let report = demo(&[
        "--cluster",
        "gateways=2,services=2",
        "--limit",
        "10",
        "--seed",
        "5",
    ]);
    assert_eq!(report["delivered"], report["expected"]);
}

#[test]
fn the_scale_table_has_a_row_for_each_shape() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/scale"))
        .args(["--program", SLUICE, "--limit", "5"])
        .args(["--services", "1", "--gateways", "1,2"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = table.lines().skip(2).collect();
    assert!(rows[0].starts_with("| 1 | 1 | "), "{table}");
    assert!(rows[1].starts_with("| 1 | 2 | "), "{table}");
    assert_eq!(rows.len(), 2, "{table}");
}

#[test]
fn nothing_is_lost_when_parts_of_a_cluster_die() {
    let report = demo(&[
        "--cluster",
        "gateways=2,services=2",
        "--limit",
        "20",
        "--seed",
        "5",
        "--chaos",
        "kill=gateway,service,redis,mariadb every=3s for=13s",
    ]);
    assert!(report["kills"].as_u64().unwrap() >= 3, "{report}");
    assert!(report["stall_max_ms"].as_f64().unwrap() < 15_000.0);
}

/// The ids of processes whose command line contains this.
fn processes_of(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_of = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(is_of).collect()
}

#[test]
fn a_killed_demo_leaves_nothing_behind() {
    // All it makes lies below a folder that no other test has.
    let place = tempfile::tempdir().unwrap();
    let mut demo = Command::new(SLUICE)
        .args(["demo", "--cluster", "gateways=1,services=1", "--json"])
        .env("TMPDIR", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let place_name = place.path().to_str().unwrap();
    let running = |role: &str| {
        let config = format!("{place_name}/sluice-cluster-");
        let of = processes_of(&config).into_iter();
        of.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("\0{role}\0"))
        })
        .count()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    // The clients' positions are the last that a demo makes.
    let has_positions = || {
        let mut entries = place.path().read_dir().unwrap().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().contains("demo-state"))
    };
    while running("gateway") == 0 || running("service") == 0 || !has_positions() {
        assert!(Instant::now() < deadline, "the roles run");
        wait();
    }
    demo.kill().unwrap();
    demo.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !processes_of(place_name).is_empty() || place.path().read_dir().unwrap().next().is_some()
    {
        let left: Vec<_> = place.path().read_dir().unwrap().flatten().collect();
        assert!(
            Instant::now() < deadline,
            "{:?}, {left:?}",
            processes_of(place_name)
        );
        wait();
    }
}

fn wait() {
    std::thread::park_timeout(Duration::from_millis(50));
}
