//! What Redis does to streams when it is killed, paused, flushed or slow: each
//! trap of Redis Streams with a test.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sluice_bus::{Bus, BusError, Reader, RedisBus, RedisConfig, RedisMode, Stream};
use sluice_engines::{Redis, RedisCluster};
use sluice_protocol::{Incarnation, Partition};

use super::{
    corner_of, on_cluster, on_one_server,
    streams::{open, small},
};
use crate::contract::{
    bus::{batch, name, numbers},
    eventually, soon,
};

const UP: Stream = Stream::Message(Partition(3));
const SHARED: Stream = Stream::Ack(Partition(2));
const DOWN: Stream = Stream::Down(Incarnation(4));

fn on(server: &Redis) -> RedisConfig {
    small(corner_of(vec![server.url()], RedisMode::Single))
}

async fn redis_cli(server: &Redis, arguments: &[&str]) -> String {
    let port = server.address().port().to_string();
    let mut cli = std::process::Command::new("redis-cli");
    let output = cli.args(["-p", &port]).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Reads until that many have come, repeats included, through errors that pass; acks them.
async fn drain_through(reader: &mut Box<dyn Reader>, count: usize) -> Vec<u32> {
    let mut seen = Vec::new();
    soon("entries", async {
        while seen.len() < count {
            match reader.read(64).await {
                Ok(read) => {
                    let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
                    seen.extend(numbers(&read));
                    // An ack whose answer is lost may be done: they come again, or not.
                    let _ = reader.ack(&ids).await;
                }
                Err(BusError::Unavailable(_) | BusError::Unknown(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    seen
}

/// Reads and acks until `last` comes, through errors that pass. What came, each once.
async fn first_seen_until(reader: &mut Box<dyn Reader>, last: u32) -> Vec<u32> {
    let mut seen = Vec::new();
    soon("the last entry", async {
        while !seen.contains(&last) {
            match reader.read(64).await {
                Ok(read) => {
                    let new = numbers(&read);
                    seen.extend(
                        new.into_iter()
                            .filter(|n| !seen.contains(n))
                            .collect::<Vec<_>>(),
                    );
                    let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
                    // If this fails, they come again.
                    let _ = reader.ack(&ids).await;
                }
                Err(BusError::Unavailable(_) | BusError::Unknown(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    seen
}

async fn append_until_known(bus: &RedisBus, stream: &Stream, entries: Vec<Bytes>) -> u32 {
    let mut tries = 1;
    while let Err(error) = bus.append(stream, entries.clone()).await {
        assert!(
            matches!(error, BusError::Unavailable(_) | BusError::Unknown(_)),
            "{error}"
        );
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tries
}

/// The old owner's process stood still: its lease runs out because nobody renews it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_paused_past_its_lease_is_fenced() {
    let config = RedisConfig {
        lease_ttl_ms: 300,
        ..small(on_one_server().await)
    };
    let bus = open(&config);
    bus.append(&UP, batch(0..6)).await.unwrap();
    // An owner on a runtime of its own that stops running is a paused process.
    let paused = tokio::task::spawn_blocking({
        let config = config.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let stale = open(&config);
            let (reader, read) = runtime.block_on(async {
                let mut reader = stale.own(&UP, &name("stale")).await.unwrap();
                let read = reader.read(2).await.unwrap();
                (reader, read)
            });
            (runtime, reader, read)
        }
    });
    let (runtime, mut stale, held) = paused.await.unwrap();
    let mut owner = soon("the lease", bus.own(&UP, &name("next")))
        .await
        .unwrap();
    let lost = BusError::LeaseLost(UP.to_string());
    let ids: Vec<_> = held.entries.iter().map(|entry| entry.id).collect();
    let (acked, read) = tokio::task::spawn_blocking(move || {
        let acked = runtime.block_on(stale.ack(&ids));
        let read = runtime.block_on(stale.read(9)).err();
        drop(stale);
        (acked, read)
    })
    .await
    .unwrap();
    assert_eq!(acked, Err(lost.clone()));
    assert_eq!(read, Some(lost));
    assert_eq!(drain_through(&mut owner, 6).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_told_once_and_the_reader_goes_on() {
    let server = Redis::start().await.unwrap();
    let bus = open(&on(&server));
    for stream in [&DOWN, &UP, &SHARED] {
        let mut reader = match stream {
            Stream::Ack(_) => bus.join(stream, &name("a")).await.unwrap(),
            _ => bus.own(stream, &name("a")).await.unwrap(),
        };
        bus.append(stream, batch([1])).await.unwrap();
        let before = reader.read(9).await.unwrap();
        assert!(!before.reset);
        let reading = tokio::spawn(async move { (reader.read(9).await, reader) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        redis_cli(&server, &["FLUSHALL"]).await;
        let (read, mut reader) = soon("the news", reading).await.unwrap();
        assert!(read.unwrap().reset, "{stream}");
        reader.ack(&[before.entries[0].id]).await.unwrap();
        bus.append(stream, batch([2])).await.unwrap();
        let after = soon("the next", reader.read(9)).await.unwrap();
        assert_eq!((after.reset, numbers(&after)), (false, vec![2]));
    }
}

/// What a failover brings back as pending is met again after the reconnect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_with_an_append_only_file_loses_nothing() {
    // Synced at each write: with `everysec` a kill may lose what a slow disk held up.
    let mut server = Redis::with(sluice_engines::RedisSettings {
        aof: true,
        arguments: ["--appendfsync", "always"].map(String::from).into(),
        ..sluice_engines::RedisSettings::default()
    })
    .await
    .unwrap();
    let config = RedisConfig {
        lease_ttl_ms: 20_000,
        ..on(&server)
    };
    let bus = open(&config);
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, batch(0..10)).await.unwrap();
    let held = reader.read(4).await.unwrap();
    assert_eq!(numbers(&held), [0, 1, 2, 3]);
    server.kill().unwrap();
    let refused = bus.append(&UP, batch([99])).await.unwrap_err();
    assert!(
        matches!(refused, BusError::Unavailable(_) | BusError::Unknown(_)),
        "{refused}"
    );
    assert!(reader.ack(&[held.entries[0].id]).await.is_err());
    server.restart().await.unwrap();
    append_until_known(&bus, &UP, batch(10..12)).await;
    let seen = first_seen_until(&mut reader, 11).await;
    let expected: Vec<u32> = (0..10).chain([99]).chain(10..12).collect();
    let expected = expected
        .into_iter()
        .filter(|n| seen.contains(n) || *n != 99);
    assert_eq!(seen, expected.collect::<Vec<_>>(), "its own pending first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_append_is_repeated_and_comes_once_or_twice() {
    let server = Redis::start().await.unwrap();
    let config = RedisConfig {
        response_timeout_ms: 150,
        lease_ttl_ms: 20_000,
        ..on(&server)
    };
    let bus = open(&config);
    bus.append(&UP, batch([0])).await.unwrap();
    server.pause().unwrap();
    let unknown = bus.append(&UP, batch([1])).await.unwrap_err();
    assert!(matches!(unknown, BusError::Unknown(_)), "{unknown}");
    server.resume().unwrap();
    append_until_known(&bus, &UP, batch([1])).await;
    bus.append(&UP, batch([2])).await.unwrap();
    let mut reader = soon("the lease", bus.own(&UP, &name("a"))).await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&2) {
        seen.extend(drain_through(&mut reader, 1).await);
    }
    seen.dedup();
    assert_eq!(&seen[..3.min(seen.len())], [0, 1, 2], "{seen:?}");
}

/// A paused server makes a read's outcome unknown: it may yet take entries that
/// nobody sees. The next reads find them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_cut_off_by_a_pause_lose_and_reorder_nothing() {
    let server = Redis::start().await.unwrap();
    let config = RedisConfig {
        response_timeout_ms: 100,
        lease_ttl_ms: 20_000,
        ..on(&server)
    };
    let bus = open(&config);
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let producer = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move {
            for number in 0..200 {
                append_until_known(&bus, &UP, batch([number])).await;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let reading = tokio::spawn(async move {
        let mut newest = None::<u32>;
        while newest != Some(199) {
            for number in drain_through(&mut reader, 1).await {
                let next = newest.map_or(0, |newest| newest + 1);
                assert!(number <= next, "{number} before {next}");
                newest = newest.max(Some(number));
            }
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.pause().unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        server.resume().unwrap();
    }
    producer.await.unwrap();
    soon("the reader", reading).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_reads_outlast_the_response_timeout() {
    let config = RedisConfig {
        response_timeout_ms: 100,
        block_ms: 5_000,
        ..small(on_one_server().await)
    };
    let bus = open(&config);
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let reading = tokio::spawn(async move { reader.read(1).await });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Nobody waits behind the one that blocks.
        bus.lag(&UP).await.unwrap();
    }
    assert!(!reading.is_finished());
    bus.append(&UP, batch([1])).await.unwrap();
    assert_eq!(numbers(&reading.await.unwrap().unwrap()), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_spares_what_is_unread_or_pending() {
    let bus = open(&small(on_one_server().await));
    bus.append(&UP, batch(0..10)).await.unwrap();
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let read = reader.read(6).await.unwrap();
    let id = |n: usize| read.entries[n].id;
    reader.ack(&[id(0), id(1), id(3), id(5)]).await.unwrap();
    assert_eq!(bus.lag(&UP).await.unwrap().entries, 8, "from 2 on");
    reader.ack(&[id(2)]).await.unwrap();
    assert_eq!(bus.lag(&UP).await.unwrap().entries, 6, "from 4 on");
    drop(reader);
    let mut next = soon("the lease", bus.own(&UP, &name("b"))).await.unwrap();
    assert_eq!(drain_through(&mut next, 5).await, [4, 6, 7, 8, 9]);
    assert_eq!(bus.lag(&UP).await.unwrap().entries, 0);
}

/// One entry makes its owner fail each time; its neighbours get through, and it
/// is set aside with a reason, and comes back when asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_isolated_set_aside_and_replayed() {
    for config in [on_one_server().await, on_cluster().await] {
        let config = RedisConfig {
            deliveries_max: 4,
            claim_idle_ms: 100,
            ..small(config)
        };
        for stream in [&UP, &SHARED] {
            poison(open(&config), stream).await;
        }
    }
}

async fn poison(bus: Arc<RedisBus>, stream: &Stream) {
    const POISON: u32 = 3;
    bus.append(stream, batch(0..8)).await.unwrap();
    let mut done = Vec::new();
    let mut failures = 0;
    while done.len() < 7 {
        let mut reader = match stream {
            Stream::Ack(_) => bus.join(stream, &name("a")).await.unwrap(),
            _ => bus.own(stream, &name("a")).await.unwrap(),
        };
        // Each life works off batches until one has the poison in it, and dies.
        loop {
            let read = soon("entries", reader.read(8)).await.unwrap();
            if numbers(&read).contains(&POISON) {
                failures += 1;
                break;
            }
            let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
            reader.ack(&ids).await.unwrap();
            done.extend(numbers(&read));
            if done.len() >= 7 {
                break;
            }
        }
    }
    done.sort_unstable();
    assert_eq!(done, [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(failures, 4);
    let dead = bus.dead_letters(stream, None, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].payload, batch([POISON])[0]);
    assert_eq!(dead[0].deliveries, 4);
    assert!(dead[0].reason.contains("4 times"), "{}", dead[0].reason);
    let after = bus.dead_letters(stream, Some(dead[0].id), 10).await;
    assert_eq!(after.unwrap(), []);
    let ids = [dead[0].id];
    assert_eq!(bus.replay_dead_letters(stream, &ids).await, Ok(1));
    assert_eq!(bus.replay_dead_letters(stream, &ids).await, Ok(0));
    let mut reader = match stream {
        Stream::Ack(_) => bus.join(stream, &name("a")).await.unwrap(),
        _ => soon("the lease", bus.own(stream, &name("a")))
            .await
            .unwrap(),
    };
    assert_eq!(drain_through(&mut reader, 1).await, [POISON]);
    assert_eq!(bus.lag(stream).await.unwrap().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_make_an_append_unknown() {
    let config = RedisConfig {
        wait_replicas: 1,
        wait_timeout_ms: 50,
        ..small(on_one_server().await)
    };
    let bus = open(&config);
    let unknown = bus.append(&UP, batch([1])).await.unwrap_err();
    assert!(matches!(unknown, BusError::Unknown(_)), "{unknown}");
    assert_eq!(bus.lag(&UP).await.unwrap().entries, 1, "but it is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_it_makes_it_known() {
    let server = Redis::start().await.unwrap();
    let port = server.address().port().to_string();
    let replica = Redis::with(sluice_engines::RedisSettings {
        arguments: vec!["--replicaof".into(), "127.0.0.1".into(), port],
        ..sluice_engines::RedisSettings::default()
    });
    let _replica = replica.await.unwrap();
    let config = RedisConfig {
        wait_replicas: 1,
        wait_timeout_ms: 1_000,
        ..on(&server)
    };
    let bus = open(&config);
    eventually("the replica", async || {
        bus.append(&UP, batch([1])).await.is_ok()
    })
    .await;
    // The script's text isn't known to a server that has forgotten it.
    redis_cli(&server, &["SCRIPT", "FLUSH"]).await;
    bus.append(&UP, batch([2])).await.unwrap();
}

/// A consumer that works long keeps what it has; one that is gone leaves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_stay_with_a_slow_consumer_that_lives() {
    let config = RedisConfig {
        claim_idle_ms: 400,
        block_ms: 100,
        ..small(on_one_server().await)
    };
    let bus = open(&config);
    let mut slow = bus.join(&SHARED, &name("slow")).await.unwrap();
    let mut other = bus.join(&SHARED, &name("other")).await.unwrap();
    bus.append(&SHARED, batch(0..3)).await.unwrap();
    let held = soon("entries", slow.read(9)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(1_200), other.read(9)).await;
    assert!(waited.is_err(), "taken from a living consumer");
    assert_eq!(held.entries.len(), 3);
    drop(slow);
    let inherited = soon("the inheritance", other.read(9)).await.unwrap();
    assert_eq!(numbers(&inherited), [0, 1, 2]);
    assert!(inherited.entries.iter().all(|entry| entry.deliveries == 2));
}

/// A gateway that dies without a word: its stream goes with its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_down_stream_dies_with_its_gateway() {
    let config = RedisConfig {
        lease_ttl_ms: 500,
        ..small(on_one_server().await)
    };
    let bus = open(&config);
    let gateway = tokio::task::spawn_blocking({
        let config = config.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let bus = open(&config);
            let reader = runtime.block_on(bus.own(&DOWN, &name("gateway")));
            // Dropped without running: as a kill -9.
            drop(runtime);
            drop(reader);
        }
    });
    gateway.await.unwrap();
    let gone = Err(BusError::Gone(DOWN.to_string()));
    eventually("the stream to go", async || {
        bus.append(&DOWN, batch([1])).await == gone
    })
    .await;
    assert_eq!(bus.lag(&DOWN).await.unwrap().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_is_unavailable_not_unknown() {
    let config = corner_of(vec!["redis://127.0.0.1:1".into()], RedisMode::Single);
    let bus = open(&config);
    let refused = bus.append(&UP, batch([1])).await.unwrap_err();
    assert!(matches!(refused, BusError::Unavailable(_)), "{refused}");
    assert!(bus.own(&UP, &name("a")).await.is_err());
    assert!(bus.ping().await.is_err());
}

/// A master of the cluster is killed and comes back with its file; the streams
/// of all slots go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_after_a_masters_death() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let config = RedisConfig {
        lease_ttl_ms: 30_000,
        response_timeout_ms: 500,
        ..small(corner_of(cluster.urls(), RedisMode::Cluster))
    };
    let bus = open(&config);
    let streams: Vec<_> = (0..12).map(|p| Stream::Message(Partition(p))).collect();
    let mut readers = Vec::new();
    for stream in &streams {
        bus.append(stream, batch(0..3)).await.unwrap();
        let mut reader = bus.own(stream, &name("a")).await.unwrap();
        assert_eq!(numbers(&reader.read(1).await.unwrap()), [0]);
        readers.push(reader);
    }
    // The append-only file is written once a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    cluster.masters[1].kill().unwrap();
    let mut refused = 0;
    for stream in &streams {
        refused += usize::from(bus.append(stream, batch([9])).await.is_err());
    }
    assert!(refused > 0, "nobody was on the dead master");
    cluster.masters[1].restart().await.unwrap();
    for (stream, reader) in streams.iter().zip(&mut readers) {
        append_until_known(&bus, stream, batch([100])).await;
        let mut seen = first_seen_until(reader, 100).await;
        // Only who was cut off begins again with what it holds.
        seen.retain(|number| *number != 0);
        assert_eq!(seen[..2], [1, 2], "{stream}");
    }
}

/// SPEC.md 14.8, with nothing but plain commands: a backend in another language.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_by_plain_commands_reads_answers_and_acks() {
    let server = Redis::start().await.unwrap();
    let config = RedisConfig {
        key_prefix: "sluice:".into(),
        ..on(&server)
    };
    let bus = open(&config);
    let request = Stream::Request {
        service: "stock".into(),
        partition: Partition(0),
    };
    let mut gateway = bus.own(&DOWN, &name("gateway")).await.unwrap();
    let question = vec![Bytes::from_static(b"how many?")];
    bus.append(&request, question).await.unwrap();
    let key = "sluice:rq:stock:{0}";
    redis_cli(
        &server,
        &["XGROUP", "CREATE", key, "sluice", "0", "MKSTREAM"],
    )
    .await;
    let read = ["XREADGROUP", "GROUP", "sluice", "stock-1", "COUNT", "64"];
    let read = [&read[..], &["STREAMS", key, ">"]].concat();
    let read = redis_cli(&server, &read).await;
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines[2..], ["p", "how many?"], "{read}");
    let id = lines[1];
    let answer = ["XADD", "sluice:down:{4}", "NOMKSTREAM", "*", "p", "seven"];
    assert!(redis_cli(&server, &answer).await.contains('-'));
    redis_cli(&server, &["XACK", key, "sluice", id]).await;
    redis_cli(&server, &["XDEL", key, id]).await;
    let read = soon("the answer", gateway.read(9)).await.unwrap();
    assert_eq!(read.entries[0].payload, "seven");
    assert_eq!(bus.lag(&request).await.unwrap().entries, 0);
    drop(gateway);
    eventually("the gateway to be gone", async || {
        redis_cli(&server, &answer).await.trim().is_empty()
    })
    .await;
}

/// Sentinel says where the master is, before and after it changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_is_found_by_sentinel_also_after_a_failover() {
    let mut master = Redis::start().await.unwrap();
    let port = master.address().port().to_string();
    let replica = Redis::with(sluice_engines::RedisSettings {
        arguments: vec!["--replicaof".into(), "127.0.0.1".into(), port.clone()],
        ..sluice_engines::RedisSettings::default()
    });
    let replica = replica.await.unwrap();
    let sentinel = Sentinel::start(&port);
    let config = RedisConfig {
        sentinel_master: "chat".into(),
        ..small(corner_of(vec![sentinel.url()], RedisMode::Sentinel))
    };
    let bus = open(&config);
    eventually("Sentinel", async || {
        bus.append(&UP, batch([1])).await.is_ok()
    })
    .await;
    eventually("the replica", async || {
        redis_cli(&replica, &["DBSIZE"]).await.trim() == "1" && sentinel.knows_replica()
    })
    .await;
    master.kill().unwrap();
    append_until_known(&bus, &UP, batch([2])).await;
    let mut reader = soon("the lease", bus.own(&UP, &name("a"))).await.unwrap();
    assert_eq!(first_seen_until(&mut reader, 2).await, [1, 2]);
}

/// A Sentinel that watches one master, called `chat`.
struct Sentinel {
    process: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(master_port: &str) -> Self {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".into(),
            "protected-mode no".into(),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor chat 127.0.0.1 {master_port} 1"),
            "sentinel down-after-milliseconds chat 500".into(),
            "sentinel failover-timeout chat 3000".into(),
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let process = std::process::Command::new("redis-server")
            .arg(&path)
            .arg("--sentinel")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            port,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn knows_replica(&self) -> bool {
        let port = self.port.to_string();
        let mut cli = std::process::Command::new("redis-cli");
        let asked = cli.args(["-p", &port, "sentinel", "replicas", "chat"]);
        let told = String::from_utf8(asked.output().unwrap().stdout).unwrap();
        told.contains("slave") && !told.contains("disconnected")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
