//! Poison, from its stream to the dead letters and back, by the command.

use std::{path::Path, process::Command};

use bytes::Bytes;
use serde_json::Value;
use sluice_bus::{Bus, NodeName, RedisBus, RedisConfig, Stream};
use sluice_engines::Redis;

use crate::server::SLUICE;

const STREAM: &str = "rq:stock:{3}";

struct Told {
    success: bool,
    out: String,
    err: String,
}

impl Told {
    fn rows(&self) -> Vec<Value> {
        assert!(self.success, "{}", self.err);
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

async fn dead_letters(config: &Path, args: &[&str]) -> Told {
    let mut command = Command::new(SLUICE);
    command
        .arg("dead-letters")
        .args(args)
        .arg("--config")
        .arg(config);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    Told {
        success: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Consumers that die of it, one after the other, until it is set aside.
async fn die_of_it(bus: &RedisBus, stream: &Stream) {
    for life in 0..10 {
        let name = NodeName(format!("stock-{life}"));
        let mut reader = bus.join(stream, &name).await.unwrap();
        let read = tokio::time::timeout(std::time::Duration::from_secs(2), reader.read(9));
        if !matches!(read.await, Ok(Ok(batch)) if !batch.entries.is_empty()) {
            return;
        }
    }
    panic!("it is handed out without end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_set_aside_listed_replayed_and_not_lost() {
    let redis = Redis::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sluice.toml");
    let text = format!(
        "[gateway.requests]\nservices = [\"stock\"]\n\
         [bus.redis]\nurls = [{:?}]\ndeliveries_max = 3\n",
        redis.url()
    );
    std::fs::write(&config, text).unwrap();
    let bus = RedisBus::open(&RedisConfig {
        urls: vec![redis.url()],
        deliveries_max: 3,
        claim_idle_ms: 100,
        ..RedisConfig::default()
    })
    .unwrap();
    let stream = Stream::parse(STREAM).unwrap();
    let none = dead_letters(&config, &["list"]).await;
    assert!(none.out.contains("no dead letters"), "{}", none.err);

    bus.append(&stream, vec![Bytes::from_static(b"poison")])
        .await
        .unwrap();
    die_of_it(&bus, &stream).await;

    let rows = dead_letters(&config, &["list", "--json"]).await.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["stream"], STREAM);
    assert_eq!((&row["deliveries"], &row["size"]), (&3.into(), &6.into()));
    assert!(row["reason"].as_str().unwrap().contains("3 times"), "{row}");
    assert!(row["time"].as_str().unwrap().starts_with("20"), "{row}");
    assert!(row.get("body").is_none(), "bodies only when asked for");
    let bodies = dead_letters(&config, &["list", "--json", "--bodies"]).await;
    assert_eq!(bodies.rows()[0]["body"], "cG9pc29u");
    let table = dead_letters(&config, &["list", "--stream", "rq:stock"]).await;
    let id = row["id"].as_str().unwrap();
    assert!(table.out.contains(id), "{}", table.out);
    let other = dead_letters(&config, &["list", "--stream", "up:message", "--json"]).await;
    assert_eq!(other.rows().len(), 0);

    // An id says nothing without its stream, and one that isn't there is a failure.
    assert!(!dead_letters(&config, &["replay", id]).await.success);
    let absent = dead_letters(&config, &["replay", "--stream", STREAM, "1-1"]).await;
    assert!(
        !absent.success && absent.err.contains("1 of 1"),
        "{}",
        absent.err
    );
    let replayed = dead_letters(&config, &["replay", "--stream", STREAM, id, "--json"]).await;
    assert_eq!(replayed.rows()[0]["replayed"], 1);
    assert_eq!(
        dead_letters(&config, &["list", "--json"])
            .await
            .rows()
            .len(),
        0
    );

    let mut reader = bus.join(&stream, &NodeName("mended".into())).await.unwrap();
    let entry = reader.read(9).await.unwrap().entries.remove(0);
    assert_eq!(
        (entry.payload.as_ref(), entry.deliveries),
        (&b"poison"[..], 1)
    );
    drop(reader);

    die_of_it(&bus, &stream).await;
    let removed = dead_letters(&config, &["remove", "--all"]).await;
    assert_eq!(removed.out, "1 removed\n", "{}", removed.err);
    assert_eq!(bus.lag(&stream).await.unwrap().entries, 0);
}

#[tokio::test]
async fn without_redis_there_are_none_to_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sluice.toml");
    std::fs::write(&config, "").unwrap();
    let told = dead_letters(&config, &["list"]).await;
    assert!(
        !told.success && told.err.contains("[bus.redis]"),
        "{}",
        told.err
    );
}
