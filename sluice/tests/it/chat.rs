//! `chat`, `send` and `recv`, as a shell script uses them.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use sluice_client::{HttpApi, UserId};

use crate::{
    server::{SLUICE, Server},
    shell::Shell,
};

fn succeeded(output: &Output) -> bool {
    output.status.success()
}

fn objects(output: &Output) -> Vec<Value> {
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a failed command says, and that it says nothing else.
fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn texts(objects: &[Value]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object["text"].as_str().unwrap())
        .collect()
}

#[test]
fn what_is_sent_is_received_over_both_transports() {
    let shell = Shell::open();
    shell.register(&["bob"]);
    let tcp = [
        "--register",
        "--transport",
        "tcp",
        "--to",
        "bob",
        "--json",
        "over tcp",
    ];
    let first = shell.run("send", "alice", &tcp);
    assert!(succeeded(&first), "{first:?}");
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}";
    let ws = ["--transport", "ws", "--to", "bob", "--json", hostile];
    let second = shell.run("send", "alice", &ws);
    assert!(succeeded(&second), "{second:?}");

    for transport in ["tcp", "ws"] {
        let args = [
            "--transport",
            transport,
            "--count",
            "2",
            "--for",
            "30",
            "--json",
        ];
        let output = shell.run("recv", "bob", &args);
        assert!(succeeded(&output), "{output:?}");
        let messages = objects(&output);
        assert_eq!(texts(&messages), ["over tcp", hostile]);
        for (message, sent) in messages.iter().zip([&first, &second]) {
            let ack = &objects(sent)[0];
            for field in [
                "client_msg_id",
                "message_id",
                "conversation",
                "seq",
                "server_time_ms",
            ] {
                assert_eq!(message[field], ack[field], "{field}");
            }
        }
        let raw = String::from_utf8(output.stdout).unwrap();
        assert!(!raw.chars().any(|c| c != '\n' && c.is_control()), "{raw:?}");
    }
    // Not one's own, unless asked for.
    let own = shell.run("recv", "alice", &["--for", "0.5", "--json"]);
    assert!(succeeded(&own) && own.stdout.is_empty(), "{own:?}");
    let all = shell.run("recv", "alice", &["--for", "0.5", "--all"]);
    let all = String::from_utf8(all.stdout).unwrap();
    assert!(
        all.contains("you: over tcp") && all.contains("\\u{1b}[2J"),
        "{all}"
    );
}

#[test]
fn errors_name_cause_and_cure() {
    let shell = Shell::open();
    shell.register(&["alice"]);
    let send = ["--to", "nobody", "hello"];
    let unknown = failure(&shell.run("send", "alice", &send));
    assert!(unknown.contains("no user \"nobody\""), "{unknown}");
    let missing = failure(&shell.run("send", "zoe", &send));
    assert!(missing.contains("--register"), "{missing}");
    let oneself = failure(&shell.run("send", "alice", &["--to", "alice", "hello"]));
    assert!(oneself.contains("oneself"), "{oneself}");
    let group = failure(&shell.run("send", "alice", &["--group", "g:1", "hello"]));
    assert!(
        group.contains("not_a_member") || group.contains("unknown"),
        "{group}"
    );

    let mut wrong = shell.command("chat", "alice");
    let wrong = failure(
        &wrong
            .env("SLUICE_PASSWORD", "another one")
            .output()
            .unwrap(),
    );
    assert!(wrong.contains("wrong password"), "{wrong}");
    let mut short = shell.command("recv", "zoe");
    short.arg("--register").env("SLUICE_PASSWORD", "short");
    let short = failure(&short.output().unwrap());
    assert!(short.contains("password must have"), "{short}");
    let fewer = failure(&shell.run("recv", "alice", &["--count", "1", "--for", "0.5"]));
    assert!(fewer.contains("0 of 1 messages"), "{fewer}");

    // A port that nobody listens on.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut gone = shell.command("send", "alice");
    gone.args(send)
        .args(["--server", &format!("http://{nowhere}")]);
    let both = gone.output().unwrap();
    assert_eq!(
        both.status.code(),
        Some(2),
        "a flag given twice is no mystery: {both:?}"
    );
    let mut gone = Command::new(SLUICE);
    gone.args([
        "send",
        "--user",
        "alice",
        "--to",
        "bob",
        "hi",
        "--server",
        &nowhere.to_string(),
    ]);
    let gone = failure(&gone.output().unwrap());
    assert!(gone.contains("sluice serve"), "{gone}");
}

