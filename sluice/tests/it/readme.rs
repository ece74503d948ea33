//! Every command of the README is one that the program takes, and its shell
//! blocks do what they say.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use clap::Parser;
use sluice::{
    cli::Cli,
    server_process::{CONFIG, Process},
};
use sluice_client::{Event, LocalState};
use sluice_engines::{GuardedFolder, MariaDb, Redis};

use crate::{
    account::Account,
    roles::{endpoint, http},
    server::{SLUICE, Server},
};

const README: &str = include_str!("../../../README.md");

/// What stands between the fences of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    README
        .split(&format!("```{language}\n"))
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

/// Lines of the console blocks.
fn commands() -> Vec<&'static str> {
    blocks("console").into_iter().flat_map(str::lines).collect()
}

/// The `sh` blocks: how to talk HTTP, and how to run a cluster.
fn scripts() -> [&'static str; 2] {
    blocks("sh").try_into().expect("a block that nothing runs")
}

/// With these words in place of what the README takes for an example; each
/// must be there.
fn put(script: &str, words: &[(&str, &str)]) -> String {
    words
        .iter()
        .fold(script.to_owned(), |script, (example, real)| {
            assert!(script.contains(example), "{example} isn't in {script}");
            script.replace(example, real)
        })
}

/// Sends a message by the README's commands; must not run on a reactor's thread.
fn talk_http(address: &str) {
    let script = put(scripts()[0], &[("127.0.0.1:8080", address)]);
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{out}{err}");
    // Of the last answer.
    assert!(out.contains("\"message_id\""), "{out}{err}");
    assert!(!out.contains("\"code\""), "{out}{err}");
}

#[test]
fn the_http_block_sends_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    talk_http(&server.addresses.http);
    assert!(server.terminate());
}

/// The variables and commands of the cluster block, on engines of the test's
/// own and with free ports, carry a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_block_starts_a_cluster() {
    let folder = Arc::new(GuardedFolder::new("sluice-readme-").unwrap());
    let (redis, mariadb) = (
        Redis::start().await.unwrap(),
        MariaDb::start().await.unwrap(),
    );
    let key = folder.path().join("token-key.pem");
    let datagram_key = folder.path().join("shared-datagram-key");
    let script = put(
        scripts()[1],
        &[
            ("redis://redis:6379", &redis.url()),
            (
                "mysql://sluice:PASSWORD@mariadb:3306/sluice",
                &mariadb.url("sluice"),
            ),
            ("/keys/token-key.pem", key.to_str().unwrap()),
            ("/keys/datagram-key", datagram_key.to_str().unwrap()),
            ("0.0.0.0:8080", "127.0.0.1:0"),
            ("0.0.0.0:8900", "127.0.0.1:0"),
            ("0.0.0.0:8902", "127.0.0.1:0"),
        ],
    );
    let (exports, roles): (Vec<_>, Vec<_>) =
        script.lines().partition(|line| line.starts_with("export "));
    let exports = exports.join("\n");
    // Cheap password hashes: this is not about them.
    let settings = folder.path().join("sluice.toml");
    std::fs::write(&settings, CONFIG).unwrap();
    let shell = |command: &str| {
        let rest = command.strip_prefix("sluice ").unwrap();
        let mut shell = tokio::process::Command::new("bash");
        let line = format!("{exports}\nexec {SLUICE} {rest}");
        shell
            .args(["-euo", "pipefail", "-c", &line])
            .env("SLUICE__DATA_DIR", folder.path())
            .env("RUST_LOG", "error");
        shell
    };
    let made = shell("sluice keys").output().await.unwrap();
    assert!(made.status.success() && key.exists(), "{made:?}");
    let made = shell("sluice keygen").output().await.unwrap();
    assert!(made.status.success() && datagram_key.exists(), "{made:?}");

    let mut processes = Vec::new();
    for (number, role) in roles.iter().enumerate() {
        let role = format!("{role} --admin 127.0.0.1:0 --config {}", settings.display());
        let name = format!("role-{number}");
        let process = Process::start(&mut shell(&role), &name, &folder).await;
        processes.push(process.unwrap());
    }
    let [service, gateway] = &processes[..] else {
        panic!("{roles:?}");
    };
    let address = service.addresses.http.clone();
    tokio::task::spawn_blocking(move || talk_http(&address))
        .await
        .unwrap();
    let dora = Account::register(&http(service), "dora").await;
    let (client, mut events) = dora.device("phone", &endpoint(gateway), LocalState::memory());
    while events.next().await.unwrap() != Event::CaughtUp {}
    client.disconnect(true).await;
    for process in processes.into_iter().rev() {
        process.stop().await.unwrap();
    }
}

fn words(line: &str) -> Vec<String> {
    // Quotes hold words together; nothing else of a shell is used there.
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(nth, piece)| match nth % 2 {
            0 => piece.split_whitespace().map(str::to_owned).collect(),
            _ => vec![piece.to_owned()],
        })
        .collect()
}

#[test]
fn every_command_is_understood() {
    let mut understood = 0;
    for line in commands() {
        let line = line.replace("cargo run --release -- ", "sluice ");
        // It passes what it is told on.
        let line = line.replace("tools/peers ", "sluice bench peers ");
        let words = words(&line);
        match words[0].as_str() {
            "sluice" => {
                Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
                understood += 1;
            }
            // These are what runs this test, what builds it, and what other tests run.
            "tools/test" | "cargo" => {}
            // `python_backend` runs both.
            "examples/python/setup" | "target/python/bin/python" => {}
            other => panic!("{line}: nothing tests {other}"),
        }
    }
    assert!(understood >= 8, "{understood}");
}
