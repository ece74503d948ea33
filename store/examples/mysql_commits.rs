//! What commits cost on MariaDB: statements, transactions and waits a message.
//!
//! `cargo run --release -p sluice-store --example mysql_commits [messages] [users]`
//!
//! Two stores, as two processes have them, share 64 partitions. Each partition
//! commits one small batch after the other, as its owner does: private messages
//! between users picked at random. The server is one of its own, with its
//! defaults (the log is synced at every commit).

// An example is a program for a person: it may stop with a message.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_engines::MariaDb;
use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Partition, PartitionEpoch, UserId, packet::ContentType,
    partition_of,
};
use sluice_store::{Commit, Content, MysqlConfig, MysqlStore, NewEntry, NewUser, Outcome, Store};
use sqlx::{Connection, MySqlConnection};
use tokio::task::JoinSet;

const PARTITIONS: u16 = 64;
const STORES: u16 = 2;
/// Batches of 1 to 5 messages, 3 in the middle.
const BATCH_MAX: u64 = 5;

/// What of the server's counters is shown, a message.
const SHOWN: [&str; 7] = [
    "Com_stmt_execute",
    "Com_stmt_prepare",
    "Com_stmt_close",
    "Com_begin",
    "Com_commit",
    "Innodb_row_lock_waits",
    "Innodb_row_lock_time",
];

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

fn user(number: u64) -> UserId {
    UserId::parse(&format!("user{number}")).unwrap()
}

/// The conversations of each partition, with the sender of each.
fn conversations(users: u64) -> Vec<Vec<(ConversationId, UserId)>> {
    let mut all = vec![Vec::new(); usize::from(PARTITIONS)];
    let mut state = 7;
    for _ in 0..users * 8 {
        let (one, other) = (random(&mut state) % users, random(&mut state) % users);
        if let Ok(id) = ConversationId::private(&user(one), &user(other)) {
            let partition = partition_of(id.as_str().as_bytes(), PARTITIONS);
            all[usize::from(partition.0)].push((id, user(one)));
        }
    }
    all
}

fn message(
    (id, sender): &(ConversationId, UserId),
    number: u64,
    now_ms: u64,
    state: &mut u64,
) -> NewEntry {
    let mut name = [0; 10];
    name[2..].copy_from_slice(&random(state).to_be_bytes());
    NewEntry {
        conversation: id.clone(),
        sender: sender.clone(),
        client_msg_id: ClientMsgId::new(now_ms, name),
        predecessor: None,
        message_id: MessageId(number),
        server_time_ms: now_ms,
        content: Content::Message {
            content_type: ContentType::Text,
            body: Bytes::from_static(b"what a message in a chat is like: some sixty bytes of it"),
        },
    }
}

/// What an owner does, until all messages are taken.
async fn own(
    store: Arc<dyn Store>,
    partition: Partition,
    conversations: Vec<(ConversationId, UserId)>,
    left: Arc<AtomicU64>,
) -> Vec<Duration> {
    let mut epoch: PartitionEpoch = store.take_partition(partition).await.unwrap();
    let mut state = u64::from(partition.0) << 32;
    let mut times = Vec::new();
    loop {
        let size = 1 + random(&mut state) % BATCH_MAX;
        let number = left.fetch_sub(size, Ordering::Relaxed);
        if number > u64::MAX / 2 || number < size {
            return times;
        }
        let now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_millis() as u64);
        let entries: Vec<NewEntry> = (0..size)
            .map(|at| {
                let pick = random(&mut state) as usize % conversations.len();
                message(&conversations[pick], number - at, now_ms, &mut state)
            })
            .collect();
        let started = Instant::now();
        loop {
            let entries = entries.clone();
            let commit = Commit {
                partition,
                epoch,
                entries,
            };
            match store.commit(commit).await {
                Ok(outcomes) => {
                    assert!(outcomes.iter().all(|o| !matches!(o, Outcome::Refused(_))));
                    break;
                }
                Err(error) => {
                    println!("partition {}: {error}", partition.0);
                    epoch = store.take_partition(partition).await.unwrap();
                }
            }
        }
        times.push(started.elapsed());
    }
}

async fn counters(sql: &mut MySqlConnection) -> BTreeMap<String, i64> {
    let rows: Vec<(String, String)> = sqlx::query_as("SHOW GLOBAL STATUS")
        .fetch_all(sql)
        .await
        .unwrap();
    (rows.into_iter())
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse().unwrap());
    let messages: u64 = arguments.next().unwrap_or(25_000);
    let users: u64 = arguments.next().unwrap_or(1_000);
    let server = MariaDb::start().await.unwrap();
    let config = MysqlConfig::single(server.url("sluice"));
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..STORES {
        let store = MysqlStore::connect(&config).await.unwrap();
        stores.push(store.for_owners());
    }
    for number in 0..users {
        let user = NewUser {
            id: user(number),
            username: format!("user {number}"),
            password_hash: "$argon2id$".to_owned(),
            created_ms: 1,
        };
        stores[0].create_user(user).await.unwrap();
    }
    let mut sql = MySqlConnection::connect(&server.url("sluice"))
        .await
        .unwrap();
    let before = counters(&mut sql).await;
    let (started, left) = (Instant::now(), Arc::new(AtomicU64::new(messages)));
    let mut owners = JoinSet::new();
    for (at, conversations) in conversations(users).into_iter().enumerate() {
        let partition = Partition(at as u16);
        let store = Arc::clone(&stores[at % usize::from(STORES)]);
        owners.spawn(own(store, partition, conversations, Arc::clone(&left)));
    }
    let mut times = owners.join_all().await.concat();
    let taken = started.elapsed().as_secs_f64();
    let after = counters(&mut sql).await;
    times.sort();
    println!(
        "{messages} messages in {} commits, {taken:.1} s: {:.0} messages/s; a commit: median {:?}, 99 % {:?}, longest {:?}",
        times.len(),
        messages as f64 / taken,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
    );
    for name in SHOWN {
        let risen = after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
        let each = risen as f64 / messages as f64;
        println!("{name:>24}: {risen:>8}, {each:.3} a message");
    }
}
