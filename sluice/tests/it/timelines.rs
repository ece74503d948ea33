//! Messages that are followed through a whole server, by HTTP and by the command.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use sluice_client::{Client, ContentType, Event, EventStream, HttpApi, Target, Transport};

use crate::{
    account::Account,
    roles::{Roles, endpoint, http},
    server::{SLUICE, Server},
};

const ROAD: [&str; 10] = [
    "read",
    "decode",
    "lane",
    "append",
    "take",
    "check",
    "commit",
    "emit",
    "ack",
    "ack_write",
];
const PUSH_ROAD: [&str; 3] = ["push", "push_write", "push_ack"];

struct Admin(String);

impl Admin {
    fn of(server: &Server) -> Self {
        Self(format!("http://{}/admin/timelines", server.addresses.admin))
    }

    async fn begin(&self, order: Value) -> StatusCode {
        let request = reqwest::Client::new().post(&self.0).json(&order);
        request.send().await.unwrap().status()
    }

    async fn read(&self) -> Value {
        let answer = reqwest::get(&self.0).await.unwrap();
        answer.json().await.unwrap()
    }

    /// Once so many messages have been followed to their PushAck.
    async fn read_acked(&self, messages: usize) -> Value {
        for _ in 0..200 {
            let told = self.read().await;
            let rows = told["messages"].as_array().unwrap();
            let is_acked = |row: &Value| row["pushes"][0]["push_ack"].is_u64();
            if rows.len() >= messages && rows.iter().all(is_acked) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}", self.read().await);
    }

    async fn forget(&self) {
        let asked = reqwest::Client::new().delete(&self.0).send().await;
        assert_eq!(asked.unwrap().status(), StatusCode::NO_CONTENT);
    }
}

/// Two users, and their clients.
async fn pair(server: &Server, transport: Transport) -> [(Account, Client, EventStream); 2] {
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let mut pair = Vec::new();
    for name in ["alice", "bob"] {
        let account = Account::register(&api, name).await;
        let mut endpoint = server.endpoint();
        endpoint.tcp.take_if(|_| transport != Transport::Tcp);
        endpoint.udp.take_if(|_| transport != Transport::Udp);
        endpoint.ws.take_if(|_| transport != Transport::WebSocket);
        let (client, mut events) = account.device_among("phone", vec![endpoint]);
        while !matches!(events.next().await.unwrap(), Event::CaughtUp) {}
        pair.push((account, client, events));
    }
    pair.try_into().unwrap_or_else(|_| unreachable!("two"))
}

async fn say(from: &Client, to: &Account, text: &str) {
    let target = Target::User(to.user.clone());
    let sent = from.send(target, ContentType::Text, text.to_owned());
    sent.await.unwrap().acked().await.unwrap();
}

/// All stages are there, and none comes before the one before it.
fn check(row: &Value) {
    let at = |spans: &Value, stage: &str| {
        let at = spans[stage].as_u64();
        at.unwrap_or_else(|| panic!("no {stage} in {row}"))
    };
    let common: Vec<_> = ROAD.iter().map(|stage| at(&row["stages"], stage)).collect();
    assert!(common.is_sorted(), "{row}");
    assert_eq!(common[0], 0);
    let emitted = at(&row["stages"], "emit");
    let pushes = row["pushes"].as_array().unwrap();
    assert_eq!(pushes.len(), 1, "{row}");
    let pushed = PUSH_ROAD.iter().map(|stage| at(&pushes[0], stage));
    assert!([emitted].into_iter().chain(pushed).is_sorted(), "{row}");
    assert!(row["seq"].as_u64().unwrap() > 0);
}