#[test]
fn many_sends_need_one_login() {
    // By default ten logins a minute.
    let shell = Shell::open_with("");
    shell.register(&["alice", "bob"]);
    for nth in 0..12 {
        let text = format!("message {nth}");
        let sent = shell.run("send", "alice", &["--to", "bob", &text]);
        assert!(succeeded(&sent), "{nth}: {sent:?}");
        assert!(sent.stderr.is_empty(), "{sent:?}");
    }
    let mut wrong = shell.command("send", "alice");
    wrong.args(["--to", "bob", "hi"]);
    let wrong = failure(&wrong.env("SLUICE_PASSWORD", "another").output().unwrap());
    assert!(wrong.contains("wrong password"), "{wrong}");
}

#[tokio::test]
async fn who_logs_in_too_often_is_told_and_waits() {
    let shell = Shell::open_with("logins_per_user_per_minute = 20\n");
    shell.register(&["alice", "bob"]);
    let api = HttpApi::new(&shell.server.addresses.http).unwrap();
    let bob = UserId::parse("bob").unwrap();
    while api.login(&bob, "the password of bob").await.is_ok() {}
    let mut send = shell.command("send", "bob");
    send.env("XDG_STATE_HOME", shell.folder.path().join("other"));
    let sent = send.args(["--to", "alice", "hi"]).output().unwrap();
    assert!(succeeded(&sent), "{sent:?}");
    let told = String::from_utf8(sent.stderr).unwrap();
    assert!(told.contains("too many logins of bob"), "{told}");
}

#[test]
fn a_second_chat_of_a_device_is_told_what_to_do() {
    let shell = Shell::open();
    shell.register(&["alice"]);
    let mut first = shell.chat("alice");
    first.expect("no conversations yet");
    let second = failure(&shell.run("chat", "alice", &[]));
    for part in ["running as device", "--device", "--state-dir"] {
        assert!(second.contains(part), "{second}");
    }
    let third = shell.run("chat", "alice", &["--device", "another"]);
    assert!(succeeded(&third), "{third:?}");
    assert!(first.end().0);
}

#[test]
fn a_kept_state_goes_on_where_it_was() {
    let shell = Shell::open();
    shell.register(&["alice", "bob"]);
    let state = shell.state();
    let state = state.to_str().unwrap();
    let recv = [
        "--state-dir",
        state,
        "--count",
        "1",
        "--for",
        "30",
        "--json",
    ];
    for text in ["one", "two"] {
        let sent = shell.run(
            "send",
            "alice",
            &["--state-dir", state, "--to", "bob", text],
        );
        assert!(succeeded(&sent), "{sent:?}");
        let received = shell.run("recv", "bob", &recv);
        assert!(succeeded(&received), "{received:?}");
        assert_eq!(texts(&objects(&received)), [text]);
    }
    let nothing = shell.run(
        "recv",
        "bob",
        &["--state-dir", state, "--for", "0.5", "--json"],
    );
    assert!(
        succeeded(&nothing) && nothing.stdout.is_empty(),
        "{nothing:?}"
    );
    assert_private(Path::new(state));
}

