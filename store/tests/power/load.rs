//! What the tests store, and how they hold an image against what was acked.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Partition, PartitionEpoch, Seq, UserId, UserSeq,
    packet::ContentType,
};
use sluice_store::{
    Commit, Content, NewEntry, NewUser, Outcome, PageLimit, SqliteConfig, SqliteStore, Store,
    StoreError, Stored,
};

use crate::disk::{Image, Random};

const START_MS: u64 = 1_790_000_000_000;
const TASKS: u16 = 4;

/// Every message that was acknowledged, with its answer.
pub(crate) type Acked = Arc<Mutex<Vec<(NewEntry, Stored)>>>;

/// Small caches and a log of one MiB: pages move to the database all the time.
pub(crate) fn config() -> SqliteConfig {
    SqliteConfig {
        checkpoint_at_mib: 1,
        writer_cache_mib: 1,
        reader_threads: 1,
        ..SqliteConfig::default()
    }
}

fn name(number: u16) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn message(task: u16, number: u64, random: &mut Random) -> NewEntry {
    let other = (task + 1 + random.below(u64::from(TASKS - 1)) as u16) % TASKS;
    let mut id = [0; 10];
    id[1] = task as u8;
    id[2..].copy_from_slice(&number.to_be_bytes());
    let length = match random.below(8) {
        0 => random.below(40_000),
        _ => random.below(300),
    };
    NewEntry {
        conversation: ConversationId::private(&name(task), &name(other)).unwrap(),
        sender: name(task),
        client_msg_id: ClientMsgId::new(START_MS + number, id),
        predecessor: None,
        message_id: MessageId((u64::from(task) << 32) | number),
        server_time_ms: START_MS + number,
        content: Content::Message {
            content_type: ContentType::Text,
            body: vec![random.next() as u8; length as usize].into(),
        },
    }
}

/// Does it until the engine does not fail.
async fn until_done<T>(mut act: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    loop {
        match act().await {
            Ok(done) => return done,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn create_users(store: &SqliteStore) {
    for number in 0..TASKS {
        let created = async || {
            let user = NewUser {
                id: name(number),
                username: String::new(),
                password_hash: String::new(),
                created_ms: START_MS,
            };
            match store.create_user(user).await {
                // A transaction that failed may have become durable after all.
                Err(StoreError::UserExists(_)) => Ok(()),
                other => other,
            }
        };
        until_done(created).await;
    }
}

/// Commits from several tasks until so many messages are acknowledged.
pub(crate) async fn commit_from_all(store: &Arc<SqliteStore>, acked: &Acked, enough: usize) {
    let local = tokio::task::LocalSet::new();
    for task in 0..TASKS {
        let (store, acked) = (Arc::clone(store), Arc::clone(acked));
        local.spawn_local(commit_until(store, task, acked, enough));
    }
    local.await;
}

/// Commits batches until the acknowledged messages are enough. What fails is
/// tried again, as the services do.
async fn commit_until(store: Arc<SqliteStore>, task: u16, acked: Acked, enough: usize) {
    let mut random = Random(u64::from(task) + 1);
    let partition = Partition(task);
    let mut number = acked.lock().unwrap().len() as u64;
    while acked.lock().unwrap().len() < enough {
        let entries: Vec<NewEntry> = (0..random.below(6) + 1)
            .map(|_| {
                number += 1;
                message(task, number, &mut random)
            })
            .collect();
        let outcomes = until_done(async || {
            let epoch: PartitionEpoch = store.take_partition(partition).await?;
            let entries = entries.clone();
            let commit = Commit {
                partition,
                epoch,
                entries,
            };
            store.commit(commit).await
        })
        .await;
        let mut acked = acked.lock().unwrap();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            let (Outcome::Stored(stored) | Outcome::Duplicate(stored)) = outcome else {
                panic!("{outcome:?}");
            };
            acked.push((entry, stored));
        }
    }
}

/// Opens a store on what a power cut has left and holds it against what was
/// acknowledged before. Says what is wrong.
pub(crate) async fn check_image(image: &Image, acked: &[(NewEntry, Stored)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in image {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let store = SqliteStore::open(folder.path(), &config())
        .map_err(|error| format!("does not open: {error}"))?;
    check_acked(&store, acked).await?;
    check_inboxes(&store).await?;
    drop(store);
    check_tables(&folder.path().join("sluice.db"));
    Ok(())
}

async fn check_acked(store: &SqliteStore, acked: &[(NewEntry, Stored)]) -> Result<(), String> {
    for (sent, stored) in acked {
        let position = (sent.conversation.clone(), stored.seq);
        let kept = store.entries(&[position]).await.unwrap().remove(0);
        let kept = kept.ok_or_else(|| format!("an acked message is lost: {stored:?}"))?;
        if kept.message_id != sent.message_id || kept.content != sent.content {
            return Err(format!("an acked message is another one: {stored:?}"));
        }
    }
    Ok(())
}

async fn check_inboxes(store: &SqliteStore) -> Result<(), String> {
    let limit = PageLimit {
        entries: 500,
        bytes: usize::MAX,
    };
    for number in 0..TASKS {
        let mut after = UserSeq(0);
        loop {
            let page = store.inbox(&name(number), after, limit).await.unwrap();
            for (user_seq, entry) in page.entries {
                if user_seq.0 != after.0 + 1 || entry.seq == Seq(0) {
                    return Err(format!("a gap in an inbox before {user_seq}"));
                }
                after = user_seq;
            }
            if !page.more {
                break;
            }
        }
    }
    Ok(())
}

/// What must hold among the tables, whatever was lost.
fn check_tables(database: &Path) {
    let database = rusqlite::Connection::open(database).unwrap();
    let number = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    let verdict: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    let gaps = "SELECT count(*) FROM conversation c
                WHERE (SELECT count(*) FROM message WHERE conversation = c.id)
                   IS NOT (SELECT max(seq) FROM message WHERE conversation = c.id)";
    assert_eq!(number(gaps), 0);
    let messages = number("SELECT count(*) FROM message");
    assert_eq!(number("SELECT count(*) FROM dedup"), messages);
    assert_eq!(number("SELECT count(*) FROM user_msg_list"), 2 * messages);
    let ids = number("SELECT count(DISTINCT msg_id) FROM message");
    assert_eq!(ids, messages, "nothing is stored twice");
}
