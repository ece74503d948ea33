//! Durable private messages: a batch of commits, synced, over 100,000 users at random.
//!
//! `cargo bench -p sluice-benches --bench store`
//!
//! Every user is in two conversations, which exist already. Each batch is one
//! commit, one transaction and one sync of the disk that `TMPDIR` is on.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Partition, PartitionEpoch, UserId, packet::ContentType,
};
use sluice_store::{
    Commit, Content, NewEntry, NewUser, Outcome, SqliteConfig, SqliteStore, Store, StoreError,
};
use tokio::task::JoinSet;

const USERS: u64 = 100_000;
const BATCHES: [usize; 3] = [16, 256, 2_048];
const START_MS: u64 = 1_790_000_000_000;
const PARTITION: Partition = Partition(0);

/// Makes messages: their numbers rise, their users are random (splitmix64).
struct Messages {
    users: Vec<UserId>,
    number: u64,
    random: u64,
}

// === impl Messages ===

impl Messages {
    fn random_user(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % USERS
    }

    fn message(&mut self, sender: u64) -> NewEntry {
        self.number += 1;
        let other = &self.users[((sender + 1) % USERS) as usize];
        let sender = self.users[sender as usize].clone();
        let mut id = [0; 10];
        id[2..].copy_from_slice(&self.random.to_be_bytes());
        NewEntry {
            conversation: ConversationId::private(&sender, other).unwrap_or_else(|e| panic!("{e}")),
            client_msg_id: ClientMsgId::new(START_MS + self.number, id),
            sender,
            predecessor: None,
            message_id: MessageId(self.number),
            server_time_ms: START_MS + self.number,
            content: Content::Message {
                content_type: ContentType::Text,
                body: Bytes::from_static(
                    b"what a message in a chat is like: some sixty bytes of it",
                ),
            },
        }
    }

    fn commit(&mut self, epoch: PartitionEpoch, count: usize) -> Commit {
        let entries = (0..count).map(|_| {
            let sender = self.random_user();
            self.message(sender)
        });
        Commit {
            partition: PARTITION,
            epoch,
            entries: entries.collect(),
        }
    }
}

async fn create_users(store: &Arc<SqliteStore>) -> Result<Vec<UserId>, StoreError> {
    let users: Vec<UserId> = (0..USERS)
        .filter_map(|number| UserId::parse(&format!("user-{number}")).ok())
        .collect();
    for users in users.chunks(2_048) {
        let mut creating = JoinSet::new();
        for id in users.iter().cloned() {
            let store = Arc::clone(store);
            creating.spawn(async move {
                let user = NewUser {
                    username: id.to_string(),
                    id,
                    password_hash: String::new(),
                    created_ms: START_MS,
                };
                store.create_user(user).await
            });
        }
        creating
            .join_all()
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
    }
    Ok(users)
}

fn commit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let store = SqliteStore::open(folder.path(), &SqliteConfig::default());
    let store = Arc::new(store.unwrap_or_else(|error| panic!("{error}")));
    let (epoch, users) = runtime
        .block_on(async {
            let users = create_users(&store).await?;
            Ok::<_, StoreError>((store.take_partition(PARTITION).await?, users))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let mut messages = Messages {
        users,
        number: 0,
        random: 42,
    };
    let run = |commit: Commit| {
        let outcomes = runtime.block_on(store.commit(commit));
        let stored = |outcome: &Outcome| matches!(outcome, Outcome::Stored(_));
        assert!(outcomes.is_ok_and(|outcomes| outcomes.iter().all(stored)));
    };
    for first in (0..USERS).step_by(2_048) {
        let senders = first..(first + 2_048).min(USERS);
        let entries = senders.map(|sender| messages.message(sender)).collect();
        run(Commit {
            partition: PARTITION,
            epoch,
            entries,
        });
    }
    let mut group = c.benchmark_group("commit");
    group.sample_size(20);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("batch of {batch}"), |bencher| {
            bencher.iter_batched(
                || messages.commit(epoch, batch),
                run,
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
