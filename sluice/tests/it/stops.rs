//! How commands end that are stopped, or whose output nobody reads.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use sluice_engines::MariaDb;

use crate::server::{SLUICE, Server};

/// On a busy machine; nothing here takes a second on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

fn command(arguments: &[&str]) -> Command {
    let mut sluice = Command::new(SLUICE);
    sluice
        .args(arguments)
        .env("SLUICE_PASSWORD", "a long password")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    sluice
}

/// Its end, by itself and soon.
fn end(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        // Not a server's time: nothing waits for it but this test.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([name, &pid]).status();
    assert!(sent.unwrap().success());
}

fn after_a_while(arguments: &[&str], name: &str) -> (Option<i32>, String) {
    let child = command(arguments).spawn().unwrap();
    std::thread::park_timeout(Duration::from_secs(1));
    signal(&child, name);
    let output = end(child);
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told)
}

#[test]
fn who_is_stopped_before_the_end_says_so_by_130() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let state = folder.path().to_str().unwrap();
    let http = server.addresses.http.as_str();
    let alice = ["--server", http, "--user", "alice", "--state-dir", state];
    let registered = command(&[&["recv", "--register", "--for", "0.2"], &alice[..]].concat());
    assert!({ registered }.output().unwrap().status.success());

    let waiting = [&["recv", "--count", "5"], &alice[..]].concat();
    for name in ["-INT", "-TERM"] {
        let (code, told) = after_a_while(&waiting, name);
        assert_eq!(code, Some(130), "{told}");
        assert!(told.contains("stopped before"), "{told}");
    }
    // This one runs until it is stopped.
    let (code, told) = after_a_while(&[&["recv"], &alice[..]].concat(), "-INT");
    assert_eq!(code, Some(0), "{told}");
    // While it adds its users, or right behind that.
    let bench = ["bench", "idle", "--connections", "15000"];
    let (code, told) = after_a_while(&bench, "-TERM");
    assert!(
        code == Some(130) || told.contains("ulimit"),
        "{code:?}: {told}"
    );
}

#[tokio::test]
async fn a_stopped_migration_or_change_of_months_says_so() {
    let database = MariaDb::start().await.unwrap();
    let servers = format!(
        "[{{ url = {:?}, shards = \"0-63\" }}]",
        database.url("sluice")
    );
    let start = |arguments| {
        let mut sluice = command(arguments);
        sluice.env("SLUICE__STORE__MYSQL__SERVERS", &servers);
        sluice.spawn().unwrap()
    };
    // Somebody else is at it.
    let mut other = Command::new("mariadb")
        .args(["--no-defaults", "--user=sluice", "--password=sluice"])
        .args(["--host=127.0.0.1", "--protocol=tcp", "--unbuffered"])
        .args(["--skip-column-names", "sluice"])
        .arg(format!("--port={}", database.address().port()))
        .args([
            "--execute",
            "SELECT GET_LOCK('sluice-sluice', 0); SELECT SLEEP(99)",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut locked = String::new();
    let mut said = BufReader::new(other.stdout.take().unwrap());
    said.read_line(&mut locked).unwrap();
    assert!(locked.contains('1'), "{locked}");

    let stop = |arguments| {
        let waiting = start(arguments);
        std::thread::park_timeout(Duration::from_secs(1));
        signal(&waiting, "-INT");
        let stopped = end(waiting);
        let told = String::from_utf8(stopped.stderr).unwrap();
        assert_eq!(stopped.status.code(), Some(130), "{told}");
        (told, String::from_utf8(stopped.stdout).unwrap())
    };
    let (told, done) = stop(&["migrate"]);
    assert!(told.contains("run it again"), "{told}");
    assert!(done.contains("nothing done; stopped"), "{done}");
    let (told, _) = stop(&["months", "add"]);
    assert!(told.contains("stopped before"), "{told}");

    other.kill().unwrap();
    other.wait().unwrap();
    let done = end(start(&["migrate"]));
    assert!(done.status.success(), "{done:?}");
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(told.contains("made, schema version"), "{told}");
}

#[test]
fn a_stopped_demo_has_told_its_seed_once() {
    let mut child = command(&["demo", "--seed", "5"]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    stderr.read_line(&mut told).unwrap();
    assert_eq!(told, "seed 5\n");
    signal(&child, "-INT");
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(end(child).status.code(), Some(130));
    assert_eq!(told.matches("seed").count(), 1, "{told}");
    assert!(told.contains("stopped before"), "{told}");

    let wrong = command(&["demo", "--data", "/nowhere/at-all"]).output();
    let wrong = String::from_utf8(wrong.unwrap().stderr).unwrap();
    assert!(
        wrong.starts_with("error: ") && !wrong.contains("seed"),
        "{wrong}"
    );
}

#[test]
fn recv_ends_quietly_when_its_reader_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let http = server.addresses.http.as_str();
    let state = folder.path().join("state");
    let run = |arguments: &[&str]| {
        let mut sluice = command(arguments);
        sluice.args(["--server", http, "--state-dir"]).arg(&state);
        sluice
    };
    for user in ["alice", "bob"] {
        let mut recv = run(&["recv", "--register", "--user", user, "--for", "0.2"]);
        assert!(recv.output().unwrap().status.success());
    }
    let send = |text: &str| {
        let sent = run(&["send", "--user", "alice", "--to", "bob", text]).output();
        assert!(sent.unwrap().status.success());
    };
    let mut child = run(&["recv", "--user", "bob", "--json"]).spawn().unwrap();
    send("one");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("\"one\""), "{line}: {:?}", end(child));
    drop(stdout);
    send("two");
    let output = end(child);
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{output:?}");
    // What was not taken comes again.
    let again = run(&["recv", "--user", "bob", "--count", "1", "--for", "30"]).output();
    let again = String::from_utf8(again.unwrap().stdout).unwrap();
    assert!(again.contains("two"), "{again}");
}

#[test]
fn a_demo_whose_server_dies_says_so() {
    let child = command(&["demo", "--faults", "delay_ms=500"])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let server = loop {
        // The server is started by any of the threads.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let children = tasks.filter_map(|task| {
            let children = task.ok()?.path().join("children");
            std::fs::read_to_string(children).ok()
        });
        let children: Vec<String> = children
            .flat_map(|text| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        let is_server = |pid: &&String| {
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            arguments.is_ok_and(|it| it.contains("\0serve\0"))
        };
        if let Some(server) = children.iter().find(is_server) {
            break server.clone();
        }
        assert!(Instant::now() < deadline, "it starts no server");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    // People talk by now, with a second between a word and its answer.
    std::thread::park_timeout(Duration::from_secs(2));
    let killed = Command::new("kill").args(["-KILL", &server]).status();
    assert!(killed.unwrap().success());
    let output = end(child);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ended by itself"), "{told}");
}
