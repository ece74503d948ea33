//! A server whose disk is full: nobody is acked for what isn't stored, and it
//! goes on when there is room.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_engines::MariaDb;
use sluice_protocol::{UserSeq, packet::ContentType};
use sluice_store::{Commit, Content, MysqlConfig, MysqlStore, NewEntry, Store, StoreError};

use crate::kit::{PAGE, PARTITION, entry, new_user, pair, user};

fn large() -> NewEntry {
    let content = Content::Message {
        content_type: ContentType::Text,
        body: Bytes::from(vec![b'x'; 60 * 1024]),
    };
    entry(&pair("ann", "ben"), "ann", content)
}

#[tokio::test]
async fn a_full_disk_acks_nobody_and_is_got_over() {
    let server = match MariaDb::start_on_small_disk(160).await {
        Ok(server) => server,
        Err(error) if !is_root() => return eprintln!("not root, no small disk: {error}"),
        Err(error) => panic!("{error}"),
    };
    let config = MysqlConfig {
        request_timeout_ms: 2_000,
        acquire_timeout_ms: 2_000,
        ..MysqlConfig::single(server.url("sluice"))
    };
    let store = MysqlStore::connect(&config).await.unwrap();
    for name in ["ann", "ben"] {
        store.create_user(new_user(name)).await.unwrap();
    }
    // Most of what is left is taken by somebody else.
    let filler = server.small_disk().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let piece = vec![0_u8; 1024 * 1024];
    let mut pieces: u64 = 0;
    while file.write_all(&piece).is_ok() {
        pieces += 1;
    }
    file.set_len((pieces - 16) * 1024 * 1024).unwrap();
    drop(file);

    let mut acked = Vec::new();
    let (error, batch) = loop {
        let batch: Vec<NewEntry> = (0..8).map(|_| large()).collect();
        match commit(&store, batch.clone()).await {
            Ok(()) => acked.extend(batch),
            Err(error) => break (error, batch),
        }
        assert!(acked.len() < 2_048, "no disk is that small");
    };
    // MariaDB says that the disk is full, or waits for room and doesn't answer.
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let again = commit(&store, batch.clone()).await;
    assert!(again.is_err(), "{again:?}");

    std::fs::remove_file(&filler).unwrap();
    // The same again, as an owner does it by redelivery.
    let begin = Instant::now();
    while let Err(error) = commit(&store, batch.clone()).await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
    }
    acked.extend(batch);
    check(&store, &acked).await;
}

async fn commit(store: &MysqlStore, entries: Vec<NewEntry>) -> Result<(), StoreError> {
    let commit = Commit {
        partition: PARTITION,
        epoch: store.take_partition(PARTITION).await?,
        entries,
    };
    store.commit(commit).await.map(|_| ())
}

async fn check(store: &MysqlStore, acked: &[NewEntry]) {
    for name in ["ann", "ben"] {
        let (mut found, mut after) = (Vec::new(), UserSeq(0));
        loop {
            let page = store.inbox(&user(name), after, PAGE).await.unwrap();
            for (seq, entry) in page.entries {
                assert_eq!(seq.0, after.0 + 1);
                after = seq;
                found.push(entry.client_msg_id);
            }
            if !page.more {
                break;
            }
        }
        let acked: Vec<_> = acked.iter().map(|entry| entry.client_msg_id).collect();
        assert_eq!(found, acked, "{name}");
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let uid = status.lines().find(|line| line.starts_with("Uid:"));
        uid.is_some_and(|line| line.split_whitespace().nth(2) == Some("0"))
    })
}