async fn a_message_is_followed_by(transport: Transport) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let admin = Admin::of(&server);
    let [(alice, alices, _a), (bob, bobs, _b)] = pair(&server, transport).await;
    say(&alices, &bob, "unseen").await;
    let off = admin.read().await;
    assert_eq!(
        (&off["armed"], &off["messages"]),
        (&json!(false), &json!([]))
    );

    assert_eq!(
        admin.begin(json!({"user": "alice", "for_s": 60})).await,
        StatusCode::ACCEPTED
    );
    for text in ["a secret", "another", "and one more"] {
        say(&alices, &bob, text).await;
        say(&bobs, &alice, "not hers").await;
    }
    let told = admin.read_acked(3).await;
    let rows = told["messages"].as_array().unwrap();
    assert_eq!((rows.len(), &told["armed"]), (3, &json!(true)));
    for row in rows {
        assert_eq!(row["sender"], "alice");
        check(row);
    }
    assert!(!told.to_string().contains("secret"));

    // By the connection that is told there, and by a sample of one: all.
    let connection = &rows[0]["connection"];
    let order = json!({"connection": connection, "messages_max": 1});
    assert_eq!(admin.begin(order).await, StatusCode::ACCEPTED);
    say(&bobs, &alice, "not by hers").await;
    say(&alices, &bob, "by hers").await;
    say(&alices, &bob, "one too many").await;
    let told = admin.read_acked(1).await;
    assert_eq!(
        (
            told["messages"][0]["sender"].as_str(),
            &told["messages_over"]
        ),
        (Some("alice"), &json!(1))
    );
    assert_eq!(
        admin.begin(json!({"sample_one_in": 1, "for_s": 1})).await,
        StatusCode::ACCEPTED
    );
    say(&bobs, &alice, "one of one").await;
    check(&admin.read_acked(1).await["messages"][0]);

    // Its time is over; then it is forgotten.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    say(&bobs, &alice, "late").await;
    let over = admin.read().await;
    assert_eq!(
        (&over["armed"], over["messages"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    admin.forget().await;
    say(&bobs, &alice, "off again").await;
    assert_eq!(admin.read().await["messages"], json!([]));
    assert_eq!(
        admin.begin(json!({"for_s": 1})).await,
        StatusCode::BAD_REQUEST
    );
    assert!(server.terminate());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_through_all_stages_over_tcp() {
    a_message_is_followed_by(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_through_all_stages_over_udp() {
    a_message_is_followed_by(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_tells_where_the_time_goes() {
    let folder = tempfile::tempdir().unwrap();
    let token = "[gateway]\nadmin_token = \"a token\"\n";
    let server = Server::start_with(folder.path(), None, token);
    let [(_, alices, _a), (bob, _bobs, _b)] = &pair(&server, Transport::WebSocket).await;
    let command = |arguments: &[&str], token: &str| {
        Command::new(SLUICE)
            .args([
                "timeline",
                "--server",
                &server.addresses.admin,
                "--for",
                "2",
            ])
            .args(arguments)
            .env("SLUICE_ADMIN_TOKEN", token)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let wrong = command(&[], "no token").wait_with_output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("bad_token"));

    let json = command(&["--json", "--user", "alice"], "a token");
    let waiting = tokio::task::spawn_blocking(|| json.wait_with_output().unwrap());
    while !waiting.is_finished() {
        say(alices, bob, "hello").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = waiting.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["messages"].as_u64().unwrap() > 5, "{told}");
    let stages = told["stages"].as_array().unwrap();
    let names: Vec<_> = stages
        .iter()
        .filter_map(|it| it["stage"].as_str())
        .collect();
    assert_eq!(names, [&ROAD[..], &PUSH_ROAD].concat());
    assert!(told["slowest"]["total_us"].as_i64().unwrap() > 0, "{told}");

    let silent = command(&["--user", "carol"], "a token");
    let silent = tokio::task::spawn_blocking(|| silent.wait_with_output().unwrap());
    let output = silent.await.unwrap();
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "no message was seen\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_processes_of_a_cluster_tell_is_one_road() {
    let roles = Roles::start().await;
    let service = roles.service("").await;
    let (one, other) = (roles.gateway().await, roles.gateway().await);
    let api = http(&service);
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let (alices, _a) = alice.device_among("phone", vec![endpoint(&one)]);
    let (_bobs, mut events) = bob.device_among("phone", vec![endpoint(&other)]);
    while !matches!(events.next().await.unwrap(), Event::CaughtUp) {}
    let mut command = Command::new(SLUICE);
    command.args(["timeline", "--for", "2", "--json", "--sample", "1"]);
    for process in [&service, &one, &other] {
        let admin = process.addresses.admin.as_ref().unwrap();
        command.args(["--server", &admin.to_string()]);
    }
    let waiting = tokio::task::spawn_blocking(move || command.output().unwrap());
    while !waiting.is_finished() {
        say(&alices, &bob, "hello").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = waiting.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stages = told["stages"].as_array().unwrap();
    let names: Vec<_> = stages
        .iter()
        .filter_map(|it| it["stage"].as_str())
        .collect();
    assert_eq!(names, [&ROAD[..], &PUSH_ROAD].concat());
    // One machine's clock, read by three processes.
    for stage in stages {
        let step_us = stage["step_p50_us"].as_i64().unwrap();
        assert!(step_us > -2_000, "{told}");
    }
}