/// It holds resume tokens.
fn assert_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn two_people_talk_through_pipes() {
    let shell = Shell::open();
    shell.register(&["alice", "bob"]);
    let (mut alice, mut bob) = (shell.chat("alice"), shell.chat("bob"));
    alice.expect("no conversations yet");
    bob.expect("no conversations yet");
    alice.say("/to bob");
    alice.say("hello bob");
    alice.expect("you: hello bob");
    assert_eq!(bob.expect("hello bob"), "* alice: hello bob");
    bob.say("/to alice");
    bob.expect("alice: hello bob");
    alice.expect("✓✓ bob has read up to #1");
    bob.say("hi \u{1b}[2Jalice");
    alice.expect("bob: hi \\u{1b}[2Jalice");
    alice.say("/recall 1");
    bob.expect("alice took back #1");
    alice.say("/history 2");
    alice.expect("you took back #1");

    alice.say("/create \"the team\" bob");
    alice.expect("== the team ==");
    alice.say("hi all");
    bob.expect("* [the team] alice: hi all");
    bob.say("/group the team");
    bob.expect("alice: hi all");
    bob.say("/members");
    bob.expect("alice (owner)");
    bob.say("/leave");
    bob.expect("you have left");
    alice.expect("bob left");
    alice.say("/block bob");
    alice.expect("bob is blocked");
    bob.say("/to alice");
    bob.say("are you there?");
    bob.expect("not sent to alice");
    let (succeeded, lines) = bob.end();
    assert!(!succeeded, "a line of the script has failed: {lines:#?}");
    let (succeeded, lines) = alice.end();
    assert!(succeeded, "{lines:#?}");
}

#[test]
fn what_came_while_away_is_listed_as_unread() {
    let shell = Shell::open();
    shell.register(&["alice", "bob"]);
    let mut bob = shell.chat("bob");
    bob.expect("no conversations yet");
    assert!(bob.end().0);
    for text in ["one", "two"] {
        assert!(succeeded(&shell.run(
            "send",
            "alice",
            &["--to", "bob", text]
        )));
    }
    let mut bob = shell.chat("bob");
    bob.expect("alice  2 unread");
    bob.say("/open 1");
    bob.expect("alice: one");
    bob.expect("alice: two");
    bob.say("/list");
    let line = bob.expect("  1  alice");
    assert!(!line.contains("unread"), "{line}");
    assert!(bob.end().0);
}

#[test]
fn commands_typed_offline_answer_at_once() {
    let mut shell = Shell::open();
    shell.register(&["alice", "bob"]);
    let mut alice = shell.chat("alice");
    alice.expect("no conversations yet");
    alice.say("/to bob");
    alice.say("said before");
    alice.expect("you: said before");
    shell.server.kill();
    alice.expect("the connection is lost");
    let asked = Instant::now();
    for (command, answer) in [
        ("/list", "offline; the list is as old"),
        ("/who", "offline"),
        ("/open 1", "offline; /history will show"),
        ("/block bob", "offline; try that"),
        ("/create team bob", "offline; try that"),
        ("/recall", "offline; try that"),
    ] {
        alice.say(command);
        alice.expect(answer);
    }
    assert!(asked.elapsed() < Duration::from_secs(4), "{asked:?}");
    assert!(!alice.end().0, "lines of the script have failed");
}

#[test]
fn a_chat_outlives_its_server() {
    let mut shell = Shell::open();
    shell.register(&["alice", "bob"]);
    let mut alice = shell.chat("alice");
    alice.expect("no conversations yet");
    alice.say("/to bob");
    alice.say("said before");
    alice.expect("you: said before");
    shell.server.kill();
    alice.expect("the connection is lost");
    alice.say("said while it was away");
    let addresses = shell.server.addresses.clone();
    shell.server = Server::start(shell.folder.path(), Some(&addresses));
    alice.expect("you: said while it was away");
    let (succeeded, lines) = alice.end();
    assert!(succeeded, "{lines:#?}");
    let received = shell.run("recv", "bob", &["--count", "2", "--for", "30", "--json"]);
    assert_eq!(
        texts(&objects(&received)),
        ["said before", "said while it was away"]
    );
}
