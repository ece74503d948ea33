//! Backends in Python, over Redis, as `examples/python` has them: nothing of
//! this workspace is in them but SPEC.md and the `.proto` files.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use sluice_client::{CallError, Client, ErrorCode, Event, EventStream, HttpApi, LocalState};
use sluice_engines::Redis;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    account::Account,
    server::{SLUICE, Server},
};

/// Python with the packages, made at the first time.
async fn python() -> PathBuf {
    let setup = root().join("examples/python/setup");
    let run = move || Command::new(setup).stderr(Stdio::inherit()).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "examples/python/setup failed");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A backend's process; killed when dropped.
struct Backend(Child);

impl Backend {
    fn start(python: &Path, program: &str, redis: &Redis) -> Self {
        let child = Command::new(python)
            .arg(root().join(program))
            .args([
                "--redis",
                &redis.url(),
                "--lease-ms",
                "1000",
                "--deliveries-max",
                "3",
            ])
            .env("PYTHONPATH", root().join("examples/python"))
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Redis, a server on it that offers the service `echo`, and a client.
struct World {
    redis: Redis,
    _server: Server,
    folder: tempfile::TempDir,
    client: Arc<Client>,
    _events: EventStream,
    python: PathBuf,
}

impl World {
    async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tables = format!(
            "[gateway.requests]\nservices = [\"echo\"]\n[bus.redis]\nurls = [{:?}]\n",
            redis.url()
        );
        let server = Server::start_with(folder.path(), None, &tables);
        let api = HttpApi::new(&server.addresses.http).unwrap();
        let alice = Account::register(&api, "alice").await;
        let endpoint = sluice_client::Endpoint::tcp(server.addresses.tcp);
        let (client, mut events) = alice.device("phone", &endpoint, LocalState::memory());
        assert_eq!(
            events.next().await,
            Some(Event::Connected { resumed: false })
        );
        Self {
            redis,
            _server: server,
            folder,
            client: Arc::new(client),
            _events: events,
            python: python().await,
        }
    }

    fn backend(&self, program: &str) -> Backend {
        Backend::start(&self.python, program, &self.redis)
    }

    async fn ask(&self, payload: &str, timeout: Duration) -> Heard {
        ask(&self.client, payload, timeout).await
    }
}

/// What can come of a request when backends die: nothing else is taken.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Answer(u32, String),
    Timeout,
}

async fn ask(client: &Client, payload: &str, timeout: Duration) -> Heard {
    // The key chooses the partition.
    let asked = client.request("echo", payload.to_owned(), payload.to_owned(), timeout);
    match asked.await {
        Ok(answer) => {
            let text = String::from_utf8(answer.payload.to_vec()).unwrap();
            Heard::Answer(answer.status, text)
        }
        Err(CallError::Timeout) => Heard::Timeout,
        Err(CallError::Refused(refusal)) if refusal.code == ErrorCode::Timeout => Heard::Timeout,
        Err(other) => panic!("{payload}: {other}"),
    }
}

const LONG: Duration = Duration::from_secs(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_dies_in_the_midst_and_no_request_is_lost_in_silence() {
    let world = World::start().await;
    let backend = world.backend("examples/python/echo.py");
    let first = world.ask("first", LONG).await;
    assert_eq!(first, Heard::Answer(0, "alice: first".into()));

    // 32 at a time; the backend dies when a third has been heard.
    let room = Arc::new(Semaphore::new(32));
    let mut asked = JoinSet::new();
    for n in 0..300 {
        let (client, room) = (Arc::clone(&world.client), Arc::clone(&room));
        asked.spawn(async move {
            let _room = room.acquire().await.unwrap();
            (
                n,
                ask(&client, &format!("no {n}"), Duration::from_secs(20)).await,
            )
        });
    }
    let (mut heard, mut answered) = (0, 0);
    let mut backend = Some(backend);
    let mut next = None;
    while let Some(result) = asked.join_next().await {
        let (n, what) = result.unwrap();
        heard += 1;
        if what != Heard::Timeout {
            assert_eq!(what, Heard::Answer(0, format!("alice: no {n}")));
            answered += 1;
        }
        if heard == 100 {
            backend.take().unwrap().kill();
            next = Some(world.backend("examples/python/echo.py"));
        }
    }
    assert_eq!(heard, 300);
    assert!(answered >= 100, "{answered} answers");
    println!("{answered} of {heard} answered, the others timed out");

    // Dead, and nobody there: the gateway says so; the answer that comes later
    // is nobody's, and the next request gets its own.
    next.unwrap().kill();
    let unheard = world.ask("in vain", Duration::from_millis(500)).await;
    assert_eq!(unheard, Heard::Timeout);
    let _back = world.backend("examples/python/echo.py");
    let again = world.ask("in vain", LONG).await;
    assert_eq!(again, Heard::Answer(0, "alice: in vain".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kills_a_backend_is_set_aside_and_its_neighbours_are_answered() {
    const DEADLY: &str = "sluice/tests/it/python/deadly.py";
    let world = World::start().await;
    let mut backend = world.backend(DEADLY);
    // Raised in Python: a named failure, and a dead letter.
    let odd = world.ask("odd", LONG).await;
    assert_eq!(odd, Heard::Answer(500, String::new()));

    // Who watches over the backend starts it again, until it stays alive.
    let deadly = tokio::spawn({
        let client = Arc::clone(&world.client);
        async move { ask(&client, "deadly", LONG).await }
    });
    let fine = tokio::spawn({
        let client = Arc::clone(&world.client);
        async move { ask(&client, "fine", LONG).await }
    });
    let mut deaths = 0;
    let until = std::time::Instant::now() + LONG * 2;
    let listed = loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if backend.ended() {
            deaths += 1;
            backend = world.backend(DEADLY);
        }
        let listed = dead_letters(&world, &["list", "--json"]).await;
        if listed.len() == 2 {
            break listed;
        }
        assert!(
            std::time::Instant::now() < until,
            "{deaths} deaths, {listed:?}"
        );
    };
    assert_eq!(deaths, 3, "as often as --deliveries-max says");
    assert_eq!(fine.await.unwrap(), Heard::Answer(0, "survived".into()));
    deadly.abort();

    let reasons: Vec<_> = listed
        .iter()
        .map(|row| row["reason"].as_str().unwrap())
        .collect();
    assert!(reasons.contains(&"ValueError: odd indeed"), "{reasons:?}");
    let deadly = listed.iter().find(|row| row["deliveries"] == 3).unwrap();
    assert!(
        deadly["reason"]
            .as_str()
            .unwrap()
            .contains("never acknowledged"),
        "{deadly}"
    );

    // Mended, and replayed: it is read again, and gone for good.
    backend.kill();
    let _mended = world.backend("examples/python/echo.py");
    let replayed = dead_letters(
        &world,
        &["replay", "--stream", "rq:echo", "--all", "--json"],
    );
    assert_eq!(replayed.await[0]["replayed"], 2);
    let after = world.ask("deadly", LONG).await;
    assert_eq!(after, Heard::Answer(0, "alice: deadly".into()));
    assert!(dead_letters(&world, &["list", "--json"]).await.is_empty());
}

async fn dead_letters(world: &World, args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(SLUICE);
    command.arg("dead-letters").args(args).arg("--config");
    command.arg(world.folder.path().join("sluice.toml"));
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
